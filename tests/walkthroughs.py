"""Run a page of a generated project's docs as it is written."""

import re
import subprocess
from pathlib import Path

from .conftest import BakedProject

BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "=== step "


def steps(page: Path) -> list[tuple[str, list[str]]]:
    """Read the commands of a page, each with the lines that the page shows after them."""
    blocks: list[tuple[str, list[str]]] = []
    for kind, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "bash":
            blocks.append((content, []))
        else:
            blocks[-1][1].extend(content.splitlines())
    return blocks


def run_in_one_shell(project: BakedProject, commands: list[str]) -> list[str]:
    """Run the commands one after the other in one shell, and return what each printed."""
    script = "".join(f"echo '{MARK}{number}'\n{command}" for number, command in enumerate(commands))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    return re.split(rf"^{MARK}\d+\n", done.stdout, flags=re.MULTILINE)[1:]


def shown(line: str, output: str) -> bool:
    """Say whether a line of the page is in the output; `…` stands for anything, and spaces are alike."""
    pattern = "[^\n]*".join(r"[^\S\n]+".join(map(re.escape, part.split(" "))) for part in line.split("…"))
    return re.search(rf"^[^\S\n]*{pattern}[^\S\n]*$", output, re.MULTILINE) is not None


def walk(project: BakedProject, page: str) -> None:
    """Do what a page says in a fresh project, and see that it shows what is printed."""
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("python", "-m", "mlops", "setup")
    written = steps(project.path / page)
    assert len(written) > 5
    printed = run_in_one_shell(project, [commands for commands, _ in written])
    for (commands, lines), output in zip(written, printed, strict=True):
        missing = [line for line in lines if not shown(line, output)]
        assert not missing, f"{commands}\nshould print {missing}, printed:\n{output}"

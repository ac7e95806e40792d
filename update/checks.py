"""Try an update before it is written: in a copy of the project, with the packages of its lock."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from .errors import UpdateError

PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class Report:
    """What a copy of the project is like.

    Args:
        problems: What does not work, in lines.
        reasons: Why each stage would run, by its name: the deps that are not as `dvc.lock` has them, and how DVC calls
            that. Outputs do not exist in a copy, so deps that are outputs are `deleted` in any.
        upstream: The stages that each depends on, directly or not.
    """

    problems: list[str]
    reasons: dict[str, dict[str, str]]
    upstream: dict[str, list[str]]


def look_at(project: Path, python: Path, pins: Mapping[str, str] | None = None) -> Report:
    """Ask DVC which stages of a copy are out of date; with `pins`, see also whether code and packages fit together.

    Args:
        project: The root of the copy.
        python: The Python of the environment to use.
        pins: The versions of the lock, if the code is to be tried too.

    Raises:
        UpdateError: DVC can't read the project.
    """
    local = project / ".dvc/config.local"
    local.write_text(
        "[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8"
    )  # the copy is no repository
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONSAFEPATH", "DVC_ROOT")}
        # By -c, so that Python imports what lies in the copy, and nothing that lies beside this file.
        command = [str(python), "-c", PROBE.read_text(encoding="utf-8"), str(report), json.dumps(pins)]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            problem = f"DVC can't tell which stages are out of date: {last}"
            raise UpdateError(problem, "see what it says: dvc status")
        content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return Report(**content)


def environment(lock: bytes, pins: Mapping[str, str], is_changed: bool, folder: Path) -> Path:
    """Return the Python of an environment with the packages of a lock: the present one, where it has them.

    Args:
        lock: The lock.
        pins: The versions in it.
        is_changed: Whether it is another than the project's.
        folder: Where to make an environment, if one has to be made: a few minutes.

    Raises:
        UpdateError: pip can't install the lock.
    """
    if not is_changed or all(_installed(name) == version.split("+")[0] for name, version in pins.items()):
        return Path(sys.executable)
    click.echo(f"Installing the {len(pins)} packages of the new requirements.lock, to try it: a few minutes")
    requirements = folder / "requirements.lock"
    folder.mkdir()
    requirements.write_bytes(lock)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    options = ("-q", "--disable-pip-version-check", "--no-compile")
    done = subprocess.run(
        [str(python), "-m", "pip", "install", *options, "-r", str(requirements)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        fix = "change your packages in pyproject.toml, then: make lock (no connection? then update again later)"
        raise UpdateError(f"pip can't install the new lock: {done.stderr.strip()}", fix)
    return python


def _installed(name: str) -> str:
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return ""

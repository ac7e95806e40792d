"""What a job can't see: this machine's files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlops.compute.sandbox.supervisor import can_isolate, wrap_command

pytestmark = pytest.mark.skipif(not can_isolate(), reason="this system lets nobody hide files")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a file in it, and a folder in which a job works."""
    (tmp_path / "home" / "project" / "work").mkdir(parents=True)
    (tmp_path / "home" / "project" / "extra.csv").write_text("x", encoding="utf-8")
    return tmp_path / "home"


def inside(home: Path, *command: str) -> str:
    """Run a command where `home` is hidden, and return what it printed."""
    return subprocess.run(wrapped(home, *command), capture_output=True, text=True, check=True).stdout.strip()


def wrapped(home: Path, *command: str) -> list[str]:
    """Return the command that runs another one there."""
    work, tmp = home / "project" / "work", home / "tmp"
    tmp.mkdir(exist_ok=True)
    return wrap_command(list(command), work, tmp, [home], [work])


def test_wrap_command_hides_files_that_are_not_the_job_s(home: Path) -> None:
    (home / "project" / "work" / "own").touch()
    assert inside(home, "sh", "-c", "ls; ls ..") == "own\nwork"
    assert (home / "project" / "extra.csv").exists()


def test_wrap_command_lets_the_job_write_in_its_folder(home: Path) -> None:
    inside(home, "sh", "-c", "echo done > made; echo lost > ../lost")
    assert (home / "project" / "work" / "made").read_text(encoding="utf-8") == "done\n"
    assert not (home / "project" / "lost").exists()


def test_wrap_command_keeps_the_interpreter_and_its_packages(home: Path) -> None:
    hidden = [home, Path(sys.prefix).parent, Path(sys.base_prefix).parent]
    code = "import numpy, sys; print(sys.prefix)"
    command = wrap_command([sys.executable, "-c", code], home / "project" / "work", home, hidden, [])
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == sys.prefix


def test_wrap_command_keeps_an_interpreter_behind_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    subprocess.run([home / "bin" / "python", "-m", "venv", "--without-pip", home / "venv"], check=True)
    monkeypatch.setattr(sys, "executable", str(home / "venv" / "bin" / "python"))
    monkeypatch.setattr(sys, "prefix", str(home / "venv"))
    assert inside(home, sys.executable, "-c", "print(7)") == "7"


def test_wrap_command_a_home_that_is_the_root_hides_nothing_more(home: Path) -> None:
    subprocess.run(wrap_command(["true"], home / "project" / "work", home, [Path("/")], []), check=True)


def test_wrap_command_gives_a_temporary_folder_of_its_own(home: Path) -> None:
    inside(home, "sh", "-c", "ls /tmp > seen; echo mine > /tmp/made")
    assert "made" not in (home / "project" / "work" / "seen").read_text(encoding="utf-8")
    assert (home / "tmp" / "made").read_text(encoding="utf-8") == "mine\n"


def test_wrap_command_passes_arguments_and_exit_codes(home: Path) -> None:
    assert inside(home, "printf", "%s|", "a b", "$HOME", "'q'") == "a b|$HOME|'q'|"
    assert subprocess.run(wrapped(home, "sh", "-c", "exit 7")).returncode == 7

"""What a job can't see: this machine's files."""

import subprocess
import sys
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }}.compute import walls

pytestmark = pytest.mark.skipif(not walls.can_be_built(), reason="this system lets nobody hide files")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a file in it, and a folder in which a job works."""
    (tmp_path / "home" / "project" / "work").mkdir(parents=True)
    (tmp_path / "home" / "project" / "extra.csv").write_text("x", encoding="utf-8")
    return tmp_path / "home"


def inside(home: Path, *command: str) -> str:
    """Run a command behind walls around `home`, and return what it printed."""
    work = home / "project" / "work"
    done = subprocess.run(
        walls.around(list(command), [home, home / "project"], [work]), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_around_hides_files_that_are_not_the_job_s(home: Path) -> None:
    (home / "project" / "work" / "own").touch()
    assert inside(home, "sh", "-c", "ls; ls ..") == "own\nwork"
    assert (home / "project" / "extra.csv").exists()


def test_around_lets_the_job_write_in_its_folder(home: Path) -> None:
    inside(home, "sh", "-c", "echo done > made; echo lost > ../lost")
    assert (home / "project" / "work" / "made").read_text(encoding="utf-8") == "done\n"
    assert not (home / "project" / "lost").exists()


def test_around_keeps_the_interpreter_and_its_packages(home: Path) -> None:
    there = Path(sys.prefix).parent
    command = walls.around([sys.executable, "-c", "import numpy"], [there], [home / "project" / "work"])
    subprocess.run(command, check=True)


def test_around_a_home_that_is_the_root_hides_nothing_more(home: Path) -> None:
    command = walls.around(["true"], [Path("/")], [home / "project" / "work"])
    subprocess.run(command, check=True)


def test_around_passes_arguments_and_exit_codes(home: Path) -> None:
    assert inside(home, "printf", "%s|", "a b", "$HOME", "'q'") == "a b|$HOME|'q'|"
    work = home / "project" / "work"
    assert subprocess.run(walls.around(["sh", "-c", "exit 7"], [home], [work])).returncode == 7

"""What Git says becomes a problem in words, and a command that helps."""

import subprocess
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.tracking.git import GitError, check_writable, exists, git, head

from ..conftest import Run


@pytest.fixture
def folder(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file, in no repository; the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "file").write_text("1", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def follow(fix: str) -> None:
    subprocess.run(fix.partition("; or ")[0], shell=True, check=True, capture_output=True)


def test_head_without_a_commit_names_the_command_that_makes_one(folder: Path) -> None:
    with pytest.raises(ProjectError, match="has no Git commit, so a run has nothing to name") as raised:
        head()
    follow(raised.value.fix)
    assert exists(head())


def test_git_outside_of_a_repository_names_the_command_that_makes_one(folder: Path) -> None:
    with pytest.raises(GitError, match=f"{folder} is in no Git repository") as raised:
        git("log", "-1")
    follow(raised.value.fix)
    git("log", "-1")


def test_git_that_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(folder))
        with pytest.raises(ProjectError, match="git is not installed\nFix: install git"):
            git("--version")
    git("--version")


def test_git_of_a_damaged_repository_names_a_new_clone(folder: Path, run: Run) -> None:
    follow("git init && git add . && git commit -m Start")
    run("git", "clone", "--quiet", "--no-hardlinks", ".", "../origin")
    run("git", "remote", "add", "origin", str(folder.parent / "origin"))
    path = folder / ".git/objects" / head()[:2] / head()[2:]
    path.chmod(0o644)
    path.write_bytes(b"")
    with pytest.raises(GitError, match="the repository around .*/project is damaged: ") as raised:
        git("log", "-1")
    assert "git clone <address of git remote -v> <folder>" in raised.value.fix
    run("git", "clone", "--quiet", str(folder.parent / "origin"), "../new")
    git("log", "-1", where=Path("../new"))


def test_git_error_of_another_kind_says_it_in_one_line_and_shows_no_password(folder: Path, run: Run) -> None:
    run("git", "init", "--quiet")
    with pytest.raises(GitError) as raised:
        git("remote", "rename", "https://me:secret@example.org", "other")
    assert raised.value.problem == "git remote: No such remote: 'https://example.org'"
    assert "secret" not in str(raised.value)


def test_repository_that_is_writable_passes(folder: Path, run: Run) -> None:
    run("git", "init", "--quiet")
    (folder / "inner").mkdir()
    check_writable(folder / "inner")

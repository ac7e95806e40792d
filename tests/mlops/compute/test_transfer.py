"""The code of a job: the files of a commit, the same bytes each time, and nothing beside them."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from mlops.compute import transfer
from mlops.files import sha256


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one file in a project's folder and one beside that; the working directory is the project."""
    for name, value in {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}.items():
        monkeypatch.setenv(name, value)
    project = tmp_path / "repository" / "project"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    (project / "code.py").write_text("print()\n", encoding="utf-8")
    (project.parent / "other.py").write_text("print()\n", encoding="utf-8")
    git("init", "--quiet", str(project.parent))
    git("add", str(project.parent))
    commit()
    return project


def git(*arguments: str) -> str:
    """Run git here."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit() -> None:
    """Commit what was added."""
    git("commit", "--quiet", "--message=Test")


def test_pack_holds_the_project_of_the_commit_only(repository: Path, tmp_path: Path) -> None:
    for name in (".env", "untracked.py"):
        (repository / name).write_text("secret", encoding="utf-8")
    (repository / "code.py").write_text("not committed", encoding="utf-8")
    transfer.pack("HEAD", tmp_path / "code.tar.gz")
    transfer.unpack(tmp_path / "code.tar.gz", tmp_path / "job")
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["code.py"]
    assert (tmp_path / "job" / "code.py").read_text(encoding="utf-8") == "print()\n"


def test_pack_again_gives_the_same_bytes(repository: Path, tmp_path: Path) -> None:
    transfer.pack("HEAD", tmp_path / "first.tar.gz")
    git("config", "tar.umask", "user")
    transfer.pack("HEAD", tmp_path / "second.tar.gz")
    assert sha256(tmp_path / "first.tar.gz") == sha256(tmp_path / "second.tar.gz")


def test_unpack_refuses_what_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with tarfile.open(tmp_path / "code.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "file", arcname="../outside")
    with pytest.raises(tarfile.TarError, match="outside"):
        transfer.unpack(tmp_path / "code.tar.gz", tmp_path / "job")
    assert not (tmp_path / "outside").exists()

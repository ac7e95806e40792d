"""The code of a job: the files of a commit, the same bytes each time, and nothing beside them."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from mlops.compute import transfer
from mlops.errors import ProjectError
from mlops.files import sha256

from ..conftest import Run


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


def test_pack_holds_files_that_an_archive_of_git_leaves_out(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitattributes").write_text("code.py export-ignore\n", encoding="utf-8")
    git("add", ".")
    commit()
    transfer.pack("HEAD", tmp_path / "code.tar.gz")
    transfer.unpack(tmp_path / "code.tar.gz", tmp_path / "job")
    assert (tmp_path / "job" / "code.py").exists()


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


@pytest.fixture
def storage(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A shell in a DVC repository whose remote is a folder."""
    monkeypatch.chdir(tmp_path)
    for command in ("git init -q", "dvc init -q", "dvc remote add -q -d storage store"):
        run(*command.split())
    return run


def test_remote_options_of_a_remote_that_jobs_can_not_use_say_which_can(storage: Run) -> None:
    storage("dvc", "remote", "modify", "storage", "url", "https://me:secret@example.org/data")
    problem = "a job can't use the DVC remote https://example.org/data: only S3 and folders"
    with pytest.raises(
        ProjectError, match=rf"{problem}\nFix: dvc remote add -d -f storage s3://<bucket>/<folder> && .*RUN_ON=local"
    ):
        transfer.remote_options()
    storage("dvc", "remote", "add", "-d", "-f", "storage", "s3://bucket")
    assert transfer.remote_options()["url"] == "s3://bucket"


def test_public_remote_with_credentials_in_an_option_says_what_to_write(storage: Run) -> None:
    storage("dvc", "remote", "add", "-d", "-f", "storage", "s3://bucket")
    storage("dvc", "remote", "modify", "storage", "endpointurl", "https://me:secret@example.org")
    fix = r"dvc remote modify storage endpointurl https://example.org"
    with pytest.raises(
        ProjectError, match=rf"the DVC remote's endpointurl has credentials in it.*\nFix: {fix}"
    ) as error:
        transfer.public_remote()
    assert "secret" not in str(error.value)
    storage(*fix.split())
    assert transfer.public_remote()["endpointurl"] == "https://example.org"


@pytest.mark.parametrize(
    ("error", "problem", "fix"),
    [
        (OSError(28, "No space left on device"), "the disk is full", "free some space .*; then again"),
        (LookupError("1 of 2 files"), "1 of 2 files", "then again"),
    ],
    ids=["known", "unknown"],
)
def test_explain_errors_has_the_words_for_an_error_that_is_known(error: Exception, problem: str, fix: str) -> None:
    with (
        pytest.raises(ProjectError, match=rf"no data: {problem}\nFix: {fix}$"),
        transfer.explain_errors("no data", "then again"),
    ):
        raise error

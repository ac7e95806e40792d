"""A new project's registry is a header that Git tracks; its first ids go to DVC, and never into Git's history."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.repo import Repo
from mlops.cli import main
from mlops.consent import edits, queries, storage
from mlops.errors import ProjectError
from mlops.records import consent

HEADER = b"subject_id,consent_status,effective_at\n"
NEW = ["D  data/consent.csv", "?? data/.gitignore", "?? data/consent.csv.dvc"]


def git(*words: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.rstrip()


def commit_all() -> None:
    git("add", "--all")
    git("commit", "--message=Start")


@pytest.fixture
def empty(registry: Path) -> Path:
    """A new project's registry, committed."""
    registry.write_bytes(HEADER)
    git("init", "--initial-branch=main")
    with Repo.init():
        Path(".gitignore").write_text("/data/.consent.csv.new\n")
        commit_all()
    return registry


def test_first_consent_moves_the_registry_from_git_to_dvc(empty: Path) -> None:
    Path("notes.txt").write_text("mine\n")
    git("add", "notes.txt")
    done = CliRunner().invoke(main, ["consent", "add", "patient-7"])
    assert done.output.splitlines()[0] == "patient-7 is active (line 2)"
    assert done.output.splitlines()[1] == (
        "data/consent.csv is tracked by DVC from now on, so that ids stay out of Git's history: "
        "commit data/consent.csv.dvc and data/.gitignore"
    )
    assert len(done.output.splitlines()) == 2
    assert git("status", "--porcelain", "-uall").splitlines() == [NEW[0], "A  notes.txt", *NEW[1:]]
    assert storage.matches_dvc()
    assert consent.read(empty).allows("patient-7")
    commit_all()
    assert edits.add(["patient-8"]) == ["patient-8 is active (line 3)"]
    assert queries.check() == ([], [])
    assert git("log", "--all", "-S", "patient-7", "--oneline") == ""


def test_first_consent_in_a_folder_of_a_larger_repository(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(".git")
    shutil.rmtree(".dvc")
    project = Path("team/project")
    (project / "data").mkdir(parents=True)
    Path("params.yaml").rename(project / "params.yaml")
    (project / empty).write_bytes(HEADER)
    git("init")
    monkeypatch.chdir(project)
    with Repo.init(subdir=True):
        commit_all()
    edits.add(["patient-7"])
    assert git("status", "--porcelain", "-uall").splitlines() == [
        line.replace(" data", " team/project/data") for line in NEW
    ]
    assert storage.matches_dvc()


@pytest.mark.parametrize("is_there", [True, False])
def test_first_consent_where_git_does_not_track_the_registry(empty: Path, is_there: bool) -> None:
    git("rm", "--cached", str(empty))
    git("commit", "--message=Untracked")
    if not is_there:
        empty.unlink()
    assert edits.add(["patient-7"])[1].startswith("data/consent.csv is tracked by DVC")
    assert git("status", "--porcelain", "-uall").splitlines() == NEW[1:]
    assert consent.read(empty).active == {"patient-7"}


def test_first_withdrawal_moves_the_registry_too_when_meant(empty: Path) -> None:
    with pytest.raises(ProjectError, match="does not know 'patient-7', whose records are left out anyway"):
        edits.revoke(["patient-7"])
    assert empty.read_bytes() == HEADER and not git("status", "--porcelain"), "nothing is moved by what is refused"
    assert "tracked by DVC" in edits.revoke(["patient-7"], unlisted=True)[1]
    assert consent.read(empty).counts == {"revoked": 1}


def test_registry_with_lines_in_git_stays_there(empty: Path) -> None:
    empty.write_bytes(HEADER + b"form-00,active,\n")
    git("commit", "--all", "--message=Forms")
    assert edits.add(["form-01"]) == ["form-01 is active (line 3)"]
    assert git("status", "--porcelain", "-uall") == " M data/consent.csv"


def test_registry_without_dvc_gets_no_id(registry: Path) -> None:
    registry.write_bytes(HEADER)
    with pytest.raises(
        ProjectError, match=r"consent.csv is as it was, and DVC does not track it yet: (?s:.*)type the command again"
    ):
        edits.add(["patient-7"])
    assert registry.read_bytes() == HEADER


@pytest.mark.parametrize("content", [HEADER, b"", b"\n\n", HEADER.rstrip(), b"\xef\xbb\xbf" + HEADER])
def test_registry_that_lists_nobody_says_both_ways_out(empty: Path, content: bytes) -> None:
    empty.write_bytes(content)
    ways_out = (
        r"(?s)lists nobody, and data.consent is required\nFix: python -m mlops consent add <subject>; .*"
        "no persons: params.yaml:data.consent: not_required"
    )
    readers: tuple[Callable[[], object], ...] = (lambda: consent.read(empty), queries.check)
    for read in readers:
        with pytest.raises(ProjectError, match=ways_out):
            read()
    assert queries.status(["patient-7"])[0].status == "missing"
    assert queries.history("patient-7")[0] == []
    edits.add(["patient-7"])
    assert consent.read(empty).active == {"patient-7"}


def test_project_that_requires_no_consent_refuses_verbs_while_nobody_is_listed(empty: Path) -> None:
    required = Path("params.yaml").read_text()
    Path("params.yaml").write_text(required.replace("required", "not_required"))
    verbs: tuple[Callable[[], object], ...] = (
        lambda: edits.add(["a"]),
        lambda: edits.revoke(["a"], unlisted=True),
        lambda: queries.status(["a"]),
        queries.check,
    )
    for verb in verbs:
        with pytest.raises(ProjectError, match=r"(?s)no consent is required here .*params.yaml:data.consent: required"):
            verb()
    Path("params.yaml").write_text(required)
    edits.add(["a"])
    Path("params.yaml").write_text(required.replace("required", "not_required"))
    assert queries.status(["a"])[0].allowed, "what is listed can still be read"

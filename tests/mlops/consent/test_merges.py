"""Lines that a merge lost, in histories of real Git, with the registry in Git or in DVC."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.consent import edits, queries

from .conftest import LINES


def git(*words: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(registry: Path, added: bytes = b"", removed: bytes = b"") -> None:
    content = registry.read_bytes()
    registry.unlink()  # DVC may have linked it to its cache
    registry.write_bytes(content.replace(removed, b"") + added)
    if Path(".dvc").exists():
        with Repo() as repo:
            repo.add([str(registry)])
    git("add", "-A")
    git("commit", "-m", "Change")


def checkout(branch: str, *options: str) -> None:
    git("checkout", *options, branch)
    if Path(".dvc").exists():
        with Repo() as repo:
            repo.checkout(force=True)


@pytest.fixture(params=["git", "dvc"])
def history(registry: Path, request: pytest.FixtureRequest) -> Path:
    """Two branches from one commit; `other` has withdrawn form-01, and is checked out."""
    git("init", "-b", "main")
    if request.param == "dvc":
        with Repo.init():
            Path(".gitignore").write_text("/data/consent.csv\n")
    commit(registry)
    checkout("other", "-b")
    commit(registry, b"form-01,revoked,2025-06-01T00:00:00Z\n")
    return registry


def merge(registry: Path, *options: str) -> None:
    checkout("main")
    commit(registry, b"form-03,active,2025-06-01T00:00:00Z\n")
    git("merge", "-m", "Merge", *options, "other")
    if Path(".dvc").exists():
        with Repo() as repo:
            repo.checkout(force=True)


def test_check_reports_a_line_that_a_merge_of_one_side_lost(history: Path) -> None:
    lost = git("rev-parse", "HEAD")
    merge(history, "-s", "ours")
    problems, doubts = queries.check()
    assert doubts == []
    assert problems == [
        f"data/consent.csv lacks a line of commit {lost[:10]} that the merge {git('rev-parse', 'HEAD')[:10]} lost: "
        "form-01 2025-06-01T00:00:00+00:00 revoked"
    ]
    commit(history, b"x,active,\n")
    assert len(queries.check()[0]) == 1, "in later commits too"
    commit(history, b"form-01,revoked,2025-06-01T00:00:00Z\n")
    assert queries.check() == ([], [])


def test_check_of_a_merge_that_keeps_all_lines_reports_nothing(history: Path) -> None:
    merge(history, "-s", "ours", "--no-commit")
    commit(history, b"form-01,revoked,2025-06-01T00:00:00Z\n")
    assert len(git("rev-list", "--merges", "HEAD").split()) == 1
    assert queries.check() == ([], [])


def test_check_reports_no_line_that_a_commit_took_out_before_the_merge(history: Path) -> None:
    commit(history, removed=b"form-00,active,2025-01-01T00:00:00Z\n")
    merge(history, "-s", "ours", "--no-commit")
    commit(history, b"form-01,revoked,2025-06-01T00:00:00Z\n", b"form-00,active,2025-01-01T00:00:00Z\n")
    assert queries.check() == ([], [])


@pytest.mark.parametrize("history", ["dvc"], indirect=True)
def test_check_says_which_version_dvc_s_cache_lacks(history: Path) -> None:
    digest = hashlib.md5(history.read_bytes()).hexdigest()
    merge(history, "-s", "ours")
    Path(".dvc/cache/files/md5", digest[:2], digest[2:]).unlink()
    problems, doubts = queries.check()
    assert problems == []
    assert len(doubts) == 1 and "can't be compared" in doubts[0] and "dvc fetch --all-commits" in doubts[0]


def test_check_without_git_reports_nothing(registry: Path) -> None:
    edits.add(["x"])
    assert queries.check() == ([], [])
    assert registry.read_bytes().startswith(LINES)

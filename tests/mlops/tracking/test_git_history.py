"""What Git's history tells of runs, wherever in it they are."""

import json
from pathlib import Path

import pytest
from mlops.tracking import git_history, lineage_log

from .conftest import Run, commit_all

SETTINGS = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"


@pytest.fixture
def demo(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that holds the project `demo`; the working directory."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("platform.yaml").write_text(SETTINGS, encoding="utf-8")
    run("git", "init", "--quiet", "--initial-branch=main")
    commit_all(run)
    return folder


def result(run: Run, name: str) -> str:
    """Commit the results of a run, and return the commit."""
    Path("reports").mkdir(exist_ok=True)
    Path(git_history.RUN_JSON).write_text(json.dumps({"run": name}), encoding="utf-8")
    Path("dvc.lock").write_text(f"schema: '2.0'\nstages: []\n# {name}\n", encoding="utf-8")
    return commit_all(run)


def test_runs_are_found_on_every_kind_of_ref(demo: Path, run: Run) -> None:
    expected = {}
    for name, ref in {
        "on-branch": "refs/heads/other",
        "on-tag": "refs/tags/kept",
        "of-experiment": "refs/exps/ab/cdef/gouty-fifo",
        "fetched": "refs/remotes/origin/theirs",
    }.items():
        expected[name] = (result(run, name),)
        run("git", "update-ref", ref, "HEAD")
        run("git", "reset", "--quiet", "--hard", "HEAD~1")
    assert {name: found.commits for name, found in git_history.runs().items()} == expected


def test_runs_commit_that_changes_none_of_the_results_does_not_count(demo: Path, run: Run) -> None:
    first = result(run, "one")
    Path("README").write_text("words", encoding="utf-8")
    commit_all(run)
    Path("dvc.lock").write_text("schema: '2.0'\nstages: []\n", encoding="utf-8")
    last = commit_all(run)
    assert git_history.runs()["one"].commits == (last, first)


def test_runs_in_a_folder_of_the_repository_are_those_of_its_project(
    demo: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result(run, "of-the-root")
    inner = demo / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    Path("platform.yaml").write_text(SETTINGS.replace("demo", "inner"), encoding="utf-8")
    commit = result(run, "of-the-folder")
    lineage_log.record(commit, "train theirs\n\nrun: theirs\nproject: demo\n")
    lineage_log.record(commit, "register demo version 1\n\nrun: theirs\n")
    assert list(git_history.runs()) == ["of-the-folder"]


def test_log_tells_names_and_what_was_read(demo: Path, run: Run) -> None:
    commit = run("git", "rev-parse", "HEAD")
    lineage_log.record(commit, "train gouty-fifo\n\nrun: abc\n")
    lineage_log.record(commit, "register demo version 3\n\nrun: abc\n")
    lineage_log.record(commit, "promote demo version 3 to champion\n\nmove: 1\nto: 3\n")
    assert git_history.log() == [
        git_history.Entry("abc", commit, "", 3),
        git_history.Entry("abc", commit, "gouty-fifo", None),
    ]
    assert git_history.runs()["abc"] == git_history.KnownRun("abc", "gouty-fifo")


def test_behind_log_of_a_remote_that_tells_more_is_seen(demo: Path, run: Run) -> None:
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train one\n\nrun: one\n")
    assert not git_history.is_behind_remote()
    run("git", "update-ref", "refs/remotes/origin/lineage", "refs/heads/lineage")
    assert not git_history.is_behind_remote()
    run("git", "update-ref", "-d", "refs/heads/lineage")
    assert git_history.is_behind_remote()
    assert list(git_history.runs()) == ["one"]


def test_runs_unreadable_results_are_left_out(demo: Path, run: Run) -> None:
    result(run, "good")
    Path(git_history.RUN_JSON).write_text("<<<<<<< ours", encoding="utf-8")
    commit_all(run)
    assert list(git_history.runs()) == ["good"]

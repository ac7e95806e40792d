"""The branch `lineage` keeps what every run names, however many write to it, and Git's history is read as a whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlops import errors
from mlops.pipeline import RUN_REPORT
from mlops.tracking import lineage_log

from .conftest import Run, commit_all

SETTINGS = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"


def test_record_reads_as_a_log_and_keeps_the_commit(repository: Path, run: Run) -> None:
    first = commit_all(run)
    lineage_log.record(first, "train a")
    Path("code/model.py").write_text("one = 2\n", encoding="utf-8")
    second = commit_all(run)
    lineage_log.record(second, "train b")
    assert run("git", "log", "--first-parent", "--format=%s", "lineage", "-2").splitlines() == ["train b", "train a"]
    run("git", "merge-base", "--is-ancestor", first, "lineage")
    run("git", "merge-base", "--is-ancestor", second, "lineage")


def test_record_from_eight_processes_keeps_every_entry(repository: Path, run: Run) -> None:
    commit = commit_all(run)
    root = Path(lineage_log.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from {lineage_log.__name__} import record; "
    code += f"record({commit!r}, sys.argv[1])"
    writers = [subprocess.Popen([sys.executable, "-c", code, f"train {number}"]) for number in range(8)]
    assert [writer.wait() for writer in writers] == [0] * 8
    subjects = run("git", "log", "--first-parent", "--format=%s", "lineage", "-8").splitlines()
    assert sorted(subjects) == [f"train {number}" for number in range(8)]


def test_push_two_clones_that_diverged_are_joined(
    repository: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = commit_all(run)
    run("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    clones = [tmp_path / "a", tmp_path / "b"]
    for clone in clones:
        run("git", "clone", "--quiet", str(tmp_path / "origin.git"), str(clone))
        monkeypatch.chdir(clone)
        lineage_log.record(commit, f"train {clone.name}")
    for clone in (*clones, clones[0]):
        monkeypatch.chdir(clone)
        pushed = lineage_log.push()
    assert run("git", "rev-parse", "lineage") == pushed
    log = run("git", "-C", str(tmp_path / "origin.git"), "log", "--first-parent", "--format=%s", "lineage")
    assert log.splitlines() == ["train b", "train a", "The log begins"]


def test_push_without_a_branch_or_a_remote_says_what_makes_it(repository: Path, run: Run) -> None:
    with pytest.raises(errors.ProjectError, match="git remote add origin"):
        lineage_log.push()
    run("git", "remote", "add", "origin", str(repository))
    with pytest.raises(errors.ProjectError, match="dvc repro"):
        lineage_log.push()


def test_tag_again_is_fine_and_elsewhere_is_refused(repository: Path, run: Run) -> None:
    first = run("git", "rev-parse", "HEAD")
    lineage_log.tag("model@v1.0.0", first, "model version 1")
    lineage_log.tag("model@v1.0.0", first, "model version 1")
    assert run("git", "cat-file", "-t", "model@v1.0.0") == "tag"
    with pytest.raises(errors.ProjectError, match="git tag -d"):
        lineage_log.tag("model@v1.0.0", commit_all(run), "model version 1")


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
    Path(RUN_REPORT).write_text(json.dumps({"run": name}), encoding="utf-8")
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
    assert {name: known.commits for name, known in lineage_log.runs().items()} == expected


def test_runs_commit_that_changes_none_of_the_results_does_not_count(demo: Path, run: Run) -> None:
    first = result(run, "one")
    Path("README").write_text("words", encoding="utf-8")
    commit_all(run)
    Path("dvc.lock").write_text("schema: '2.0'\nstages: []\n", encoding="utf-8")
    last = commit_all(run)
    assert lineage_log.runs()["one"].commits == (last, first)


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
    assert list(lineage_log.runs()) == ["of-the-folder"]


def test_log_has_names_and_commits(demo: Path, run: Run) -> None:
    commit = run("git", "rev-parse", "HEAD")
    lineage_log.record(commit, "train gouty-fifo\n\nrun: abc\n")
    lineage_log.record(commit, "register demo version 3\n\nrun: abc\n")
    lineage_log.record(commit, "promote demo version 3 to champion\n\nmove: 1\nto: 3\n")
    assert lineage_log.log() == [
        lineage_log.Entry("abc", commit, "", 3),
        lineage_log.Entry("abc", commit, "gouty-fifo", None),
    ]
    assert lineage_log.runs()["abc"] == lineage_log.KnownRun("abc", "gouty-fifo")


def test_is_behind_remote_log_with_more_entries(demo: Path, run: Run) -> None:
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train one\n\nrun: one\n")
    assert not lineage_log.is_behind_remote()
    run("git", "update-ref", "refs/remotes/origin/lineage", "refs/heads/lineage")
    assert not lineage_log.is_behind_remote()
    run("git", "update-ref", "-d", "refs/heads/lineage")
    assert lineage_log.is_behind_remote()
    assert list(lineage_log.runs()) == ["one"]


def test_runs_unreadable_results_are_left_out(demo: Path, run: Run) -> None:
    result(run, "good")
    Path(RUN_REPORT).write_text("<<<<<<< ours", encoding="utf-8")
    commit_all(run)
    assert list(lineage_log.runs()) == ["good"]

"""The branch `lineage` keeps what every run names, whoever writes to it at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlops import errors
from mlops.tracking import lineage_log

from .conftest import Run, commit_all


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

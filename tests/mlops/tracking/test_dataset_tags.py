"""The tag of a registered version's dataset: one for each dataset, the same in every clone, and never moved."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.tracking import lineage_log
from mlops.tracking.dataset_tags import label_of, labels, tag_registered
from mlops.tracking.git import GitError
from mlops.tracking.run_context import dataset_md5

from .conftest import Run, commit_all

MD5 = "0123456789abcdef0123456789abcdef.dir"
TAG = "data/01234567"


@pytest.fixture
def commits(repository: Path, run: Run) -> list[str]:
    """Two commits of the repository, which is the working directory."""
    first = commit_all(run)
    Path("code/model.py").write_text("one = 2\n", encoding="utf-8")
    return [first, commit_all(run)]


def test_tag_of_a_dataset_is_annotated_and_stays_where_it_is(commits: list[str], run: Run) -> None:
    for commit in commits:
        tag_registered(MD5, commit)
    assert labels() == {"01234567": MD5}
    assert run("git", "cat-file", "-t", TAG) == "tag"
    assert run("git", "rev-parse", f"{TAG}^{{commit}}") == commits[0]


def test_tag_depends_on_its_commit_alone(commits: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tag_registered(MD5, commits[0])
    made = run("git", "rev-parse", TAG)
    run("git", "tag", "--delete", TAG)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Somebody else")
    tag_registered(MD5, commits[0])
    assert run("git", "rev-parse", TAG) == made


def test_dataset_with_a_label_gets_no_other_tag(commits: list[str], run: Run) -> None:
    assert label_of(MD5) == "01234567"
    lineage_log.tag("data/v1.0", commits[0], MD5)
    tag_registered(MD5, commits[1])
    assert (labels(), label_of(MD5)) == ({"v1.0": MD5}, "v1.0")


def test_label_that_is_given_after_the_registration_is_the_one_that_runs_show(commits: list[str]) -> None:
    tag_registered(MD5, commits[0])
    lineage_log.tag("data/v1.0", commits[1], MD5)
    assert label_of(MD5) == "v1.0"


def test_tag_of_another_dataset_with_the_same_beginning_is_refused(commits: list[str]) -> None:
    tag_registered(MD5, commits[0])
    with pytest.raises(ProjectError, match=f"the tag {TAG} names commit"):
        tag_registered(MD5[:8] + 24 * "0" + ".dir", commits[1])


def test_experiments_that_register_at_the_same_time_make_one_tag(
    repository: Path, commits: list[str], run: Run
) -> None:
    root = Path(lineage_log.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from {tag_registered.__module__} import tag_registered; "
    code += f"tag_registered({MD5!r}, sys.argv[1])"
    experiments = []
    for number in range(4):
        folder = repository / f".dvc/tmp/exps/{number}"
        run("git", "clone", "--quiet", str(repository), str(folder))
        command = [sys.executable, "-c", f"import os; os.environ['DVC_ROOT'] = {str(repository)!r}; {code}"]
        experiments.append(subprocess.Popen([*command, commits[number % 2]], cwd=folder))
    assert [experiment.wait() for experiment in experiments] == [0] * 4
    assert labels() == {"01234567": MD5}


def test_push_leaves_a_published_tag_of_the_same_dataset_and_refuses_another_label(
    commits: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage_log.record(commits[0], "train a")
    run("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    clones = [tmp_path / "a", tmp_path / "b"]
    for clone, commit in zip(clones, commits, strict=True):
        run("git", "clone", "--quiet", str(tmp_path / "origin.git"), str(clone))
        monkeypatch.chdir(clone)
        lineage_log.record(commit, f"train {clone.name}")
        tag_registered(MD5, commit)
        lineage_log.push(tags=("data/*",))
    assert run("git", "-C", str(tmp_path / "origin.git"), "rev-parse", f"{TAG}^{{commit}}") == commits[0]
    for clone, commit in zip(clones, commits, strict=True):
        monkeypatch.chdir(clone)
        lineage_log.tag("data/v1.0", commit, MD5)
    lineage_log.push(tags=("data/*",))
    monkeypatch.chdir(clones[0])
    with pytest.raises(GitError, match=r"data/v1\.0"):
        lineage_log.push(tags=("data/*",))


def test_gc_keeps_a_dataset_that_has_a_tag(repository: Path, run: Run) -> None:
    commit = commit_all(run)
    cached = Path(".dvc/cache/files/md5", dataset_md5()[:2], dataset_md5()[2:])
    tag_registered(dataset_md5(), commit)
    tag = f"data/{dataset_md5()[:8]}"
    Path("params.yaml").write_text("x: 0.2\n", encoding="utf-8")
    run("dvc", "repro", "--quiet")
    commit_all(run)
    run("dvc", "gc", "--quiet", "--force", "--workspace", "--all-tags")
    assert cached.exists()
    run("git", "tag", "--delete", tag)
    run("dvc", "gc", "--quiet", "--force", "--workspace", "--all-tags")
    assert not cached.exists()

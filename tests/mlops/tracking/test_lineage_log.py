"""The branch `lineage` keeps what every run names, however many write to it, and Git's history is read as a whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
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


def test_push_while_runs_are_recorded_loses_and_repeats_no_entry(repository: Path, run: Run, tmp_path: Path) -> None:
    commit = commit_all(run)
    run("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    run("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    root = Path(lineage_log.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from {lineage_log.__name__} import push, record\n"
    code += f"for name in sys.argv[1:]:\n    record({commit!r}, name)\n    push()"
    names = [[f"train {writer}{number}" for number in range(3)] for writer in "abc"]
    writers = [subprocess.Popen([sys.executable, "-c", code, *own]) for own in names]
    assert [writer.wait() for writer in writers] == [0] * 3
    log = run("git", "-C", str(tmp_path / "origin.git"), "log", "--first-parent", "--format=%s", "lineage").splitlines()
    assert sorted(log) == sorted(["The log begins", *(name for own in names for name in own)])
    assert lineage_log.unpublished() == []


@pytest.fixture
def origin(demo: Path, run: Run, tmp_path: Path) -> Path:
    """A bare repository with the project `demo`, and a log of one training."""
    (demo / "README").write_text("more than one commit", encoding="utf-8")
    commit_all(run)
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train first\n\nrun: first\n")
    run("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    run("git", "remote", "add", "origin", (tmp_path / "origin.git").as_uri())
    return tmp_path / "origin.git"


def log_of(folder: Path, run: Run) -> list[str]:
    return run("git", "-C", str(folder), "log", "--first-parent", "--format=%s", lineage_log.REF).splitlines()


@pytest.mark.parametrize("option", ["--no-tags", "--single-branch", "--depth=1"])
def test_record_in_a_fresh_clone_begins_at_the_log_of_its_origin(
    origin: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    run("git", "clone", "--quiet", option, origin.as_uri(), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    Path("README").write_text(option, encoding="utf-8")
    lineage_log.record(commit_all(run), "train second")
    expected = ["train second", "train first", "The log begins"]
    assert log_of(Path(), run) == expected
    assert [subject for _, subject in lineage_log.unpublished()] == ["train second"]
    assert lineage_log.push() == run("git", "rev-parse", lineage_log.REF)
    assert lineage_log.unpublished() == []
    assert log_of(origin, run) == expected


def test_record_in_a_clone_of_a_clone_joins_the_log_later(
    origin: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clone in the middle has no log of its own, so Git gives none of it on."""
    run("git", "clone", "--quiet", str(origin), str(tmp_path / "middle"))
    run("git", "clone", "--quiet", str(tmp_path / "middle"), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train second")
    lineage_log.push()
    assert log_of(tmp_path / "middle", run) == ["train second", "The log begins"]
    run("git", "remote", "set-url", "origin", str(origin))
    lineage_log.push()
    assert log_of(origin, run) == ["train second", "train first", "The log begins"]


def test_record_with_an_origin_that_does_not_answer_begins_at_what_was_fetched(origin: Path, run: Run) -> None:
    lineage_log.push()
    run("git", "update-ref", "-d", lineage_log.REF)
    run("git", "remote", "set-url", "origin", str(origin / "away"))
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train second")
    assert log_of(Path(), run) == ["train second", "train first", "The log begins"]


def test_push_to_a_remote_that_was_rewound_publishes_it_all_again(origin: Path, run: Run) -> None:
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train second")
    lineage_log.push()
    run("git", "-C", str(origin), "update-ref", lineage_log.REF, f"{lineage_log.REF}~1")
    lineage_log.fetch()
    assert [subject for _, subject in lineage_log.unpublished()] == ["train second"]
    lineage_log.push()
    assert log_of(origin, run) == ["train second", "train first", "The log begins"]


def test_commit_of_another_clone_is_fetched_from_origin_and_kept(
    origin: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("git", "clone", "--quiet", "--single-branch", origin.as_uri(), str(tmp_path / "clone"))
    Path("README").write_text("of one clone only", encoding="utf-8")
    commit = commit_all(run)
    monkeypatch.chdir(tmp_path / "clone")
    assert not lineage_log.fetch_commit(commit)
    assert not lineage_log.keeps(commit)
    monkeypatch.chdir(tmp_path / "repository")
    lineage_log.record(commit, "train second")
    lineage_log.push()
    monkeypatch.chdir(tmp_path / "clone")
    assert lineage_log.fetch_commit(commit)
    assert lineage_log.keeps(commit)


def follow(fix: str) -> None:
    """Do what a fix says, as it is printed: what is in parentheses is for people, <name> is theirs to choose."""
    subprocess.run(fix.partition("   (")[0].replace("<name>", "chosen"), shell=True, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("git branch lineage/foo", "there is a branch lineage/foo, so Git can't have the branch lineage"),
        ("git branch lineage", "the branch lineage is not the log of trainings, which needs that name"),
        ("git tag data", "there is a tag data, so Git can't have the tags of datasets"),
    ],
    ids=["branch", "not-the-log", "tag"],
)
def test_record_with_a_ref_in_the_way_is_refused_with_what_helps(
    demo: Path, run: Run, command: str, problem: str
) -> None:
    run(*command.split())
    with pytest.raises(errors.ProjectError, match=problem) as raised:
        lineage_log.record("HEAD", "train one")
    follow(raised.value.fix)
    lineage_log.record("HEAD", "train one")
    lineage_log.tag("data/v1.0", run("git", "rev-parse", "HEAD"), "0123")
    assert log_of(Path(), run)[0] == "train one"


def test_record_while_the_log_is_checked_out_is_refused_with_what_helps(demo: Path, run: Run) -> None:
    lineage_log.record("HEAD", "train one")
    run("git", "checkout", "--quiet", "lineage")
    with pytest.raises(
        errors.ProjectError, match="the branch lineage is checked out in .*/repository, so no"
    ) as raised:
        lineage_log.record("main", "train two")
    follow(raised.value.fix)
    lineage_log.record("main", "train two")
    assert log_of(Path(), run) == ["train two", "train one", "The log begins"]


def test_record_in_a_repository_of_another_user_names_the_command_that_helps(
    demo: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    with pytest.raises(errors.ProjectError, match="repository belongs to another user of this machine") as raised:
        lineage_log.record("HEAD", "train one")
    follow(raised.value.fix)
    lineage_log.record("HEAD", "train one")


def test_record_beside_the_lock_of_a_killed_git_names_it(demo: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = demo / ".git/refs/heads/lineage.lock"
    lock.touch()
    monkeypatch.setattr(lineage_log, "TRIES", 2)
    with pytest.raises(errors.ProjectError, match="can't be written: another git command is at work") as raised:
        lineage_log.record("HEAD", "train one")
    assert raised.value.fix.endswith(f"rm {lock}")
    lock.unlink()
    lineage_log.record("HEAD", "train one")


def refuse(origin: Path, line: str) -> None:
    """Let a remote refuse each push."""
    hook = origin / "hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\necho '{line}'\nexit 1\n", encoding="utf-8", newline="\n")
    hook.chmod(0o755)


def test_push_that_the_remote_refuses_says_what_it_says(origin: Path, run: Run) -> None:
    refuse(origin, "lineage is protected")
    lineage_log.record("HEAD", "train second")
    problem = r"origin refuses lineage: pre-receive hook declined \(lineage is protected\)"
    with pytest.raises(errors.ProjectError, match=problem) as raised:
        lineage_log.push()
    assert raised.value.fix.startswith("allow pushes of lineage there (rights to write, rules for protected branches")
    (origin / "hooks/pre-receive").unlink()
    lineage_log.push()
    assert lineage_log.unpublished() == []


def test_push_beside_a_branch_of_the_remote_that_is_in_the_way(origin: Path, run: Run) -> None:
    run("git", "-C", str(origin), "branch", "-m", "lineage", "lineage/foo")
    with pytest.raises(errors.ProjectError, match="origin has a branch lineage/foo, in the way") as raised:
        lineage_log.push()
    follow(raised.value.fix)
    lineage_log.push()
    assert run("git", "-C", str(origin), "branch", "--format=%(refname:short)").split() == ["chosen", "lineage", "main"]


def test_push_beside_a_branch_of_the_remote_that_is_not_the_log(origin: Path, run: Run) -> None:
    run("git", "-C", str(origin), "branch", "--force", "lineage", "main")
    with pytest.raises(errors.ProjectError, match="the branch lineage of origin is not the log of trainings") as raised:
        lineage_log.push()
    follow(raised.value.fix)
    lineage_log.push()
    assert log_of(origin, run) == ["train first", "The log begins"]
    assert run("git", "-C", str(origin), "rev-parse", "chosen") == run("git", "rev-parse", "HEAD")


def test_record_on_a_log_that_somebody_has_merged_by_hand_goes_on(origin: Path, run: Run) -> None:
    run("git", "switch", "--quiet", "lineage")
    run("git", "commit", "--quiet", "--allow-empty", "-m", "Merged by hand")
    run("git", "switch", "--quiet", "main")
    lineage_log.record("HEAD", "train second")
    assert log_of(Path(), run) == ["train second", "Merged by hand", "train first", "The log begins"]


def test_push_to_a_remote_that_is_away_shows_no_password(origin: Path, run: Run) -> None:
    run("git", "remote", "set-url", "origin", "https://me:secret@127.0.0.1:9/project.git")
    with pytest.raises(errors.ProjectError, match="the Git remote origin can't be reached") as raised:
        lineage_log.push()
    assert "secret" not in str(raised.value)
    assert raised.value.fix.endswith("until this works: git ls-remote origin")


def test_push_of_a_tag_that_the_remote_has_elsewhere_takes_theirs(origin: Path, run: Run) -> None:
    lineage_log.tag("data/v1.0", run("git", "rev-parse", "HEAD"), "0123")
    lineage_log.push(tags=("data/*",))
    run("git", "tag", "-d", "data/v1.0")
    lineage_log.tag("data/v1.0", run("git", "rev-parse", "HEAD~1"), "4567")
    with pytest.raises(errors.ProjectError, match=r"origin has the tag data/v1\.0 on another commit") as raised:
        lineage_log.push(tags=("data/*",))
    follow(raised.value.fix)
    lineage_log.push(tags=("data/*",))
    assert run("git", "rev-parse", "data/v1.0^{commit}") == run("git", "rev-parse", "HEAD")


def test_push_to_a_remote_that_changes_all_the_time_gives_up(
    origin: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage_log.push()
    lineage_log.record("HEAD", "train second")
    join, others = lineage_log._join, iter("abcd")

    def join_late(ours: str, theirs: str) -> str:
        """Let another clone publish meanwhile."""
        tip = run(
            "git", "-C", str(origin), "commit-tree", "HEAD^{tree}", "-p", theirs, "-p", "HEAD", "-m", next(others)
        )
        run("git", "-C", str(origin), "update-ref", lineage_log.REF, tip)
        return join(ours, theirs)

    with monkeypatch.context() as patched:
        patched.setattr(lineage_log, "_join", join_late)
        patched.setattr(lineage_log, "TRIES", 2)
        with pytest.raises(errors.ProjectError, match="changed 2 times while publishing\nFix: run the same command"):
            lineage_log.push()
    lineage_log.push()
    assert log_of(origin, run) == ["train second", "b", "a", "train first", "The log begins"]


def test_log_of_a_shallow_clone_is_refused_until_it_is_whole(
    origin: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("git", "clone", "--quiet", "--depth=1", origin.as_uri(), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    with pytest.raises(lineage_log.ShallowCloneError, match="this clone is shallow") as raised:
        lineage_log.log()
    follow(raised.value.fix)
    assert lineage_log.log() == []


def test_push_of_a_clone_without_entries_takes_the_log_of_the_remote(
    origin: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("git", "clone", "--quiet", str(origin), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    lineage_log.tag("data/v1.0", run("git", "rev-parse", "HEAD"), "0123")
    assert lineage_log.push(tags=("data/*",)) == run("git", "rev-parse", lineage_log.REF)
    assert log_of(origin, run) == log_of(Path(), run)
    assert run("git", "-C", str(origin), "tag") == "data/v1.0"


def test_push_while_another_one_is_at_it_waits_for_a_while(
    origin: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage_log, "LOCK_S", 0.1)
    with (
        FileLock(Path(".dvc/tmp/publish.lock").absolute()),
        pytest.raises(errors.ProjectError, match="been publishing"),
    ):
        lineage_log.push()
    lineage_log.push()


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

"""`registry list | show | promote | rollback`, as people use them: alone, at once, and when something breaks."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, isolate
from .conftest import clone, commit, edit

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once
FORM = "form-13"  # the one subject that is in the test set of all three versions


@pytest.fixture(scope="module")
def registered(reproduced: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BakedProject]:
    """Three versions: the default; one that learned little from half the records; one of another split and network."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        made = copied(reproduced, tmp_path_factory.mktemp("registered"))
        commit(made, "Version 1")
        edit(made, "params.yaml", "test_acc: 0.9\n", "test_acc: 0.05\n")
        edit(made, "params.yaml", "epochs: 15", "epochs: 1")
        edit(made, "params.yaml", "fraction: 1.0", "fraction: 0.5")
        made.run("dvc", "repro")
        commit(made, "Version 2")
        edit(made, "params.yaml", "epochs: 1 ", "epochs: 6 ")
        edit(made, "params.yaml", "fraction: 0.5", "fraction: 1.0")
        edit(made, "params.yaml", "salt: '7'", "salt: '6'")
        edit(made, f"{made.package}/model/networks.py", "_conv(16, 32)", "_conv(16, 24)")
        edit(made, f"{made.package}/model/networks.py", "_conv(32, 64)", "_conv(24, 64)")
        made.run("dvc", "repro")
        commit(made, "Version 3")
        yield made


@pytest.fixture
def project(registered: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakedProject:
    """A copy of it, to change."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return copied(registered, tmp_path)


def copied(project: BakedProject, folder: Path) -> BakedProject:
    """Copy a project, with a storage of its own and a Git identity."""
    made = BakedProject(folder / project.path.name, project.package)
    shutil.copytree(project.path, made.path, symlinks=True)
    made.run("git", "config", "user.name", "Ada Byron")
    made.run("git", "config", "user.email", "ada@example.org")
    made.run("dvc", "remote", "modify", "--local", "storage", "url", str(made.path / "dvc-storage"))
    return made


def registry(project: BakedProject, *arguments: str) -> str:
    """Run a verb of the registry, and return what it printed."""
    return project.run("python", "-m", project.package, "registry", *arguments).stdout


def refused(project: BakedProject, *arguments: str) -> str:
    """Run a verb of the registry that must end with the project's own error, and return that."""
    done = project.run("python", "-m", project.package, "registry", *arguments, check=False)
    assert done.returncode == 2, f"{done.stdout}\n{done.stderr}"
    assert "Fix: " in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def start(project: BakedProject, *arguments: str) -> "subprocess.Popen[str]":
    """Start a verb of the registry."""
    command = (sys.executable, "-m", project.package, "registry", *arguments)
    return subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def mlflow_of(project: BakedProject) -> MlflowClient:
    """Connect to the project's MLflow."""
    return MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")


def aliases(project: BakedProject) -> dict[str, int]:
    """Return MLflow's aliases."""
    found: dict[str, Any] = mlflow_of(project).get_registered_model(project.path.name).aliases
    return {alias: int(number) for alias, number in found.items()}


def moves(project: BakedProject, version: int) -> list[dict[str, Any]]:
    """Return the moves that `registry show` tells of a version."""
    found: list[dict[str, Any]] = json.loads(registry(project, "show", str(version), "--json"))["moves"]
    return found


def subjects(project: BakedProject) -> list[str]:
    """Return the entries of the log, the first one first."""
    return project.run("git", "log", "--first-parent", "--reverse", "--format=%s", "lineage").stdout.splitlines()


def on_lineage(project: BakedProject, command: str) -> None:
    """Run a shell command in the moment in which the log is written: before MLflow is told."""
    hook = project.path / ".git" / "hooks" / "reference-transaction"
    script = f"#!/bin/sh\nread old new ref\n[ $1 = committed ] && [ $ref = refs/heads/lineage ] || exit 0\n{command}\n"
    hook.write_text(script, encoding="utf-8", newline="\n")
    hook.chmod(0o755)


@pytest.mark.slow
def test_promote_and_rollback_move_the_champion_and_keep_who_when_why(project: BakedProject) -> None:
    name = project.path.name
    assert f"{name} version 1 is champion" in registry(project, "promote", "1", "--why", "the first")
    log = subjects(project)
    assert "already" in registry(project, "promote", "1")
    assert subjects(project) == log, "the champion again changes nothing"
    said = refused(project, "promote", "2")
    assert "it is worse: version 2 against the champion, version 1: test_acc 0." in said
    assert said.count("on the test set of version") == 2, "the test sets differ"
    assert "--why" in refused(project, "promote", "2", "--anyway")
    assert subjects(project) == log
    registry(project, "promote", "2", "--to", "challenger")
    assert aliases(project) == {"champion": 1, "challenger": 2}
    registry(project, "promote", "2", "--anyway", "--why", "a drill:\nto: 7")
    assert aliases(project) == {"champion": 2}, "the challenger has won"
    registry(project, "rollback", "--why", "the drill is over")
    assert aliases(project) == {"champion": 1}
    assert "no version of digit-classifier was champion before 1" in refused(project, "rollback")
    shown = moves(project, 2)
    assert [(move["action"], move["alias"], move["from"], move["to"]) for move in shown] == [
        ("promote", "challenger", None, 2),
        ("promote", "champion", 1, 2),
        ("rollback", "champion", 2, 1),
    ]
    assert {(move["who"], move["aws"]) for move in shown} == {("Ada Byron <ada@example.org>", "none")}
    assert [move["why"] for move in shown] == ["", "a drill: to: 7", "the drill is over"]
    assert subjects(project)[-1] == f"roll back {name} to version 1"
    project.run("git", "merge-base", "--is-ancestor", f"{name}@v2.0.0", "lineage")


@pytest.mark.slow
def test_list_and_show_tell_each_version(project: BakedProject) -> None:
    registry(project, "promote", "1")
    listed = json.loads(registry(project, "list", "--json"))
    assert [row["version"] for row in listed] == [3, 2, 1]
    assert [row["aliases"] for row in listed] == [[], [], ["champion"]]
    assert set(listed[0]["metrics"]) == {"test_acc", "val_acc", "test_loss"}
    for row in listed:
        tagged = project.run("git", "rev-parse", f"{project.path.name}@v{row['version']}.0.0^{{commit}}")
        assert row["commit"] == tagged.stdout.strip()
        assert row["metrics"] == json.loads(project.run("git", "show", f"{row['commit']}:reports/metrics.json").stdout)
    table = registry(project, "list").splitlines()
    assert table[-1].split()[:3] == ["1", "champion", listed[-1]["run"]]
    assert listed[-1]["commit"][:10] in table[-1].split()
    page = registry(project, "show", "champion")
    assert "Ada Byron <ada@example.org>" in page
    assert listed[-1]["run"] in page


@pytest.mark.slow
def test_comparison_leaves_out_what_one_has_seen_and_says_so(project: BakedProject) -> None:
    """Another split, and an older champion whose network today's code can't build."""
    registry(project, "promote", "1")
    registry(project, "promote", "3", "--anyway", "--why", "to see the figures")
    (fought,) = moves(project, 3)
    (bout,) = fought["metrics"]["test_sets"]  # once fair, both test sets are the same form
    tables = {number: manifest(project, number) for number in (1, 3)}
    of_form = [row["record_id"] for row in tables[3] if row["subject_id"] == FORM]
    test = [row["record_id"] for row in tables[3] if row["split"] == "test"]
    assert (bout["records"], bout["seen"]) == (len(of_form), len(test) - len(of_form))
    images = pq.read_table(project.path / "data/dataset/test", partitioning=None).to_pandas()
    records = images[images["subject_id"] == FORM]
    mlflow.set_tracking_uri(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    for who, number in (("candidate", 3), ("champion", 1)):
        model = mlflow.pyfunc.load_model(f"models:/{project.path.name}/{number}")
        right = model.predict(records[["image"]])["label"].to_numpy() == records["label"].to_numpy()
        assert bout[who] == right.mean()
    with (project.path / "data/consent.csv").open("a", encoding="utf-8") as file:
        file.write(f"{FORM},revoked,2026-01-01T00:00:00Z\n")
    assert "none is left" in refused(project, "promote", "1")


@pytest.mark.slow
def test_comparison_leaves_out_who_no_longer_consents(project: BakedProject) -> None:
    registry(project, "promote", "2")
    with (project.path / "data/consent.csv").open("a", encoding="utf-8") as file:
        file.write(f"{FORM},revoked,2026-01-01T00:00:00Z\n")
    registry(project, "promote", "1", "--by", "test_loss")
    own, other = moves(project, 1)[0]["metrics"]["test_sets"]
    for bout, number in ((own, 1), (other, 2)):
        rows = [row for row in manifest(project, number) if row["split"] == "test"]
        gone = sum(row["subject_id"] == FORM for row in rows)
        assert gone > 0
        assert (bout["test_set_of"], bout["records"]) == (number, len(rows) - gone)
        assert (bout["seen"], bout["without_consent"]) == (0, gone)
        assert bout["candidate"] < bout["champion"]


def manifest(project: BakedProject, number: int) -> list[dict[str, str]]:
    """Return the manifest that a version's run logged."""
    client = mlflow_of(project)
    run = client.get_model_version(project.path.name, str(number)).run_id
    rows: list[dict[str, str]] = pq.read_table(client.download_artifacts(run, "data/manifest.parquet")).to_pylist()
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_killed_before_mlflow_is_told_the_same_command_completes(project: BakedProject, verb: str) -> None:
    registry(project, "promote", "2")
    registry(project, "promote", "1")
    if verb == "rollback":
        registry(project, "promote", "3", "--anyway", "--why", "a drill")
    command, before, after = {
        "promote": (["promote", "3", "--anyway", "--why", "a drill"], 1, 3),
        "rollback": (["rollback"], 3, 1),
    }[verb]
    pid = project.path / "pid"
    on_lineage(project, f"kill -9 $(cat '{pid}')")
    killed = start(project, *command)
    pid.write_text(str(killed.pid), encoding="utf-8")
    assert killed.wait() == -signal.SIGKILL
    (project.path / ".git/hooks/reference-transaction").unlink()
    log = subjects(project)
    assert aliases(project) == {"champion": before}
    registry(project, *command)
    assert aliases(project) == {"champion": after}
    assert subjects(project) == log, "one move, one entry"
    tags = mlflow_of(project).get_model_version(project.path.name, str(after)).tags
    assert moves(project, after)[-1]["id"] in {key.removeprefix("move.") for key in tags}


@pytest.mark.slow
def test_two_at_once_in_one_clone_come_one_after_the_other(project: BakedProject) -> None:
    both = [start(project, "promote", str(number), "--anyway", "--why", "quick") for number in (1, 2)]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    entries = [line for line in subjects(project) if line.startswith("promote")]
    assert len(entries) == 2
    last = moves(project, aliases(project)["champion"])[-1]
    assert last["from"] == 3 - last["to"], "the second was compared with the first"
    assert "test_sets" in last["metrics"]
    assert entries[-1] == f"promote {project.path.name} version {last['to']} to champion"


@pytest.mark.slow
def test_two_clones_with_one_mlflow_see_each_other(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    origin = tmp_path / "origin.git"
    project.run("git", "clone", "--quiet", "--bare", ".", str(origin))
    project.run("git", "remote", "add", "origin", str(origin))
    colleague = clone(project, tmp_path / "colleague" / project.path.name, "HEAD")
    for key, value in (("user.name", "Bob"), ("user.email", "bob@example.org")):
        colleague.run("git", "config", key, value)
    colleague.run("git", "remote", "set-url", "origin", str(origin))
    registry(project, "promote", "2")
    assert "Ada Byron <ada@example.org> moved champion to version 2" in refused(colleague, "promote", "1")
    project.run("python", "-m", project.package, "lineage", "push")
    colleague.run("git", "fetch", "--quiet", "origin", "lineage:lineage")
    # In the moment in which Ada's second move is in her log, Bob's goes all the way.
    bob = f"'{sys.executable}' -m {colleague.package} registry promote 1"
    unset = "unset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH"
    on_lineage(
        project, f"rm -f '{project.path}/.git/hooks/reference-transaction'; {unset}; cd '{colleague.path}' && {bob}"
    )
    said = refused(project, "promote", "3", "--anyway", "--why", "a drill")
    assert "Bob <bob@example.org> moved champion to version 1" in said
    assert aliases(project) == {"champion": 1}, "the first to tell MLflow"
    for one in (colleague, project, colleague):
        one.run("python", "-m", one.package, "lineage", "push")
    for one in (project, colleague):
        assert [move["counts"] for move in moves(one, 3)] == [False], "it was compared with another champion"
        assert "already" in registry(one, "promote", "1")
    assert aliases(project) == {"champion": 1}


@pytest.mark.slow
def test_alias_moved_by_hand_is_told_and_recorded_when_promoted(project: BakedProject) -> None:
    registry(project, "promote", "1")
    mlflow_of(project).set_registered_model_alias(project.path.name, "champion", "3")
    assert "in MLflow version 3 is champion, but no recorded move" in refused(project, "promote", "2")
    assert (
        "champion is 3 in MLflow, and 1 in the log"
        in project.run("python", "-m", project.package, "registry", "list").stderr
    )
    registry(project, "promote", "3", "--anyway", "--why", "it was done by hand")
    assert moves(project, 3)[-1]["why"] == "it was done by hand"


@pytest.mark.slow
def test_data_gone_from_the_remote_is_refused_unless_anyway(project: BakedProject) -> None:
    registry(project, "promote", "1")
    shutil.rmtree(project.path / "dvc-storage")
    shutil.rmtree(project.path / ".dvc/cache")
    said = refused(project, "promote", "3")
    assert "are not to be had" in said
    assert "dvc push" in said
    registry(project, "promote", "3", "--anyway", "--why", "the data were erased on request")
    assert "are not to be had" in moves(project, 3)[-1]["metrics"]["not_compared"]


@pytest.mark.slow
def test_what_is_not_there_is_said_with_the_fix(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = subjects(project)
    assert "digit-classifier has no version 9 in MLflow (it has 1, 2, 3)" in refused(project, "promote", "9")
    assert "'best' is neither a version's number nor an alias" in refused(project, "show", "best")
    assert "(known: test_acc, test_error, test_loss)" in refused(project, "promote", "1", "--by", "val_acc")
    mlflow_of(project).set_registered_model_alias(project.path.name, "champion", "2")
    said = refused(project, "promote", "champion")
    assert "champion is an alias, and it moves: now it is version 2" in said
    assert "registry promote 2" in said
    project.run("git", "config", "--unset", "user.email")
    assert "git config user.name" in refused(project, "promote", "1")
    project.run("git", "config", "user.email", "ada@example.org")
    mlflow_of(project).set_model_version_tag(project.path.name, "1", "result_commit", "0123456789" * 4)
    said = refused(project, "promote", "1")
    assert "this clone lacks the commit 0123456789 of digit-classifier version 1" in said
    assert "Fix: git fetch --tags origin" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    assert "see that the server is up" in refused(project, "promote", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'other.db').as_posix()}")
    assert "Fix: dvc repro" in refused(project, "list")
    assert subjects(project) == before, "nothing of that is in the log"

"""`registry list | show | promote | rollback`, as people use them: alone, together, and when something breaks."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, isolate
from ..projects import commit, copied, edit, verbs

FORM = "form-13"  # a subject in the test set of both versions


@pytest.fixture(scope="module")
def registered(reproduced: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """Two versions: the champion, and one of another network that learned little from half the records."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        made = copied(reproduced, tmp_path_factory.mktemp("registered"))
        commit(made, "Version 1")
        registry(made, "promote", "1", "--why", "the first")
        edit(made, "params.yaml", "test_acc: 0.9\n", "test_acc: 0.05\n")
        edit(made, "params.yaml", "epochs: 15", "epochs: 1")
        edit(made, "params.yaml", "fraction: 1.0", "fraction: 0.5")
        edit(made, f"{made.package}/model/networks.py", "_conv(16, 32)", "_conv(16, 24)")
        edit(made, f"{made.package}/model/networks.py", "_conv(32, 64)", "_conv(24, 64)")
        made.run("dvc", "repro")
        commit(made, "Version 2")
    return made


@pytest.fixture
def project(registered: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakedProject:
    """A copy of it, to change."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return copied(registered, tmp_path)


def registry(project: BakedProject, *arguments: str) -> str:
    """Run a verb of the registry, and return what it printed."""
    return project.run("python", "-m", "mlops", "registry", *arguments).stdout


def refused(project: BakedProject, *arguments: str) -> str:
    """Run a verb of the registry that must end with the project's own error, and return that."""
    done = project.run("python", "-m", "mlops", "registry", *arguments, check=False)
    assert done.returncode == 2, f"{done.stdout}\n{done.stderr}"
    assert "Fix: " in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def start(project: BakedProject, *arguments: str) -> "subprocess.Popen[str]":
    """Start a verb of the registry."""
    command = (sys.executable, "-m", "mlops", "registry", *arguments)
    return subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def mlflow_of(project: BakedProject) -> MlflowClient:
    """Connect to the project's MLflow."""
    return MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")


def aliases(project: BakedProject) -> dict[str, int]:
    """Return MLflow's aliases."""
    numbers: dict[str, Any] = mlflow_of(project).get_registered_model(project.path.name).aliases
    return {alias: int(number) for alias, number in numbers.items()}


def moves(project: BakedProject, kind: str = "move") -> list[dict[str, Any]]:
    """Return the entries of the log that move an alias, or those of another kind, the first one first."""
    plain = ("--first-parent", "--reverse", f"--grep=^{kind}: ", "--format=%b", "-z")
    bodies = project.run("git", "log", *plain, "lineage").stdout.split("\0")
    lines = [dict(line.split(": ", 1) for line in body.strip().splitlines()[1:]) for body in bodies if body]
    return [{name: json.loads(value) for name, value in fields.items()} for fields in lines]


def manifest(project: BakedProject, number: int) -> list[dict[str, str]]:
    """Return the manifest that a version's run logged."""
    client = mlflow_of(project)
    run = str(client.get_model_version(project.path.name, str(number)).run_id)
    rows: list[dict[str, str]] = pq.read_table(client.download_artifacts(run, "data/manifest.parquet")).to_pylist()
    return rows


def test_rollback_and_promote_keep_who_when_why_and_audits_follow(
    opted_out: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    project = copied(opted_out, tmp_path)
    commands = ("registry rollback --why 'a drill'", "audit deployed --json", "registry promote 2 --to challenger",
                "registry promote challenger --anyway --why 'it is over'", "audit deployed --json",
                "registry show 2 --json", "registry list --json")  # fmt: skip
    codes, outputs = zip(*verbs(project, *commands), strict=True)
    assert codes == (0, 1, 0, 0, 0, 0, 0), "version 1 knows who withdrew"
    assert aliases(project) == {"champion": 2}, "the challenger has won"
    assert [(move["action"], move["before"], move["version"]) for move in moves(project)] == [
        ("promote", None, 1),
        ("promote", 1, 2),
        ("rollback", 2, 1),
        ("promote", None, 2),
        ("promote", 1, 2),
    ]
    last = json.loads(outputs[-2])["moves"][-1]
    assert (last["who"], last["aws"], last["why"]) == ("Ada Byron <ada@example.org>", "none", "it is over")
    listed = json.loads(outputs[-1])
    assert [(row["version"], row["aliases"]) for row in listed] == [(2, ["champion"]), (1, [])]


@pytest.mark.slow
def test_promote_and_rollback_move_the_champion_and_keep_who_when_why(project: BakedProject) -> None:
    with (project.path / "data/consent.csv").open("a", encoding="utf-8") as file:
        file.write(f"{FORM},revoked,2026-01-01T00:00:00Z\n")
    error = refused(project, "promote", "2")
    assert "version 2 against the champion, version 1, by test_acc: 0." in error
    assert error.count(" without consent)") == 2, "the test sets differ"
    assert "subject(s) are too few to tell a loss from chance" in error, "the digits have few forms"
    assert "version 2 is refused: it has lost 0." in error
    assert len(moves(project)) == 1, "nothing has moved"
    (refusal,) = moves(project, "refusal")
    assert (refusal["who"], refusal["version"]) == ("Ada Byron <ada@example.org>", 2)
    assert json.loads(registry(project, "show", "2", "--json"))["refusals"] == [refusal]
    assert f"refuse champion to 2   Ada Byron  {refusal['metrics']['objections'][0][:20]}" in registry(project, "log")
    registry(project, "promote", "2", "--to", "challenger")
    assert aliases(project) == {"champion": 1, "challenger": 2}
    registry(project, "promote", "challenger", "--anyway", "--why", "a drill:\nversion: 7")
    assert aliases(project) == {"champion": 2}, "the challenger has won"
    registry(project, "rollback", "--why", "the drill is over")
    assert aliases(project) == {"champion": 1}
    first, *shown = json.loads(registry(project, "show", "1", "--json"))["moves"]
    assert [(move["action"], move["before"], move["version"]) for move in (first, *shown)] == [
        ("promote", None, 1),
        ("promote", 1, 2),
        ("rollback", 2, 1),
    ]
    assert {(move["who"], move["aws"]) for move in shown} == {("Ada Byron <ada@example.org>", "none")}
    assert [move["why"] for move in shown] == ["a drill:\nversion: 7", "the drill is over"]
    project.run("git", "merge-base", "--is-ancestor", f"{project.path.name}@v2.0.0", "lineage")
    check_figures(project, shown[0]["metrics"]["test_sets"])


def check_figures(project: BakedProject, comparisons: list[dict[str, Any]]) -> None:
    """Check the scores of both versions against their own code, and the counts of the records left out."""
    for comparison, number in zip(comparisons, (2, 1), strict=True):
        rows = [row for row in manifest(project, number) if row["split"] == "test"]
        withdrawn = sum(row["subject_id"] == FORM for row in rows)
        assert withdrawn > 0
        assert (comparison["test_set_of"], comparison["records"]) == (number, len(rows) - withdrawn)
        assert (comparison["seen"], comparison["without_consent"]) == (0, withdrawn)
        assert comparison["candidate"] < comparison["champion"]
    images = pq.read_table(project.path / "data/dataset/test", partitioning=None).to_pandas()
    records = images[images["subject_id"] != FORM]
    mlflow.set_tracking_uri(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    for who, number in (("candidate", 2), ("champion", 1)):
        model = mlflow.pyfunc.load_model(f"models:/{project.path.name}/{number}")
        right = model.predict(records[["image"]])["label"].to_numpy() == records["label"].to_numpy()
        assert comparisons[0][who] == round(right.mean(), 6)


@pytest.mark.slow
def test_list_tells_each_version(project: BakedProject) -> None:
    listed = json.loads(registry(project, "list", "--json"))
    assert [(row["version"], row["aliases"]) for row in listed] == [(2, []), (1, ["champion"])]
    client = mlflow_of(project)
    for row in listed:
        tagged = project.run("git", "rev-parse", f"{project.path.name}@v{row['version']}.0.0^{{commit}}")
        assert row["commit"] == tagged.stdout.strip()
        run = client.get_run(str(client.get_model_version(project.path.name, row["version"]).run_id))
        assert row["metrics"].items() <= run.data.metrics.items()
        assert {"test_acc", "val_acc", "test_loss"} <= row["metrics"].keys()
        assert row["run"] == run.data.tags["mirror_id"]
        assert row["data_version"] == run.data.params["data_version"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_before_the_log_is_written_the_same_command_completes(project: BakedProject) -> None:
    hook, pid = project.path / ".git/hooks/reference-transaction", project.path / "pid"
    kill = f"#!/bin/sh\nread old new ref\n[ $ref != refs/heads/lineage ] || {{ kill -9 $(cat '{pid}'); exit 1; }}\n"
    for command, before, after in ((("promote", "2", "--anyway", "--why", "x"), 1, 2), (("rollback",), 2, 1)):
        log = moves(project)
        hook.write_text(kill, encoding="utf-8", newline="\n")
        hook.chmod(0o755)
        killed = start(project, *command)
        pid.write_text(str(killed.pid), encoding="utf-8")
        assert killed.wait() == -signal.SIGKILL
        hook.unlink()
        assert (aliases(project), moves(project)) == ({"champion": after}, log)
        registry(project, *command)
        assert aliases(project) == {"champion": after}
        assert [(move["before"], move["version"]) for move in moves(project)[len(log) :]] == [(before, after)]


@pytest.mark.slow
def test_two_at_once_in_one_clone_come_one_after_the_other(project: BakedProject) -> None:
    both = [start(project, "promote", "2", "--anyway", "--why", "quick") for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("already" in output for output in outputs) == [False, True]
    assert [move["version"] for move in moves(project)] == [1, 2]


@pytest.mark.slow
def test_two_clones_with_one_mlflow_see_each_other(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    origin = tmp_path / "origin.git"
    project.run("git", "clone", "--quiet", "--bare", ".", str(origin))
    project.run("git", "remote", "add", "origin", str(origin))
    colleague = BakedProject(tmp_path / "colleague" / project.path.name, project.package)
    project.run("git", "clone", "--quiet", str(origin), str(colleague.path))
    for key, value in (("user.name", "Bob"), ("user.email", "bob@example.org")):
        colleague.run("git", "config", key, value)
    colleague.run("git", "update-ref", "-d", "refs/remotes/origin/lineage")  # as in a clone of one branch
    assert "champion is 1 in MLflow, and none in the log" in refused(colleague, "promote", "2"), "a log that is short"
    colleague.run("git", "fetch", "--quiet", "origin", "lineage:lineage")
    registry(project, "promote", "2", "--anyway", "--why", "a drill")
    error = refused(colleague, "rollback")
    assert "champion is 2 in MLflow, and 1 in the log of this clone" in error
    assert "git fetch origin lineage:lineage" in error
    project.run("python", "-m", "mlops", "lineage", "push")
    colleague.run("git", "fetch", "--quiet", "origin", "lineage:lineage")
    registry(colleague, "rollback")
    colleague.run("python", "-m", "mlops", "lineage", "push")
    assert "champion is 1 in MLflow, and 2 in the log" in refused(project, "promote", "2"), "Bob took it back"
    project.run("git", "fetch", "--quiet", "origin", "lineage:lineage")
    assert [move["who"].split()[0] for move in moves(project)] == ["Ada", "Ada", "Bob"]

"""A wiped MLflow, or a second one, is rebuilt from Git and DVC: everything is as it was, but for MLflow's own ids."""

import io
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from mlflow import MlflowClient
from PIL import Image

from ..conftest import BakedProject, isolate, new_project
from ..projects import commit, edit
from ..servers.mlflow import MlflowServer
from .mlflow_state import show, state

# With sagemaker-mlflow installed it warns at each request to a server that has no ARN.
logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BakedProject]:
    """A project with a past: two registered versions in use, an experiment, and a training that failed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        made = new_project(tmp_path_factory.mktemp("lived"))
        made.run("git", "config", "user.name", "Test")
        made.run("git", "config", "user.email", "test@example.org")
        made.run("python", "-m", "mlops", "setup")
        edit(made, "params.yaml", "epochs: 15", "epochs: 2")
        edit(made, "params.yaml", "test_acc: 0.9", "test_acc: 0.1")
        made.run("dvc", "repro")
        commit(made, "Version 1")
        verb(made, "registry", "promote", "1", "--why", "the first")
        made.run("dvc", "exp", "run", "train", "--temp", "--name", "slow", "-S", "train.max_lr=0.001")
        # Version 2 has other code: what goes with a model is the code of its commit, not today's.
        edit(made, "params.yaml", "epochs: 2", "epochs: 1")
        edit(made, f"{made.package}/model/networks.py", "_conv(16, 32)", "_conv(16, 24)")
        edit(made, f"{made.package}/model/networks.py", "_conv(32, 64)", "_conv(24, 64)")
        made.run("dvc", "repro")
        commit(made, "Version 2")
        verb(made, "registry", "promote", "2", "--to", "challenger", "--anyway", "--why", "newer")
        edit(made, f"{made.package}/model/networks.py", "_conv(16, 24)", "_conv(16, 20)")
        assert made.run("dvc", "repro", "train", check=False).returncode, "two layers that don't fit"
        made.run("git", "checkout", "--quiet", ".")
        made.run("dvc", "checkout", "--quiet", "--force")
        made.run("dvc", "push", "--quiet", "--all-commits")
        yield made


@pytest.fixture(scope="module")
def before(lived: BakedProject) -> dict[str, Any]:
    """What its MLflow has."""
    return state(database(lived), lived.path.name)


def wipe(lived: BakedProject, folder: Path) -> BakedProject:
    """Copy the project, without its MLflow."""
    skip = shutil.ignore_patterns("mlflow.db*", "mlartifacts", "mirrored")
    copy = BakedProject(folder / lived.path.name, lived.package)
    shutil.copytree(lived.path, copy.path, symlinks=True, ignore=skip)
    return copy


@pytest.fixture(scope="module")
def repaired(
    lived: BakedProject, before: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BakedProject]:
    """A copy whose MLflow was wiped, and repaired; the first repair was killed when it had made version 1."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        copy = wipe(lived, tmp_path_factory.mktemp("repaired"))
        command = [sys.executable, "-m", "mlops", "mirror", "repair"]
        with subprocess.Popen(command, cwd=copy.path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert any(f"MLflow has {copy.path.name} version 1" in line for line in process.stderr)
            process.kill()
        preview = verb(copy, "mirror", "repair", "--dry-run", check=False)
        failed = run_of(before, status="FAILED")
        name = before["runs"][failed]["info"][0]
        assert f"run {failed} ({name}): MLflow lacks everything; not repairable: no resul" in preview.stdout
        assert "version 1:" not in preview.stdout
        assert "version 2: MLflow lacks everything; python -m" in preview.stdout
        assert list(state(database(copy), copy.path.name)["versions"]) == [1], "a dry run does nothing"
        assert verb(copy, "mirror", "repair", check=False).returncode == 1
        yield copy


def verb(project: BakedProject, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a verb of the project's command line."""
    return project.run("python", "-m", "mlops", *words, check=check)


def database(project: BakedProject) -> str:
    """Return the address of the project's own MLflow."""
    return f"sqlite:///{(project.path / 'mlflow.db').as_posix()}"


def run_of(known: dict[str, Any], name: str = "", status: str = "FINISHED") -> str:
    """Return the id of the run with this name, or status."""
    info = {run: state["info"] for run, state in known["runs"].items()}
    return str(next(run for run in info if info[run][1] == status and name in ("", info[run][0])))


def without(known: dict[str, Any], *runs: str) -> str:
    """Return a state without some runs, to compare."""
    return show({**known, "runs": {run: state for run, state in known["runs"].items() if run not in runs}})


def check_predicts(uri: str, name: str, version: int) -> None:
    """See that the model of a version loads, and answers, from what MLflow has alone."""
    mlflow.set_tracking_uri(uri)
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    model = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
    answer = model.predict(pandas.DataFrame({"image": [file.getvalue()]}))
    assert answer["label"][0] in "0123456789"


def test_repair_wiped_mlflow_has_both_versions_and_the_champion_as_they_were(
    opted_out: BakedProject, tmp_path: Path
) -> None:
    name = opted_out.path.name
    wiped = wipe(opted_out, tmp_path)
    verb(wiped, "mirror", "repair")
    assert show(state(database(wiped), name)) == show(state(database(opted_out), name))
    assert wiped.run("git", "status", "--porcelain").stdout == ""
    check_predicts(database(wiped), name, 2)
    client = MlflowClient(database(wiped))
    client.delete_registered_model_alias(name, "champion")
    client.delete_registered_model(name)
    verb(wiped, "mirror", "repair")
    assert [int(version.version) for version in client.search_model_versions(f"name = '{name}'")] == [2, 1]
    assert int(client.get_model_version_by_alias(name, "champion").version) == 2


@pytest.mark.slow
def test_repair_wiped_server_has_everything_as_it_was(repaired: BakedProject, before: dict[str, Any]) -> None:
    failed = run_of(before, status="FAILED")
    assert without(state(database(repaired), repaired.path.name), failed) == without(before, failed)
    assert repaired.run("git", "status", "--porcelain").stdout == ""
    assert repaired.run("dvc", "data", "status", "--json").stdout.strip() == "{}"
    for version in (1, 2):
        check_predicts(database(repaired), repaired.path.name, version)


@pytest.mark.slow
def test_repair_run_and_version_that_a_person_deleted_stay_deleted(
    repaired: BakedProject, before: dict[str, Any]
) -> None:
    client, slow, name = MlflowClient(database(repaired)), run_of(before, "slow"), repaired.path.name
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.mirror_id = '{slow}'")
    client.delete_run(run.info.run_id)
    client.delete_model_version(name, "2")
    output = verb(repaired, "mirror", "repair", check=False).stdout
    assert f"run {slow} (slow): MLflow lacks everything; deleted by a person" in output
    assert f"mlflow runs restore --run-id {run.info.run_id}" in output
    assert "version 2: MLflow lacks everything; not repairable: a person deleted it" in output
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    assert [int(version.version) for version in client.search_model_versions(f"name = '{name}'")] == [1]
    status = json.loads(verb(repaired, "mirror", "status", "--json", check=False).stdout)
    assert (status["runs"], status["versions"], status["complete"]) == (4, 2, False)
    assert [item["state"] for item in status["lacking"]][:2] == ["deleted", "impossible"]


@pytest.mark.slow
def test_repair_second_server_from_a_fresh_clone_and_the_remote(
    lived: BakedProject, before: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = BakedProject(tmp_path / lived.path.name, lived.package)
    lived.run("git", "clone", "--quiet", str(lived.path), str(fresh.path))
    verb(fresh, "setup")
    server = MlflowServer(tmp_path / "server")
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        first = verb(fresh, "mirror", "status", check=False)
        assert "alias champion: MLflow lacks version 1 as champion" in first.stdout, "the log of its Git remote counts"
        fresh.run("git", "fetch", "--quiet", "origin", "lineage:lineage", "refs/exps/*:refs/exps/*")
        second = verb(fresh, "mirror", "repair", check=False)
        assert "can't be restored" in second.stdout, "an experiment that nobody pushed"
        lost = (run_of(before, status="FAILED"), run_of(before, "slow"))
        assert without(state(server.url, fresh.path.name), *lost) == without(before, *lost)
        check_predicts(server.url, fresh.path.name, 2)
    finally:
        server.kill()


@pytest.mark.slow
def test_repair_version_whose_model_is_gone_blocks_the_later_ones_until_it_is_given_up(
    lived: BakedProject, before: dict[str, Any], tmp_path: Path
) -> None:
    wiped, name = wipe(lived, tmp_path), lived.path.name
    wiped.run("dvc", "remote", "modify", "--local", "storage", "url", str(tmp_path / "empty"))
    lock = wiped.run("git", "show", f"{name}@v1.0.0:dvc.lock").stdout
    md5 = next(line for line in lock.partition("path: models/model")[2].splitlines() if "md5: " in line).split()[1]
    (wiped.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    done = verb(wiped, "mirror", "repair", check=False)
    assert done.returncode == 1
    assert "version 1: MLflow lacks everything; not repairable: the files of commit" in done.stdout
    assert f"To give it up for good, in each clone: git tag -d {name}@v1.0.0" in done.stdout
    assert "version 2: MLflow lacks everything; " in done.stdout
    runs = {run.data.tags["mirror_id"] for run in MlflowClient(database(wiped)).search_runs(["1"])}
    assert before["versions"][1]["run"] in runs, "its run is there all the same"
    wiped.run("git", "tag", "--delete", f"{name}@v1.0.0")
    done = verb(wiped, "mirror", "repair", check=False)
    assert "alias champion: MLflow lacks version 1 as champion; it has none; not repairable" in done.stdout
    after = state(database(wiped), name)
    assert list(after["versions"]) == [2]
    second, wanted = after["versions"][2], before["versions"][2]
    assert (second["run"], second["status"]) == (wanted["run"], wanted["status"])
    # The metrics of a model are what its run had measured by then: here, after the first repair.
    assert {**second["model"], "metrics": None} == {**wanted["model"], "metrics": None}
    assert int(MlflowClient(database(wiped)).create_model_version(name, "s3://next").version) == 3


@pytest.mark.slow
def test_repair_other_versions_in_the_way_are_refused(lived: BakedProject, tmp_path: Path) -> None:
    wiped, name = wipe(lived, tmp_path), lived.path.name
    client = MlflowClient(database(wiped))
    client.create_registered_model(name)
    client.create_model_version(name, "s3://elsewhere/model", tags={"result_commit": "0" * 40})
    done = verb(wiped, "mirror", "repair", check=False)
    assert done.returncode == 2
    assert f"has another model as {name} version 1" in done.stderr
    assert "Fix: platform.yaml:tracking_uri" in done.stderr
    assert len(client.search_model_versions()) == 1

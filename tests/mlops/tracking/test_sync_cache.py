"""Which runs MLflow has whole: the answer is the same with and without what was seen before."""

import shutil
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from mlops.config import home
from mlops.errors import ProjectError
from mlops.tracking import mlflow_client, sync_cache
from mlops.tracking.sync_cache import MlflowRunState, fetch_states

RUNS = [f"run{number}" for number in range(8)]


@pytest.fixture(params=[3, 1000], ids=["many-questions", "one-question"])
def ids(client: MlflowClient, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An MLflow with eight ended runs; their ids there."""
    monkeypatch.setattr(sync_cache, "COUNTED", request.param)
    experiment = mlflow_client.experiment_id(client, "demo")
    made = {run: client.create_run(experiment, tags={"mirror_id": run}).info.run_id for run in RUNS}
    for run_id in made.values():
        client.set_terminated(run_id)
    return made


def again(client: MlflowClient) -> Iterator[dict[str, MlflowRunState]]:
    """Look with what was seen before, and without."""
    yield fetch_states(client, RUNS)
    shutil.rmtree(home() / ".dvc/tmp/mirrored", ignore_errors=True)
    yield fetch_states(client, RUNS)


def test_look_all_there_has_all(client: MlflowClient, ids: dict[str, str]) -> None:
    expected = {run: MlflowRunState(run_id, whole=True, deleted=False) for run, run_id in ids.items()}
    assert fetch_states(client, RUNS) == expected
    assert all(found == expected for found in again(client))
    assert fetch_states(client, RUNS[:1]) == {RUNS[0]: expected[RUNS[0]]}


def test_look_deleted_and_unfinished_and_lost_runs_are_told(client: MlflowClient, ids: dict[str, str]) -> None:
    fetch_states(client, RUNS)
    client.delete_run(ids["run1"])
    client.set_terminated(ids["run4"], "RUNNING")
    client.set_tag(ids["run6"], "mirror_id", "another")
    client.delete_run(ids["run7"])
    client.restore_run(ids["run7"])
    shutil.rmtree(home() / ".dvc/tmp/mirrored", ignore_errors=True)
    for found in again(client):
        assert found["run1"] == MlflowRunState(ids["run1"], whole=True, deleted=True)
        assert not found["run4"].whole
        assert "run6" not in found
        assert found["run7"] == MlflowRunState(ids["run7"], whole=True, deleted=False)


def test_look_runs_that_change_after_they_were_seen_are_read_again(client: MlflowClient, ids: dict[str, str]) -> None:
    fetch_states(client, RUNS)
    client.delete_run(ids["run1"])
    client.set_terminated(ids["run4"], "RUNNING")
    found = fetch_states(client, RUNS)
    assert found["run1"].deleted
    assert not found["run4"].whole
    assert sum(one.whole and not one.deleted for one in found.values()) == len(RUNS) - 2


def test_look_server_that_was_wiped_has_none(client: MlflowClient, ids: dict[str, str]) -> None:
    fetch_states(client, RUNS)
    client.rename_experiment(mlflow_client.experiment_id(client, "demo"), "gone")
    assert fetch_states(client, RUNS) == {}
    mlflow_client.experiment_id(client, "demo")  # the next training makes it anew
    assert fetch_states(client, RUNS) == {}


def test_look_run_that_is_there_twice_counts_where_it_was_not_deleted(
    client: MlflowClient, ids: dict[str, str]
) -> None:
    twin = client.create_run(mlflow_client.experiment_id(client, "demo"), tags={"mirror_id": "run0"}).info.run_id
    client.delete_run(twin)
    assert fetch_states(client, ["run0"])["run0"] == MlflowRunState(ids["run0"], whole=True, deleted=False)


def test_look_experiment_that_a_person_deleted_is_told(client: MlflowClient, ids: dict[str, str]) -> None:
    client.delete_experiment(mlflow_client.experiment_id(client, "demo"))
    with pytest.raises(ProjectError, match="experiments restore"):
        fetch_states(client, RUNS)

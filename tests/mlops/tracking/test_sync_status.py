"""What MLflow lacks of the runs that this clone knows, with and without the cache, and what can be done."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlops.config import home
from mlops.errors import ProjectError
from mlops.files import write_json
from mlops.registry import repair
from mlops.tracking import lineage_log, mlflow_client, mlflow_reader, sync_status, uploader
from mlops.tracking.lineage_log import KnownRun
from mlops.tracking.mlflow_reader import ClientReader, Reader
from mlops.tracking.run_files import LINEAGE
from mlops.tracking.sync_status import MlflowRunState, fetch_states

from ..conftest import Run

RUNS = [f"run{number}" for number in range(8)]


@pytest.fixture
def client(client: MlflowClient, run: Run) -> MlflowClient:
    """The MLflow of a project in a repository with one commit."""
    run("git", "init", "--quiet", "--initial-branch=main")
    run("git", "add", "platform.yaml")
    run("git", "commit", "--quiet", "-m", "Start")
    return client


def known(*commits: str) -> dict[str, KnownRun]:
    """What a clone knows of one run."""
    return {"abc": KnownRun("abc", "gouty-fifo", commits)}


@pytest.mark.parametrize(
    ("place", "commits", "state", "remedy"),
    [
        ("outbox", (), "sync", "mirror sync (its mirror.log ends with: WARNING: no answer)"),
        ("work tree", ("1" * 40,), "sync", "mirror sync"),
        ("", ("1" * 40,), "repair", "mirror repair"),
        ("", (), "impossible", "if the training failed, they are lost: python -m mlops mirror give-up abc --why"),
    ],
    ids=["outbox", "work-tree", "history", "log-alone"],
)
def test_missing_run_that_mlflow_lacks_has_a_remedy(
    client: MlflowClient, facts: dict[str, Any], place: str, commits: tuple[str, ...], state: str, remedy: str
) -> None:
    if place:
        write_json((uploader.folder() / "abc" if place == "outbox" else Path()) / LINEAGE, {**facts, "run": "abc"})
    if place == "outbox":
        (uploader.folder() / "abc/mirror.log").write_text("INFO: began\nWARNING: no answer\n\n", encoding="utf-8")
    missing = sync_status.missing(mlflow_reader.connect(), known(*commits))["abc"]
    assert (missing.what, missing.state, missing.lacks) == ("run abc (gouty-fifo)", state, "everything")
    assert remedy in missing.remedy
    assert missing.counts


def test_missing_run_that_is_training_will_come(client: MlflowClient, facts: dict[str, Any]) -> None:
    write_json(uploader.folder() / "abc" / LINEAGE, facts)
    with uploader.training("abc"):
        missing = sync_status.missing(mlflow_reader.connect(), known())["abc"]
    assert missing.state == "training"
    assert not missing.counts


def test_missing_run_without_its_end_or_deleted(client: MlflowClient) -> None:
    run_id = client.create_run(mlflow_client.experiment_id(client, "demo"), tags={"mirror_id": "abc"}).info.run_id
    missing = sync_status.missing(mlflow_reader.connect(), known("1" * 40))["abc"]
    assert (missing.state, missing.lacks) == ("repair", "its end")
    assert sync_status.missing(mlflow_reader.connect(), known())["abc"].state == "impossible"
    client.set_terminated(run_id)
    assert sync_status.missing(mlflow_reader.connect(), known()) == {}
    client.delete_run(run_id)
    missing = sync_status.missing(mlflow_reader.connect(), known("1" * 40))["abc"]
    assert missing.state == "deleted"
    assert not missing.counts
    assert f"mlflow runs restore --run-id {run_id}" in missing.remedy


def test_missing_run_that_was_given_up_does_not_count_unless_its_files_turn_up(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(repair, "status", lambda: repair.Status(known(), {}, state(), {}))

    def state() -> dict[str, sync_status.Missing]:
        return sync_status.missing(mlflow_reader.connect(), known())

    assert state()["abc"].counts
    repair.give_up(["abc"], "killed: the machine\ngave up")
    item = state()["abc"]
    assert (item.state, item.counts) == ("given up", False)
    assert re.fullmatch(r"given up on 20\d\d-\d\d-\d\d by Test <.*>: killed: the machine\ngave up", item.remedy)
    run("git", "update-ref", "refs/remotes/origin/lineage", "lineage")
    run("git", "update-ref", "-d", "refs/heads/lineage")
    assert state()["abc"].state == "given up", "in another clone"
    write_json(uploader.folder() / "abc" / LINEAGE, {**facts, "run": "abc"})
    assert (state()["abc"].state, state()["abc"].counts) == ("sync", True)
    for name, message in {
        "abc": "run abc is not lost .sync.\nFix: python -m mlops mirror sync",
        "xyz": "this clone knows no run xyz\nFix: take an id of: python -m mlops mirror status",
    }.items():
        with pytest.raises(ProjectError, match=message):
            repair.give_up([name], "no reason")
    with pytest.raises(ProjectError, match="given up for a reason, and there is none\nFix: --why"):
        repair.give_up(["abc"], " ")
    monkeypatch.setattr(repair, "status", lambda: repair.Status(known(), {}, {}, {}))
    with pytest.raises(ProjectError, match="run abc is not lost: MLflow has it\nFix: leave it out"):
        repair.give_up(["abc"], "no reason")


def test_given_up_runs_of_other_projects_in_the_repository_do_not_count(client: MlflowClient) -> None:
    sync_status.give_up(known()["abc"], "Ada <ada@example.org>", "lost")
    assert list(sync_status.given_up()) == ["abc"]
    text = Path("platform.yaml").read_text(encoding="utf-8")
    Path("platform.yaml").write_text(text.replace("demo", "other"), encoding="utf-8")
    assert sync_status.given_up() == {}


def test_known_runs_of_outbox_and_work_tree_count_once(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(LINEAGE, facts)
    write_json(uploader.folder() / "abc123" / LINEAGE, facts)
    monkeypatch.setattr(lineage_log, "runs", known)
    assert list(sync_status.known()) == ["abc", "abc123"]


@pytest.fixture(params=[3, 1000], ids=["many-questions", "one-question"])
def ids(client: MlflowClient, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An MLflow with eight ended runs; their ids there."""
    monkeypatch.setattr(sync_status, "IDS_PER_QUERY", request.param)
    experiment = mlflow_client.experiment_id(client, "demo")
    made = {run: client.create_run(experiment, tags={"mirror_id": run}).info.run_id for run in RUNS}
    for run_id in made.values():
        client.set_terminated(run_id)
    return made


@pytest.fixture(params=["file", "client"])
def reader(client: MlflowClient, request: pytest.FixtureRequest) -> Reader:
    """MLflow's file, and MLflow by its client, as a server is read: that one has a cache."""
    return mlflow_reader.connect() if request.param == "file" else ClientReader(client)


def fetched_twice(reader: Reader) -> Iterator[dict[str, MlflowRunState]]:
    """Fetch with the cache, and without."""
    yield fetch_states(reader, RUNS)
    shutil.rmtree(home() / ".dvc/tmp/mirrored", ignore_errors=True)
    yield fetch_states(reader, RUNS)


def test_fetch_states_complete_runs(client: MlflowClient, reader: Reader, ids: dict[str, str]) -> None:
    expected = {run: MlflowRunState(run_id, complete=True, deleted=False) for run, run_id in ids.items()}
    assert fetch_states(reader, RUNS) == expected
    assert all(states == expected for states in fetched_twice(reader))
    assert fetch_states(reader, RUNS[:1]) == {RUNS[0]: expected[RUNS[0]]}


def test_fetch_states_deleted_and_unfinished_and_lost_runs(
    client: MlflowClient, reader: Reader, ids: dict[str, str]
) -> None:
    fetch_states(reader, RUNS)
    client.delete_run(ids["run1"])
    client.set_terminated(ids["run4"], "RUNNING")
    client.set_tag(ids["run6"], "mirror_id", "another")
    client.delete_run(ids["run7"])
    client.restore_run(ids["run7"])
    shutil.rmtree(home() / ".dvc/tmp/mirrored", ignore_errors=True)
    for states in fetched_twice(reader):
        assert states["run1"] == MlflowRunState(ids["run1"], complete=True, deleted=True)
        assert not states["run4"].complete
        assert "run6" not in states
        assert states["run7"] == MlflowRunState(ids["run7"], complete=True, deleted=False)


def test_fetch_states_runs_that_change_after_they_were_seen_are_read_again(
    client: MlflowClient, reader: Reader, ids: dict[str, str]
) -> None:
    fetch_states(reader, RUNS)
    client.delete_run(ids["run1"])
    client.set_terminated(ids["run4"], "RUNNING")
    states = fetch_states(reader, RUNS)
    assert states["run1"].deleted
    assert not states["run4"].complete
    assert sum(state.complete and not state.deleted for state in states.values()) == len(RUNS) - 2


def test_fetch_states_server_that_was_wiped_has_none(client: MlflowClient, reader: Reader, ids: dict[str, str]) -> None:
    fetch_states(reader, RUNS)
    client.rename_experiment(mlflow_client.experiment_id(client, "demo"), "other")
    assert fetch_states(reader, RUNS) == {}
    mlflow_client.experiment_id(client, "demo")  # the next training makes it anew
    assert fetch_states(reader, RUNS) == {}


def test_fetch_states_run_with_a_twin_counts_where_it_was_not_deleted(
    client: MlflowClient, reader: Reader, ids: dict[str, str]
) -> None:
    twin = client.create_run(mlflow_client.experiment_id(client, "demo"), tags={"mirror_id": "run0"}).info.run_id
    client.delete_run(twin)
    assert fetch_states(reader, ["run0"])["run0"] == MlflowRunState(ids["run0"], complete=True, deleted=False)


def test_fetch_states_experiment_that_a_person_deleted_is_refused(
    client: MlflowClient, reader: Reader, ids: dict[str, str]
) -> None:
    client.delete_experiment(mlflow_client.experiment_id(client, "demo"))
    with pytest.raises(ProjectError, match="experiments restore"):
        fetch_states(reader, RUNS)

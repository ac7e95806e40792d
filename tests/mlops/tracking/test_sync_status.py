"""What MLflow lacks of the runs that this clone knows, and what can be done."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlops.files import write_json
from mlops.tracking import mlflow_client, sync_status, upload_queue
from mlops.tracking.git_history import KnownRun
from mlops.tracking.run_files import LINEAGE


def known(*commits: str) -> dict[str, KnownRun]:
    """What a clone knows of one run."""
    return {"abc": KnownRun("abc", "gouty-fifo", commits)}


@pytest.mark.parametrize(
    ("place", "commits", "state", "remedy"),
    [
        ("outbox", (), "sync", "mirror sync (its mirror said: WARNING: no answer)"),
        ("work tree", ("1" * 40,), "sync", "mirror sync"),
        ("", ("1" * 40,), "repair", "mirror repair"),
        ("", (), "impossible", "not repairable: no results in DVC"),
    ],
    ids=["outbox", "work-tree", "history", "log-alone"],
)
def test_lacking_run_that_is_not_there_has_a_remedy(
    client: MlflowClient, facts: dict[str, Any], place: str, commits: tuple[str, ...], state: str, remedy: str
) -> None:
    if place:
        write_json((upload_queue.folder() / "abc" if place == "outbox" else Path()) / LINEAGE, {**facts, "run": "abc"})
    if place == "outbox":
        (upload_queue.folder() / "abc/mirror.log").write_text("INFO: began\nWARNING: no answer\n\n", encoding="utf-8")
    lack = sync_status.missing(client, known(*commits))["abc"]
    assert (lack.what, lack.state, lack.lacks) == ("run abc (gouty-fifo)", state, "everything")
    assert remedy in lack.remedy
    assert lack.counts


def test_lacking_run_that_is_training_will_come(client: MlflowClient, facts: dict[str, Any]) -> None:
    write_json(upload_queue.folder() / "abc" / LINEAGE, facts)
    with upload_queue.training("abc"):
        lack = sync_status.missing(client, known())["abc"]
    assert lack.state == "training"
    assert not lack.counts


def test_lacking_run_without_its_end_or_deleted_is_told(client: MlflowClient) -> None:
    run_id = client.create_run(mlflow_client.experiment_id(client, "demo"), tags={"mirror_id": "abc"}).info.run_id
    lack = sync_status.missing(client, known("1" * 40))["abc"]
    assert (lack.state, lack.lacks) == ("repair", "its end")
    assert sync_status.missing(client, known())["abc"].state == "impossible"
    client.set_terminated(run_id)
    assert sync_status.missing(client, known()) == {}
    client.delete_run(run_id)
    lack = sync_status.missing(client, known("1" * 40))["abc"]
    assert lack.state == "deleted"
    assert not lack.counts
    assert f"mlflow runs restore --run-id {run_id}" in lack.remedy


def test_known_runs_of_outbox_and_work_tree_count_once(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(LINEAGE, facts)
    write_json(upload_queue.folder() / "abc123" / LINEAGE, facts)
    monkeypatch.setattr(sync_status.git_history, "runs", known)
    assert list(sync_status.known()) == ["abc", "abc123"]

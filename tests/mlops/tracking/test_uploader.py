"""The process beside the training."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlops.tracking import mlflow_client, upload_queue, uploader
from mlops.tracking.run import recorded


def find(client: MlflowClient) -> Run | None:
    found = client.search_runs([mlflow_client.experiment_id(client, "demo")])
    return found[0] if found else None


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def points(client: MlflowClient, run: Run) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, "loss"))


def test_recorded_run_is_in_mlflow_while_it_trains(client: MlflowClient, facts: dict[str, Any]) -> None:
    with recorded(facts) as live:
        live.log_metric("loss", 0.5)
        live.next_step()
        until(lambda: (run := find(client)) and run.data.metrics)
        run = find(client)
        assert run
        assert run.info.status == "RUNNING"
        assert run.data.params["dataset_md5"] == "x"
        live.log_metric("loss", 0.25)
        live.summary["test_acc"] = 0.9
    ended = client.get_run(run.info.run_id)
    assert ended.info.status == "FINISHED"
    assert ended.data.metrics == {"loss": 0.25, "test_acc": 0.9}
    assert points(client, ended) == [0, 1]
    assert upload_queue.waiting() == []


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_recorded_training_that_raises_ends_the_run_so(
    client: MlflowClient, facts: dict[str, Any], error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), recorded(facts) as live:
        live.log_metric("loss", 0.5)
        raise error
    run = find(client)
    assert run
    assert run.info.status == status
    assert points(client, run) == [0]


def test_recorded_sidecar_that_is_killed_is_started_again(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "RESTART_S", 0.1)
    started = []
    start = uploader.Sidecar._start
    monkeypatch.setattr(uploader.Sidecar, "_start", lambda self: started.append(start(self)) or started[-1])
    with recorded(facts) as live:
        live.log_metric("loss", 0.5)
        live.next_step()
        until(lambda: find(client))
        os.kill(started[0].pid, signal.SIGKILL)
        until(lambda: len(started) == 2)
        os.kill(started[1].pid, signal.SIGKILL)  # while it starts
        live.log_metric("loss", 0.25)
    run = find(client)
    assert run
    assert run.info.status == "FINISHED"
    assert points(client, run) == [0, 1]


def test_recorded_training_with_a_process_that_outlives_it_ends_at_once(
    client: MlflowClient, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with recorded(facts) as live:
        child = os.fork()  # as a DataLoader's worker: it holds the other end of the sidecar's pipe
        if not child:
            time.sleep(60)
            os._exit(0)
        live.log_metric("loss", 0.5)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert "mirror sync" not in caplog.text
    run = find(client)
    assert run
    assert run.info.status == "FINISHED"


def test_recorded_training_without_room_for_the_outbox_ends_well(
    client: MlflowClient, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    Path(".dvc").mkdir(exist_ok=True)
    with recorded(facts) as live:
        live.log_metric("loss", 0.5)
        upload_queue.remove("abc123")
        upload_queue.folder().joinpath("abc123").write_text("in the way", encoding="utf-8")
    assert "the outbox does not take" in caplog.text
    assert upload_queue.read_facts()["status"] == "FINISHED"


def test_recorded_summary_that_can_not_be_written_ends_the_run_as_failed(
    client: MlflowClient, facts: dict[str, Any]
) -> None:
    with pytest.raises(TypeError), recorded(facts) as live:
        live.log_metric("loss", 0.5)
        live.summary["best"] = object()
    run = find(client)
    assert run
    assert run.info.status == "FAILED"
    assert points(client, run) == [0]


def test_recorded_training_while_mlflow_is_away_ends_well_and_keeps_the_run(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uploader, "PATIENCE_S", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with recorded(facts) as live:
        live.log_metric("loss", 0.5)
    assert "mirror sync" in caplog.text
    assert upload_queue.waiting() == ["abc123"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    upload_queue.upload_all()  # waits for the sidecar to give up
    run = find(client)
    assert run
    assert run.info.status == "FINISHED"
    assert points(client, run) == [0]
    assert not Path(upload_queue.folder() / "abc123").exists()

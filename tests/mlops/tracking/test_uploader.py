"""The process beside the training, and the outbox, which keeps what MLflow does not have yet."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlops.errors import ProjectError
from mlops.files import write_json
from mlops.tracking import mlflow_client, uploader
from mlops.tracking.mlflow_sync import RunDeletedError
from mlops.tracking.run import recorded
from mlops.tracking.run_files import LINEAGE, RUN_DIR, read_facts

CURVE = RUN_DIR / "plots" / "metrics" / "loss.tsv"


def find(client: MlflowClient) -> Run | None:
    runs = client.search_runs([mlflow_client.experiment_id(client, "demo")])
    return runs[0] if runs else None


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


def points(client: MlflowClient, run_id: str) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run_id, "loss"))


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
    assert points(client, run.info.run_id) == [0, 1]
    assert uploader.waiting() == []


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
    assert points(client, run.info.run_id) == [0]


def test_recorded_upload_process_that_is_killed_is_started_again(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "RESTART_S", 0.1)
    started: list[subprocess.Popen[bytes]] = []
    start = uploader.UploadProcess._start

    def start_and_note(self: uploader.UploadProcess) -> "subprocess.Popen[bytes]":
        started.append(start(self))
        return started[-1]

    monkeypatch.setattr(uploader.UploadProcess, "_start", start_and_note)
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
    assert points(client, run.info.run_id) == [0, 1]


def test_recorded_training_with_a_process_that_outlives_it_ends_at_once(
    client: MlflowClient, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with recorded(facts) as live:
        child = os.fork()  # as a DataLoader's worker: it holds the other end of the upload process's pipe
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


@pytest.mark.slow  # it waits as long as a training would
def test_recorded_training_without_room_for_the_outbox_ends_well(
    client: MlflowClient, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    Path(".dvc").mkdir(exist_ok=True)
    with recorded(facts) as live:
        live.log_metric("loss", 0.5)
        uploader.remove("abc123")
        uploader.folder().joinpath("abc123").write_text("in the way", encoding="utf-8")
    assert "the outbox does not take" in caplog.text
    assert read_facts()["status"] == "FINISHED"


def test_recorded_summary_that_can_not_be_written_ends_the_run_as_failed(
    client: MlflowClient, facts: dict[str, Any]
) -> None:
    with pytest.raises(TypeError), recorded(facts) as live:
        live.log_metric("loss", 0.5)
        live.summary["best"] = object()
    run = find(client)
    assert run
    assert run.info.status == "FAILED"
    assert points(client, run.info.run_id) == [0]


def test_recorded_training_while_mlflow_is_away_ends_well_and_keeps_the_run(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uploader, "PATIENCE_S", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with recorded(facts) as live:
        live.log_metric("loss", 0.5)
    assert "mirror sync" in caplog.text
    assert uploader.waiting() == ["abc123"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    uploader.upload_all()  # waits for the process to give up
    run = find(client)
    assert run
    assert run.info.status == "FINISHED"
    assert points(client, run.info.run_id) == [0]
    assert not Path(uploader.folder() / "abc123").exists()


@pytest.fixture
def begun(client: MlflowClient, facts: dict[str, Any]) -> MlflowClient:
    """A project whose run has begun, and entered the outbox."""
    CURVE.parent.mkdir(parents=True)
    CURVE.write_bytes(b"timestamp\tstep\tloss\n1700000000000\t0\t0.5\n")
    LINEAGE.write_text(json.dumps(facts), encoding="utf-8")
    uploader.stage_files("abc123")
    return client


def test_upload_run_whose_files_dvc_deleted_has_all_that_was_written(begun: MlflowClient, tmp_path: Path) -> None:
    with CURVE.open("ab") as file:
        file.write(b"1700000000001\t1\t0.25\n")
    shutil.rmtree(RUN_DIR)  # what `dvc repro` does first
    Path("data/manifest.parquet").unlink()
    Path("data/manifest.parquet").write_text("manifest y", encoding="utf-8")
    (run_id,) = uploader.upload_all()
    assert points(begun, run_id) == [0, 1]
    assert begun.get_run(run_id).info.status == "FAILED"
    manifest = begun.download_artifacts(run_id, "data/manifest.parquet", str(tmp_path))
    assert Path(manifest).read_text(encoding="utf-8") == "manifest x"
    assert uploader.waiting() == []


def test_stage_files_on_a_disk_without_links_copies(begun: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    shutil.rmtree(uploader.folder())
    uploader.stage_files("abc123")
    with CURVE.open("ab") as file:
        file.write(b"1700000000001\t1\t0.25\n")
    entry = uploader.stage_files("abc123")
    assert (entry / CURVE).read_bytes() == CURVE.read_bytes()


def test_stage_files_when_the_next_run_has_begun_takes_nothing_of_it(
    begun: MlflowClient, facts: dict[str, Any]
) -> None:
    before = (uploader.folder() / "abc123" / CURVE).read_bytes()
    shutil.rmtree(RUN_DIR)
    CURVE.parent.mkdir(parents=True)
    CURVE.write_bytes(b"other")
    LINEAGE.write_text(json.dumps({**facts, "run": "def456"}), encoding="utf-8")
    uploader.stage_files("abc123")
    assert (uploader.folder() / "abc123" / CURVE).read_bytes() == before


def test_upload_all_run_that_still_trains_is_left_to_its_process(begun: MlflowClient) -> None:
    with uploader.training("abc123"):
        assert uploader.upload_all() == []
        assert uploader.waiting() == ["abc123"]
    assert len(uploader.upload_all()) == 1


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ("http://127.0.0.1:9", "can't be reached: .*\nFix: see that the server is up .* run the same command again$"),
        ("damaged", "the database is damaged\nFix: mv .*&& python -m mlops mirror repair$"),
    ],
    ids=["away", "damaged"],
)
def test_upload_all_while_mlflow_takes_nothing_keeps_the_run(
    begun: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str, error: str
) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trouble if "://" in trouble else f"sqlite:///{damaged.as_posix()}")
    with pytest.raises(ProjectError, match=error):
        uploader.upload_all()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (run_id,) = uploader.upload_all()
    assert points(begun, run_id) == [0]


def test_upload_all_deleted_run_does_not_hold_up_others(
    begun: MlflowClient, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    begun.delete_run(uploader.upload())
    uploader.stage_files("abc123")
    write_json(LINEAGE, {**facts, "run": "def456"})
    uploader.stage_files("def456")
    assert len(uploader.upload_all()) == 1
    assert "mlflow runs restore" in caplog.text
    assert uploader.waiting() == ["abc123"]


def test_upload_deleted_run_in_the_work_tree_is_an_error(begun: MlflowClient) -> None:
    begun.delete_run(uploader.upload())
    with pytest.raises(RunDeletedError, match="mlflow runs restore"):
        uploader.upload_all()


def test_upload_all_damaged_run_does_not_hold_up_others(begun: MlflowClient, facts: dict[str, Any]) -> None:
    damaged = uploader.folder() / "aaa" / LINEAGE
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{", encoding="utf-8")
    with pytest.raises(ProjectError, match="rm -r .*aaa"):
        uploader.upload_all()
    assert uploader.waiting() == ["aaa"]


def test_upload_all_summary_that_is_not_whole_costs_no_point(begun: MlflowClient) -> None:
    (RUN_DIR / "metrics.json").write_text('{"loss":', encoding="utf-8")
    (RUN_DIR / "params.yaml").write_text("data: {since: 2026-01-01}\n", encoding="utf-8")
    (run_id,) = uploader.upload_all()
    assert points(begun, run_id) == [0]
    assert begun.get_run(run_id).data.params["data.since"] == '"2026-01-01"'


def test_upload_all_manifest_that_changed_since_is_the_one_it_read(begun: MlflowClient, tmp_path: Path) -> None:
    for name in ("data/manifest.parquet", "reports/manifest.json"):
        Path(name).unlink()
        Path(name).write_text('{"sha256": ["y"]}', encoding="utf-8")
    (run_id,) = uploader.upload_all()
    manifest = begun.download_artifacts(run_id, "data/manifest.parquet", str(tmp_path))
    assert Path(manifest).read_text(encoding="utf-8") == "manifest x"

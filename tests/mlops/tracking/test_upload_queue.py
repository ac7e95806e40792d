"""What MLflow does not have yet is kept, whatever becomes of the work tree."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlops.errors import ProjectError
from mlops.files import write_json
from mlops.tracking import upload_queue
from mlops.tracking.mlflow_sync import RunDeletedError
from mlops.tracking.run_files import LINEAGE, RUN_DIR

CURVE = RUN_DIR / "plots" / "metrics" / "loss.tsv"


@pytest.fixture
def begun(client: MlflowClient, facts: dict[str, Any]) -> MlflowClient:
    """A project whose run has begun, and entered the outbox."""
    CURVE.parent.mkdir(parents=True)
    CURVE.write_bytes(b"timestamp\tstep\tloss\n1700000000000\t0\t0.5\n")
    LINEAGE.write_text(json.dumps(facts), encoding="utf-8")
    upload_queue.stage_files("abc123")
    return client


def points(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "loss")]


def test_deliver_run_whose_files_dvc_deleted_has_all_that_was_written(begun: MlflowClient, tmp_path: Path) -> None:
    with CURVE.open("ab") as file:
        file.write(b"1700000000001\t1\t0.25\n")
    shutil.rmtree(RUN_DIR)  # what `dvc repro` does first
    Path("data/manifest.parquet").unlink()
    Path("data/manifest.parquet").write_text("manifest y", encoding="utf-8")
    (run_id,) = upload_queue.upload_all()
    assert points(begun, run_id) == [0, 1]
    assert begun.get_run(run_id).info.status == "FAILED"
    manifest = begun.download_artifacts(run_id, "data/manifest.parquet", str(tmp_path))
    assert Path(manifest).read_text(encoding="utf-8") == "manifest x"
    assert upload_queue.waiting() == []


def test_gather_on_a_disk_without_links_copies(begun: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    shutil.rmtree(upload_queue.folder())
    upload_queue.stage_files("abc123")
    with CURVE.open("ab") as file:
        file.write(b"1700000000001\t1\t0.25\n")
    entry = upload_queue.stage_files("abc123")
    assert (entry / CURVE).read_bytes() == CURVE.read_bytes()


def test_gather_when_the_next_run_has_begun_takes_nothing_of_it(begun: MlflowClient, facts: dict[str, Any]) -> None:
    before = (upload_queue.folder() / "abc123" / CURVE).read_bytes()
    shutil.rmtree(RUN_DIR)
    CURVE.parent.mkdir(parents=True)
    CURVE.write_bytes(b"other")
    LINEAGE.write_text(json.dumps({**facts, "run": "def456"}), encoding="utf-8")
    upload_queue.stage_files("abc123")
    assert (upload_queue.folder() / "abc123" / CURVE).read_bytes() == before


def test_deliver_all_run_that_still_trains_is_left_to_its_sidecar(begun: MlflowClient) -> None:
    with upload_queue.training("abc123"):
        assert upload_queue.upload_all() == []
        assert upload_queue.waiting() == ["abc123"]
    assert len(upload_queue.upload_all()) == 1


@pytest.mark.parametrize("trouble", ["http://127.0.0.1:9", "damaged"])
def test_deliver_all_while_mlflow_takes_nothing_keeps_the_run(
    begun: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str
) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trouble if "://" in trouble else f"sqlite:///{damaged.as_posix()}")
    with pytest.raises(ProjectError, match="mirror sync"):
        upload_queue.upload_all()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (run_id,) = upload_queue.upload_all()
    assert points(begun, run_id) == [0]


def test_deliver_all_deleted_run_does_not_hold_up_others(
    begun: MlflowClient, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    begun.delete_run(upload_queue.upload())
    upload_queue.stage_files("abc123")
    write_json(LINEAGE, {**facts, "run": "def456"})
    upload_queue.stage_files("def456")
    assert len(upload_queue.upload_all()) == 1
    assert "mlflow runs restore" in caplog.text
    assert upload_queue.waiting() == ["abc123"]


def test_deliver_deleted_run_in_the_work_tree_is_an_error(begun: MlflowClient) -> None:
    begun.delete_run(upload_queue.upload())
    with pytest.raises(RunDeletedError, match="mlflow runs restore"):
        upload_queue.upload_all()


def test_deliver_all_damaged_run_does_not_hold_up_others(begun: MlflowClient, facts: dict[str, Any]) -> None:
    damaged = upload_queue.folder() / "aaa" / LINEAGE
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{", encoding="utf-8")
    with pytest.raises(ProjectError, match="rm -r .*aaa"):
        upload_queue.upload_all()
    assert upload_queue.waiting() == ["aaa"]


def test_deliver_all_summary_that_is_not_whole_costs_no_point(begun: MlflowClient) -> None:
    (RUN_DIR / "metrics.json").write_text('{"loss":', encoding="utf-8")
    (RUN_DIR / "params.yaml").write_text("data: {since: 2026-01-01}\n", encoding="utf-8")
    (run_id,) = upload_queue.upload_all()
    assert points(begun, run_id) == [0]
    assert begun.get_run(run_id).data.params["data.since"] == '"2026-01-01"'


def test_deliver_all_manifest_that_changed_since_is_the_one_it_read(begun: MlflowClient, tmp_path: Path) -> None:
    for name in ("data/manifest.parquet", "reports/manifest.json"):
        Path(name).unlink()
        Path(name).write_text('{"sha256": ["y"]}', encoding="utf-8")
    (run_id,) = upload_queue.upload_all()
    manifest = begun.download_artifacts(run_id, "data/manifest.parquet", str(tmp_path))
    assert Path(manifest).read_text(encoding="utf-8") == "manifest x"

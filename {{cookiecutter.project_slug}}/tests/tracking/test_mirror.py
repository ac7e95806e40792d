"""Copying a run to MLflow: everything once, however often, and from wherever it stopped."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from {{ cookiecutter.package_name }}.errors import ProjectError
from {{ cookiecutter.package_name }}.tracking import outbox, server
from {{ cookiecutter.package_name }}.tracking.mirror import FACTS, RUN_DIR, find, sync

ROWS = [(1_700_000_000_000 + step, step, value) for step, value in enumerate(("0.5", "nan", "inf", "-inf", "0.25"))]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The MLflow of a project with one run on disk; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(settings, encoding="utf-8")
    curve = RUN_DIR / "plots" / "metrics" / "val" / "loss.tsv"
    curve.parent.mkdir(parents=True)
    rows = "".join(f"{time}\t{step}\t{value}\n" for time, step, value in ROWS)
    curve.write_text(f"timestamp\tstep\tloss\n{rows}", encoding="utf-8")
    (RUN_DIR / "params.yaml").write_text("train: {max_lr: 0.003, init_from: null}\n", encoding="utf-8")
    (RUN_DIR / "metrics.json").write_text('{"val": {"loss": 0.25}, "test_acc": 0.9, "step": 4}', encoding="utf-8")
    facts = {
        **dict.fromkeys(FACTS, "x"),
        "run": "abc123",
        "name": "gouty-fifo",
        "git_branch": "main",
        "dataset_path": "data/dataset",
        "parents": [],
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "ended_at": "2026-01-01T00:01:00.000+00:00",
        "status": "FINISHED",
    }
    (RUN_DIR / "lineage.json").write_text(json.dumps(facts), encoding="utf-8")
    Path("data").mkdir()
    Path("data/manifest.parquet").write_text("manifest x", encoding="utf-8")
    Path("reports/manifest.json").write_text('{"sha256": ["x"]}', encoding="utf-8")
    return server.client()


def history(client: MlflowClient, run_id: str) -> list[tuple[int, int]]:
    """Return time and step of each point of the curve."""
    return [(point.timestamp, point.step) for point in client.get_metric_history(run_id, "val/loss")]


def test_sync_twice_has_everything_once(client: MlflowClient) -> None:
    run_id = sync()
    assert sync() == run_id
    assert sorted(history(client, run_id)) == [(time, step) for time, step, _ in ROWS]
    run = client.get_run(run_id)
    assert run.info.run_name == "gouty-fifo"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 60_000
    assert run.data.params["train.max_lr"] == "0.003"
    assert run.data.params["parents"] == "[]"
    assert run.data.metrics["test_acc"] == 0.9
    assert len(run.inputs.dataset_inputs) == 1


def test_sync_after_a_stop_in_the_middle_sends_only_what_lacks(client: MlflowClient) -> None:
    run = client.create_run(server.experiment_id(client), tags={"mirror_id": "abc123"})
    sent = [Metric("val/loss", float(value), time, step) for time, step, value in ROWS[:4]]
    client.log_batch(run.info.run_id, metrics=sent)
    assert sync() == run.info.run_id
    assert sorted(history(client, run.info.run_id)) == [(time, step) for time, step, _ in ROWS]


def test_sync_deleted_run_is_reported_and_stays_deleted(client: MlflowClient) -> None:
    client.delete_run(sync())
    with pytest.raises(ProjectError, match="mlflow runs restore"):
        sync()
    with pytest.raises(ProjectError, match="was deleted in MLflow"):
        find(client, "abc123")


def test_sync_without_a_run_says_what_makes_one(client: MlflowClient) -> None:
    with pytest.raises(ProjectError, match="dvc repro train"):
        sync(Path("elsewhere"))


def test_sync_manifest_of_another_run_is_refused(client: MlflowClient) -> None:
    Path("reports/manifest.json").write_text('{"sha256": ["y"]}', encoding="utf-8")
    with pytest.raises(ProjectError, match="git checkout x -- dvc.lock"):
        sync()


@pytest.mark.parametrize("trouble", ["http://127.0.0.1:9", "damaged"])
def test_run_that_mlflow_does_not_take_is_kept_and_sent_later(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str
) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trouble if "://" in trouble else f"sqlite:///{damaged.as_posix()}")
    outbox.send_or_keep()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    shutil.rmtree(RUN_DIR)  # the next training
    Path("data/manifest.parquet").write_text("manifest y", encoding="utf-8")
    (run_id,) = outbox.send_all()
    assert sorted(history(client, run_id)) == [(time, step) for time, step, _ in ROWS]
    manifest = client.download_artifacts(run_id, "data/manifest.parquet", str(tmp_path))
    assert Path(manifest).read_text(encoding="utf-8") == "manifest x"
    assert list(outbox.folder().glob("*")) == []


def test_tracking_uri_relative_path_is_refused(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with pytest.raises(ProjectError, match="relative path"):
        server.tracking_uri()

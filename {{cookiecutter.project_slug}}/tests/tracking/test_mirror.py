"""Copying a run to MLflow: everything once, however often, and from wherever it stopped."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from {{ cookiecutter.package_name }}.errors import ProjectError
from {{ cookiecutter.package_name }}.tracking import server
from {{ cookiecutter.package_name }}.tracking.mirror import FACTS, find, sync

RUN = Path("reports/train")
ROWS = [(1_700_000_000_000 + step, step, value) for step, value in enumerate(("0.5", "nan", "inf", "-inf", "0.25"))]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The MLflow of a project with one run on disk; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(settings, encoding="utf-8")
    curve = RUN / "plots" / "metrics" / "val" / "loss.tsv"
    curve.parent.mkdir(parents=True)
    rows = "".join(f"{time}\t{step}\t{value}\n" for time, step, value in ROWS)
    curve.write_text(f"timestamp\tstep\tloss\n{rows}", encoding="utf-8")
    (RUN / "params.yaml").write_text("train: {max_lr: 0.003, init_from: null}\n", encoding="utf-8")
    (RUN / "metrics.json").write_text('{"val": {"loss": 0.25}, "test_acc": 0.9, "step": 4}', encoding="utf-8")
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
    (RUN / "lineage.json").write_text(json.dumps(facts), encoding="utf-8")
    return server.client()


def history(client: MlflowClient, run_id: str) -> list[tuple[int, int]]:
    """Return time and step of each point of the curve."""
    return [(point.timestamp, point.step) for point in client.get_metric_history(run_id, "val/loss")]


def test_sync_twice_has_everything_once(client: MlflowClient) -> None:
    run_id = sync(RUN)
    assert sync(RUN) == run_id
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
    assert sync(RUN) == run.info.run_id
    assert sorted(history(client, run.info.run_id)) == [(time, step) for time, step, _ in ROWS]


def test_sync_deleted_run_is_reported_and_stays_deleted(client: MlflowClient) -> None:
    client.delete_run(sync(RUN))
    with pytest.raises(ProjectError, match="mlflow runs restore"):
        sync(RUN)
    with pytest.raises(ProjectError, match="was deleted in MLflow"):
        find(client, "abc123")


def test_sync_without_a_run_says_what_makes_one(client: MlflowClient) -> None:
    with pytest.raises(ProjectError, match="dvc repro train"):
        sync(Path("elsewhere"))

"""Metrics of the stages before and after the training, on its run in MLflow."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlops.errors import ProjectError
from mlops.files import write_json
from mlops.tracking import lineage_log, mlflow_client, mlflow_reader, mlflow_sync, stage_metrics, sync_status, uploader
from mlops.tracking.lineage_log import KnownRun
from mlops.tracking.run_files import LINEAGE

from .conftest import Run, commit_all

FILES = {
    "dvc.yaml": """\
stages:
  prepare:
    cmd: cp prepared.json reports/prepare.json
    deps: [prepared.json]
    metrics: [reports/prepare.json: {cache: false}]
  train:
    cmd: cp code.txt model && cp run.json reports/run.json
    deps: [code.txt, reports/prepare.json]
    outs: [model]
    metrics: [reports/run.json: {cache: false}]
  evaluate:
    cmd: cp scores.yaml reports/scores.yaml && cp model half
    deps: [model]
    outs: [half]
    metrics: [reports/scores.yaml]
  late:
    cmd: cp late.json reports/late.json
    deps: [half]
    metrics: [reports/late.json: {cache: false}]
""",
    "prepared.json": '{"records": 3, "by": {"a": 1, "b": 0.5}, "done": true, "note": "x", "counts": [1]}',
    "code.txt": "1\n",
    "run.json": '{"run": "abc123"}\n',
    "scores.yaml": "test: {acc@5: 0.5}\n",
    "late.json": '{"share": 0.5}',
    ".gitignore": "/mlflow.db*\n/site\n/run_id\n/platform.yaml\n/data\n/reports/manifest.json\n",
}
AFTER = {"evaluate.test.acc@5": 0.5, "late.share": 0.5}


@pytest.fixture(scope="session")
def prepared_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that ran, to copy."""
    return tmp_path_factory.mktemp("pipeline") / "project"


@pytest.fixture
def pipeline(prepared_pipeline: Path, client: MlflowClient, run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of the pipeline; MLflow, whose id of its run is in `run_id`, has the end of its training."""
    work = Path.cwd()
    if not prepared_pipeline.exists():
        (prepared_pipeline / "reports").mkdir(parents=True)
        for name, text in FILES.items():
            (prepared_pipeline / name).write_text(text, encoding="utf-8")
        monkeypatch.chdir(prepared_pipeline)
        run("git", "init", "--quiet", "--initial-branch=main")
        run("dvc", "init", "--quiet")
        run("dvc", "repro", "--quiet")
        commit_all(run)
        monkeypatch.chdir(work)
    shutil.copytree(prepared_pipeline, work, dirs_exist_ok=True)
    made = client.create_run(mlflow_client.experiment_id(client, "demo"), tags={"mirror_id": "abc123"})
    client.set_terminated(made.info.run_id, end_time=1_800_000_000_000)
    Path("run_id").write_text(made.info.run_id, encoding="utf-8")
    return run("git", "rev-parse", "HEAD")


def points(client: MlflowClient, name: str) -> list[tuple[int, int, float]]:
    history = client.get_metric_history(Path("run_id").read_text(encoding="utf-8"), name)
    return sorted((point.timestamp, point.step, point.value) for point in history)


def test_read_takes_the_numbers(pipeline: str) -> None:
    assert stage_metrics.read(["prepare"]) == {"prepare.records": 3, "prepare.by.a": 1, "prepare.by.b": 0.5}


def test_read_of_a_damaged_file_is_reported(pipeline: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("reports/prepare.json").write_text("{", encoding="utf-8")
    assert stage_metrics.read(["prepare"]) == {}
    assert "reports/prepare.json, metrics of prepare, can't be read" in caplog.text


def test_read_after_training_leaves_out_what_measured_another_run(pipeline: str, run: Run) -> None:
    assert stage_metrics.read_after_training(pipeline) == AFTER
    Path("code.txt").write_text("2\n", encoding="utf-8")
    run("dvc", "repro", "--quiet", "train")
    assert stage_metrics.read_after_training(commit_all(run)) == {}, "not evaluated yet, and so all after it"
    run("dvc", "repro", "--quiet")
    assert stage_metrics.read_after_training(commit_all(run)) == AFTER


def test_send_each_value_is_one_point(pipeline: str, client: MlflowClient) -> None:
    for score in ("0.5", "0.5", "0.25", "0.5", "0.5"):
        Path("reports/scores.yaml").write_text(f"test: {{acc@5: {score}}}\n", encoding="utf-8")
        stage_metrics.send("evaluate")
    end = 1_800_000_000_000
    assert points(client, "evaluate.test.acc_5") == [(end, 0, 0.5), (end, 1, 0.25), (end, 2, 0.5)]
    assert uploader.waiting_stage_metrics() == []


def test_send_of_a_stage_before_the_training_or_of_itself_does_nothing(pipeline: str, client: MlflowClient) -> None:
    for stage in ("prepare", "train"):
        stage_metrics.send(stage)
    assert client.get_run(Path("run_id").read_text(encoding="utf-8")).data.metrics == {}


def test_send_while_mlflow_is_away_waits_in_the_outbox(
    pipeline: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        stage_metrics.send("evaluate")
        stage_metrics.send("late")
    assert "MLflow lacks the metrics of evaluate" in caplog.text
    monkeypatch.setattr(lineage_log, "runs", lambda: {"abc123": KnownRun("abc123", "gouty-fifo")})
    client = mlflow_client.client()
    missing = sync_status.missing(mlflow_reader.connect(), sync_status.known())["abc123"]
    assert (missing.state, missing.lacks) == ("sync", "metrics of stages after the training")
    assert uploader.upload_all() == [Path("run_id").read_text(encoding="utf-8")]
    assert [value for _, _, value in points(client, "evaluate.test.acc_5")] == [0.5]
    assert [value for _, _, value in points(client, "late.share")] == [0.5]
    assert sync_status.missing(mlflow_reader.connect(), sync_status.known()) == {}


def test_send_before_mlflow_has_the_end_of_the_training_waits(pipeline: str, client: MlflowClient) -> None:
    run_id = Path("run_id").read_text(encoding="utf-8")
    client.set_terminated(run_id, "RUNNING")
    stage_metrics.send("late")
    assert uploader.waiting_stage_metrics() == ["abc123"]
    with pytest.raises(ProjectError, match="mirror repair"):
        uploader.upload_all()
    client.set_terminated(run_id, "FINISHED")
    uploader.upload_all()
    assert client.get_run(run_id).data.metrics == {"late.share": 0.5}


def test_send_to_a_run_that_a_person_deleted_is_given_up(
    pipeline: str, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.delete_run(Path("run_id").read_text(encoding="utf-8"))
    stage_metrics.send("late")
    assert "was deleted in MLflow, so the metrics of late are not sent" in caplog.text
    uploader.stage_metrics("abc123", {"late.share": 0.5})
    with caplog.at_level(logging.WARNING):
        assert uploader.upload_all() == []
    assert "To drop them: rm -r" in caplog.text


def test_sync_metrics_of_earlier_stages_are_there_from_the_start(client: MlflowClient, facts: dict[str, Any]) -> None:
    write_json(LINEAGE, {**facts, "stage_metrics": {"prepare.records": 3.0, "prepare.acc@5": float("inf")}})
    mirror = mlflow_sync.Mirror(Path(), client)
    for _ in range(2):
        mirror.push()
    (point,) = client.get_metric_history(mirror.run_id, "prepare.records")
    assert (point.value, point.step, point.timestamp) == (3, 0, client.get_run(mirror.run_id).info.start_time)
    mlflow_sync.Mirror(Path(), client).finish()
    assert len(client.get_metric_history(mirror.run_id, "prepare.acc_5")) == 1
    assert json.loads(LINEAGE.read_text(encoding="utf-8"))["stage_metrics"]


def test_read_of_a_stage_in_another_dvc_yaml_has_its_metrics(pipeline: str) -> None:
    Path("sub").mkdir()
    text = "stages: {early: {cmd: x, wdir: .., metrics: [late.json: {cache: false}]}}\n"
    Path("sub/dvc.yaml").write_text(text, encoding="utf-8")
    assert stage_metrics.read(["sub/dvc.yaml:early"]) == {"sub/dvc.yaml:early.share": 0.5}

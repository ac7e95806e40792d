"""Copying a run to MLflow: everything once, however often, and from wherever it stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlops.errors import ProjectError
from mlops.tracking import mlflow_client
from mlops.tracking import mlflow_sync as module
from mlops.tracking.mlflow_sync import Mirror, RunDeletedError, find, sync
from mlops.tracking.run_files import FACTS, LINEAGE, RUN_DIR

ROWS = [(1_700_000_000_000 + step, step, value) for step, value in enumerate(("0.5", "nan", "inf", "-inf", "0.25"))]
CURVE = RUN_DIR / "plots" / "metrics" / "val" / "loss.tsv"


@pytest.fixture
def ended(client: MlflowClient, facts: dict[str, Any]) -> MlflowClient:
    """The MLflow of a project with one ended run on disk."""
    CURVE.parent.mkdir(parents=True)
    append(ROWS, header="timestamp\tstep\tloss\n")
    (RUN_DIR / "params.yaml").write_text("train: {max_lr: 0.003, init_from: null}\n", encoding="utf-8")
    (RUN_DIR / "metrics.json").write_text('{"val": {"loss": 0.25}, "test_acc": 0.9, "step": 4}', encoding="utf-8")
    write_facts({**facts, "ended_at": "2026-01-01T00:01:00.000+00:00", "status": "FINISHED"})
    return client


def append(rows: list[tuple[int, int, str]], header: str = "") -> None:
    with CURVE.open("a", encoding="utf-8", newline="") as file:
        file.write(header + "".join(f"{time}\t{step}\t{value}\n" for time, step, value in rows))


def write_facts(facts: dict[str, Any]) -> None:
    LINEAGE.write_text(json.dumps(facts), encoding="utf-8")


def history(client: MlflowClient, run_id: str) -> list[tuple[int, int]]:
    """Return time and step of each point of the curve."""
    return sorted((point.timestamp, point.step) for point in client.get_metric_history(run_id, "val/loss"))


def test_sync_twice_has_everything_once(ended: MlflowClient) -> None:
    run_id = sync()
    assert sync() == run_id
    assert history(ended, run_id) == [(time, step) for time, step, _ in ROWS]
    run = ended.get_run(run_id)
    assert run.info.run_name == "gouty-fifo"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 60_000
    assert run.data.params["train.max_lr"] == "0.003"
    assert run.data.params["parents"] == "[]"
    assert run.data.metrics["test_acc"] == 0.9
    assert run.inputs
    assert run.inputs.dataset_inputs[0].dataset.name == "demo-x"
    assert run.data.tags["mlflow.user"] == "Ada"
    assert run.data.tags["mlflow.source.git.commit"] == "x"
    assert run.data.tags["baseline_commit"] == "y"


def test_sync_params_are_what_made_the_run_and_the_rest_are_tags(ended: MlflowClient, facts: dict[str, Any]) -> None:
    write_facts({**facts, "cpu_capability": "AVX2", "environment_differences": ["torch 2.0"], "status": "FINISHED"})
    data = ended.get_run(sync()).data
    assert data.params.keys() == {"train.max_lr", "train.init_from", *FACTS}
    names = ("consent_excluded", "cpu_capability", "environment_differences", "git_remote_url", "dvc_remote_url")
    assert [data.tags[name] for name in names] == ["0", "AVX2", '["torch 2.0"]', "x", "x"]


def test_sync_rest_of_a_run_that_an_earlier_version_began_with_facts_as_params(ended: MlflowClient) -> None:
    """Then, all facts were params; these stay, and the tags come."""
    run_id = ended.create_run(mlflow_client.experiment_id(ended, "demo"), tags={"mirror_id": "abc123"}).info.run_id
    ended.log_batch(run_id, params=[Param(name, "x") for name in (*FACTS[:-1], "dvc_exp_name", "cpu_capability")])
    assert sync() == run_id
    data = ended.get_run(run_id).data
    assert (data.params["cpu_capability"], data.tags["cpu_capability"]) == ("x", "x")
    assert data.params["parents"] == "[]"
    assert [tag for tag in data.tags if tag.startswith("param_changed")] == []


def test_sync_after_a_stop_in_the_middle_sends_only_what_lacks(ended: MlflowClient) -> None:
    run = ended.create_run(mlflow_client.experiment_id(ended, "demo"), tags={"mirror_id": "abc123"})
    sent = [Metric("val/loss", float(value), time, step) for time, step, value in ROWS[:4]]
    ended.log_batch(run.info.run_id, metrics=sent)
    assert sync() == run.info.run_id
    assert history(ended, run.info.run_id) == [(time, step) for time, step, _ in ROWS]


def test_sync_run_that_was_killed_ends_as_failed_when_its_last_row_was_written(
    ended: MlflowClient, facts: dict[str, Any]
) -> None:
    write_facts(facts)
    info = ended.get_run(sync()).info
    assert info.status == "FAILED"
    assert abs(info.end_time - CURVE.stat().st_mtime * 1000) < 2


def test_sync_deleted_run_is_reported_and_stays_deleted(ended: MlflowClient) -> None:
    run_id = sync()
    ended.delete_run(run_id)
    restore = rf"MLFLOW_TRACKING_URI=sqlite:///\S+ mlflow runs restore --run-id {run_id}$"
    with pytest.raises(RunDeletedError, match=rf"run abc123 was deleted in MLflow\nFix: to have it back: {restore}"):
        sync()
    with pytest.raises(RunDeletedError, match="was deleted in MLflow"):
        find(ended, "abc123", "demo")


def test_sync_without_a_run_says_what_makes_one(client: MlflowClient) -> None:
    with pytest.raises(ProjectError, match="dvc repro train"):
        sync(Path("elsewhere"))


def test_sync_manifest_of_another_run_is_refused(ended: MlflowClient) -> None:
    Path("reports/manifest.json").write_text('{"sha256": ["y"]}', encoding="utf-8")
    with pytest.raises(ProjectError, match=r"git restore --source x reports/manifest\.json && dvc get"):
        sync()


class Unreliable:
    """A connection whose next batches fail as planned: `lost` before MLflow has them, `reply lost` after."""

    def __init__(self, client: MlflowClient, plan: list[str]) -> None:
        self._client, self._plan = client, plan
        self.applied = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def log_batch(self, run_id: str, metrics: Any = (), **other: Any) -> None:
        now = self._plan.pop(0) if metrics and self._plan else "well"
        if now == "lost":
            raise ConnectionError(now)
        self._client.log_batch(run_id, metrics=metrics, **other)
        self.applied += len(metrics)
        if now == "reply lost":
            raise ConnectionError(now)


@pytest.mark.parametrize("batch", [2, 1000])
def test_push_rows_while_replies_are_lost_sends_each_point_once(
    ended: MlflowClient, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(module, "BATCH", batch)
    unreliable = Unreliable(ended, ["well", "lost", "reply lost", "well", "reply lost", "reply lost"])
    mirror = Mirror(Path(), unreliable)  # type: ignore[arg-type]
    rows = list(ROWS)
    for step in range(5, 40, 5):
        new = [(ROWS[0][0] + row, row, str(step)) for row in range(step, step + 5)]
        append(new)
        rows += new
        try:
            mirror.push()
        except ConnectionError:
            continue
    mirror.finish()
    assert history(ended, mirror.run_id) == [(time, step) for time, step, _ in rows]
    assert unreliable.applied == len(rows) + 1  # and test_acc


def test_push_names_and_values_that_mlflow_refuses_arrive_in_another_form(ended: MlflowClient) -> None:
    folder = CURVE.parent
    (folder / "acc@5.tsv").write_text("timestamp\tstep\tacc@5\n1700000000000\t0\t0.5\n", encoding="utf-8")
    (folder / "phase.tsv").write_text("step\tphase\n0\twarm up\n1\tmain\n", encoding="utf-8")
    (RUN_DIR / "params.yaml").write_text(f"train: [{'1, ' * 5000} 2]\n", encoding="utf-8")
    run = ended.get_run(sync())
    assert run.data.metrics["val/acc_5"] == 0.5
    assert run.data.tags["metric.val/phase"] == "main"
    assert run.data.params["train"].endswith("characters)")


def test_push_param_that_changes_is_told_beside_the_first_value(ended: MlflowClient) -> None:
    mirror = Mirror(Path(), ended)
    mirror.push()
    (RUN_DIR / "params.yaml").write_text("train: {max_lr: 0.1}\n", encoding="utf-8")
    mirror.push()
    data = ended.get_run(mirror.run_id).data
    assert data.params["train.max_lr"] == "0.003"
    assert data.tags["param_changed.train.max_lr"] == "0.1"


def test_tracking_uri_relative_path_is_refused(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with pytest.raises(ProjectError, match="relative path"):
        mlflow_client.tracking_uri()

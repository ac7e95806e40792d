"""What an MLflow holds of a project, without MLflow's own ids: to compare one with another."""

import hashlib
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run, ViewType

OWN = ("MLmodel", "registered_model_meta")  # files of a logged model that hold ids and times


def state(uri: str, name: str) -> dict[str, Any]:
    """Return runs, registered versions and aliases of the project `name`, in a form that can be compared."""
    mlflow.set_tracking_uri(uri)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    all_runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    runs = {run.info.run_id: run for run in all_runs}
    return {
        "runs": {_mirror_id(run): _run(client, run) for run in all_runs},
        "versions": {
            int(version.version): {
                "tags": version.tags,
                "run": _mirror_id(runs[version.run_id]),
                "status": version.status,
                "model": _model(client, str(version.source).removeprefix("models:/"), str(version.run_id)),
            }
            for version in client.search_model_versions(f"name = '{name}'")
        },
        "aliases": {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()},
    }


def _mirror_id(run: Run) -> str:
    return str(run.data.tags["mirror_id"])


def _run(client: MlflowClient, run: Run) -> dict[str, Any]:
    info = run.info
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.log-model")}
    return {
        "info": (info.run_name, info.status, info.start_time, info.end_time, info.lifecycle_stage, info.user_id),
        "params": run.data.params,
        "tags": tags,
        "last": {name: repr(value) for name, value in run.data.metrics.items()},
        "points": {name: _points(client, info.run_id, name) for name in run.data.metrics},
        "inputs": [
            ({tag.key: tag.value for tag in dataset_input.tags}, dataset_input.dataset.to_dictionary())
            for dataset_input in (run.inputs.dataset_inputs if run.inputs else [])
        ],
        "models": len(run.outputs.model_outputs) if run.outputs else 0,
        "files": _files(f"runs:/{info.run_id}/"),
    }


def _points(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, int, str]]:
    return sorted((point.timestamp, point.step, repr(point.value)) for point in client.get_metric_history(run_id, name))


def _files(uri: str) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        download_artifacts(uri, dst_path=folder)
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in Path(folder).rglob("*")
            if path.is_file() and path.name not in OWN
        }


def _model(client: MlflowClient, model_id: str, run_id: str) -> dict[str, Any]:
    model = client.get_logged_model(model_id)
    return {
        "name": model.name,
        "run": model.source_run_id == run_id,
        "status": str(model.status),
        "params": model.params,
        "metrics": sorted((measured.key, measured.step, repr(measured.value)) for measured in model.metrics or []),
        "files": _files(f"models:/{model_id}"),
    }


def show(known: dict[str, Any]) -> str:
    """Return a state as text whose differences a person can read."""
    return json.dumps(known, indent=1, sort_keys=True, default=str)

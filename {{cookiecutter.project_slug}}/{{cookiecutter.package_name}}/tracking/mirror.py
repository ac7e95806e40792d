"""Copy a run's files to MLflow. DVC's files are the truth, MLflow is a mirror: copying again changes nothing.

python -m <package> mirror sync
"""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..files import read_json
from ..settings import PACKAGE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

RUN_DIR = Path("reports/train")
MIRROR_ID = "mirror_id"  # the tag by which a run is found: MLflow's own id never enters a DVC output
BATCH = 1000  # points in one request: MLflow's limit
PARAMS_BATCH = 100
ENDED = ("FINISHED", "FAILED", "KILLED")
FACTS = (
    "data_git_commit_id",
    "git_remote_url",
    "dataset_md5",
    "data_version",
    "manifest_sha256",
    "consent_sha256",
    "dvc_exp_name",
    "dvc_remote_url",
    "parents",
    "cpu_capability",
    "environment_differences",
)
ARTIFACTS = ("data/manifest.parquet", "reports/manifest.json", "reports/confusion.csv", "reports/per_class.csv")


def sync(root: Path = Path()) -> str:
    """Send to MLflow what it lacks of the run in `reports/train`.

    Args:
        root: The work tree, or the folder of a run that was kept.

    Returns:
        MLflow's id of the run.

    Raises:
        ProjectError: There is no run, MLflow can't be reached, a person deleted the run there, or the manifest in the
            work tree is another run's.
    """
    from . import server

    facts = read_facts(root)
    with server.answering(f"python -m {PACKAGE} mirror sync"):
        client = server.client()
        run_id = find(client, facts["run"]) or _create(client, facts)
        if client.get_run(run_id).info.status not in ENDED:  # the status is set last: then nothing is missing
            _check_manifest(root, facts)
            _send(client, run_id, root, facts)
    return run_id


def read_facts(root: Path = Path()) -> dict[str, Any]:
    """Read the identity of the run below `root` and what it was made from.

    Raises:
        ProjectError: There is no run.
    """
    try:
        facts: dict[str, Any] = read_json(root / RUN_DIR / "lineage.json")
    except FileNotFoundError as error:
        raise ProjectError(f"there is no run in {root / RUN_DIR}", "dvc repro train, or dvc pull train") from error
    return facts


def _check_manifest(root: Path, facts: dict[str, Any]) -> None:
    report = root / "reports" / "manifest.json"
    if not report.exists() or read_json(report)["sha256"] != [facts["manifest_sha256"]]:
        raise ProjectError(
            f"data/manifest.parquet is not the one of run {facts['run']}",
            f"git checkout {facts['data_git_commit_id']} -- dvc.lock reports/manifest.json && dvc checkout manifest",
        )


def find(client: "MlflowClient", run: str) -> str | None:
    """Return MLflow's id of the run whose tag `mirror_id` is `run`, or None.

    Raises:
        ProjectError: A person deleted it; it is not brought back behind their back.
    """
    from mlflow.entities import ViewType

    from .server import experiment_id

    query = f"tags.{MIRROR_ID} = '{run}'"
    found = client.search_runs([experiment_id(client)], query, run_view_type=ViewType.ALL, max_results=1)
    if not found:
        return None
    info = found[0].info
    if info.lifecycle_stage == "deleted":
        raise ProjectError(
            f"run {run} was deleted in MLflow", f"to have it back: mlflow runs restore --run-id {info.run_id}"
        )
    return str(info.run_id)


def _create(client: "MlflowClient", facts: dict[str, Any]) -> str:
    from .server import experiment_id

    tags = {
        MIRROR_ID: facts["run"],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "dvc.yaml: train",
        "mlflow.source.git.commit": facts["data_git_commit_id"],
        "mlflow.source.git.branch": facts["git_branch"],
        "mlflow.source.git.repoURL": facts["git_remote_url"],
    }
    run = client.create_run(
        experiment_id(client),
        start_time=milliseconds(facts["started_at"]),
        run_name=facts["name"],
        tags={key: value for key, value in tags.items() if value},
    )
    return str(run.info.run_id)


def _send(client: "MlflowClient", run_id: str, root: Path, facts: dict[str, Any]) -> None:
    run_dir = root / RUN_DIR
    _send_metrics(client, run_id, run_dir, facts)
    _send_params(client, run_id, run_dir, facts)
    _send_dataset(client, run_id, facts)
    _send_files(client, run_id, root)
    client.set_terminated(run_id, facts["status"], milliseconds(facts["ended_at"]))


def _send_metrics(client: "MlflowClient", run_id: str, run_dir: Path, facts: dict[str, Any]) -> None:
    points = list(_points(run_dir, milliseconds(facts["ended_at"])))
    have = {
        _identity(point) for key in {point.key for point in points} for point in client.get_metric_history(run_id, key)
    }
    new = [point for point in points if _identity(point) not in have]
    for start in range(0, len(new), BATCH):
        client.log_batch(run_id, metrics=new[start : start + BATCH])


def _identity(point: "Metric") -> tuple[str, int, int, str]:
    # Stores give infinity back as the largest number, and NaN is not equal to itself.
    limit = sys.float_info.max
    return point.key, point.timestamp, point.step, repr(max(min(point.value, limit), -limit))


def _points(run_dir: Path, ended_ms: int) -> Iterator["Metric"]:
    """Read the curves from DVCLive's TSV files, and the final figures from its summary."""
    from mlflow.entities import Metric

    curves = run_dir / "plots" / "metrics"
    names = set()
    for path in sorted(curves.rglob("*.tsv")):
        name = path.relative_to(curves).with_suffix("").as_posix()
        names.add(name)
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                yield Metric(name, float(row[path.stem]), int(row["timestamp"]), int(row["step"]))
    summary = read_json(run_dir / "metrics.json") if (run_dir / "metrics.json").exists() else {}
    for name, value in _flat(summary):
        if name != "step" and name not in names and isinstance(value, int | float):
            yield Metric(name, float(value), ended_ms, 0)


def _send_params(client: "MlflowClient", run_id: str, run_dir: Path, facts: dict[str, Any]) -> None:
    from mlflow.entities import Param
    from ruamel.yaml import YAML

    told = YAML(typ="safe").load((run_dir / "params.yaml").read_text(encoding="utf-8"))
    values = {name.replace("/", "."): value for name, value in _flat(told)}
    values |= {name: facts[name] for name in FACTS}
    have = client.get_run(run_id).data.params  # params are write-once in MLflow
    new = [Param(name, _text(value)) for name, value in values.items() if name not in have]
    for start in range(0, len(new), PARAMS_BATCH):
        client.log_batch(run_id, params=new[start : start + PARAMS_BATCH])


def _send_dataset(client: "MlflowClient", run_id: str, facts: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    from .dataset import DvcDatasetSource

    inputs = client.get_run(run_id).inputs
    if inputs and inputs.dataset_inputs:
        return
    source = DvcDatasetSource(
        facts["git_remote_url"], facts["data_git_commit_id"], facts["dataset_path"], facts["dvc_remote_url"]
    )
    shown = Dataset(f"dataset-{facts['data_version']}", facts["dataset_md5"], "dvc", source.to_json())
    # The tags say in plain words what only this project's code can read from the source.
    tags = {"mlflow.data.context": "training", **source.to_dict(), "manifest_sha256": facts["manifest_sha256"]}
    client.log_inputs(run_id, [DatasetInput(shown, [InputTag(key, value) for key, value in tags.items() if value])])


def _send_files(client: "MlflowClient", run_id: str, root: Path) -> None:
    for name in ARTIFACTS:
        if (root / name).exists():
            client.log_artifact(run_id, str(root / name), Path(name).parent.as_posix())
    if (root / RUN_DIR / "plots").is_dir():
        client.log_artifacts(run_id, str(root / RUN_DIR / "plots"), "plots")
    client.log_artifact(run_id, str(root / RUN_DIR / "lineage.json"))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def milliseconds(moment: str) -> int:
    """Return an ISO 8601 time as MLflow wants it: milliseconds since 1970 UTC."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)

"""What is registered: `registry list`, and all of one version: `registry show`. Both need MLflow to answer."""

import dataclasses
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from ..errors import ProjectError
from ..tracking import mlflow_client
from ..tracking.git import GitError, git
from .aliases import RETRY, TAG, Registry
from .git_tags import releases
from .versions import TAG_MODEL_VERSION

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def metrics_at(commit: str) -> dict[str, float]:
    """Return what `reports/metrics.json` holds at a commit; nothing when this clone or Git lacks it."""
    try:
        # Without a commit, Git would show what is staged.
        found: dict[str, float] = json.loads(git("show", f"{commit}:./reports/metrics.json")) if commit else {}
    except GitError:
        return {}
    return found


def rows(registry: Registry) -> list[dict[str, Any]]:
    """Return what `registry list` tells of each version, the newest first."""
    import mlflow
    from mlflow.entities import ViewType

    made = f"tags.{TAG_MODEL_VERSION} LIKE '{registry.name}/%'"
    with mlflow_client.translate_errors(RETRY):
        runs = mlflow.search_runs([], made, ViewType.ALL, output_format="list", experiment_names=[registry.name])
    params = {run.info.run_id: run.data.params for run in runs}
    return [
        {
            "version": number,
            "aliases": sorted(alias for alias, target in registry.aliases.items() if target == number),
            "run": version.tags.get("run", ""),
            "experiment": params.get(version.run_id, {}).get("dvc_exp_name", ""),
            "data_version": params.get(version.run_id, {}).get("data_version", ""),
            "metrics": metrics_at(version.tags.get("result_commit", "")),
            "commit": version.tags.get("result_commit", ""),
            "registered": f"{datetime.fromtimestamp(version.creation_timestamp / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        for number, version in reversed(registry.versions.items())
    ]


def doubts(registry: Registry) -> list[str]:
    """Return why what MLflow has may not be all: versions that it lost, aliases that the log doesn't tell of."""
    lost = [str(number) for number in releases() if number not in registry.versions]
    lines = [f"MLflow lacks version {', '.join(lost)}: python -m mlops mirror status"] if lost else []
    try:
        registry.check_agrees()
    except ProjectError as error:
        lines.append(f"{error.problem}\nFix: {error.fix}")
    return lines


def table(listed: list[dict[str, Any]]) -> str:
    """Lay rows out for people, a metric a column."""
    names = dict.fromkeys(name for row in listed for name in row["metrics"])
    columns = ["version", "aliases", "run", "experiment", "data_version", *names, "commit", "registered"]
    flat = [{**row, **row["metrics"], "commit": row["commit"][:10]} for row in listed]
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in flat)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def detail(registry: Registry, version: "ModelVersion") -> dict[str, Any]:
    """Return all that is known of one version: its row, its tags in MLflow, its moves in the log."""
    number = int(version.version)
    row = next(row for row in rows(registry) if row["version"] == number)
    tags = {key: value for key, value in sorted(version.tags.items()) if not key.startswith(TAG)}
    history = [dataclasses.asdict(move) for move in registry.log if number in (move.version, move.before)]
    return {**row, "tags": tags, "moves": history}


def page(shown: dict[str, Any]) -> str:
    """Lay `detail` out for people, as YAML."""
    text = io.StringIO()
    YAML().dump(shown, text)
    return text.getvalue()


def _cell(value: Any) -> str:
    return "-" if value in (None, "", []) else " ".join(value) if isinstance(value, list) else str(value)

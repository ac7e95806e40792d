"""The metrics of registered versions: from the commit that a version names, and from its run in MLflow."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import read_json
from ..tracking import server
from ..tracking.git import GitError, git
from .aliases import RETRY

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

METRICS_PATH = Path("reports/metrics.json")
COMMIT = "result_commit"
CHUNK = 100  # runs in one request


def committed(commit: str) -> dict[str, float]:
    """Return what `reports/metrics.json` holds at a commit; nothing when it is not there, or not kept in Git."""
    try:
        found: dict[str, float] = json.loads(git("show", f"{commit}:./{METRICS_PATH.as_posix()}"))
    except GitError:
        return {}
    return found


def names(versions: "list[ModelVersion]") -> list[str]:
    """Return the names of the metrics that people look at, rather than points of a curve.

    From the work tree, or from the first of the versions whose commit this clone has.
    """
    if METRICS_PATH.exists():
        return list(read_json(METRICS_PATH))
    return list(next(filter(None, (committed(one.tags.get(COMMIT, "")) for one in versions)), {}))


def runs(versions: "list[ModelVersion]") -> "dict[str, Run]":
    """Return MLflow's runs of versions, also deleted ones, by MLflow's id.

    Raises:
        ProjectError: MLflow can't be reached.
    """
    from mlflow.entities import ViewType

    ids = sorted({one.run_id for one in versions if one.run_id})
    found: dict[str, Run] = {}
    with server.answering(RETRY):
        client = server.client()
        experiments = [str(one.experiment_id) for one in client.search_experiments(view_type=ViewType.ALL)]
        for start in range(0, len(ids), CHUNK):
            listed = ", ".join(f"'{one}'" for one in ids[start : start + CHUNK])
            query = f"attributes.run_id IN ({listed})"
            found |= {run.info.run_id: run for run in client.search_runs(experiments, query, ViewType.ALL, CHUNK)}
    return found

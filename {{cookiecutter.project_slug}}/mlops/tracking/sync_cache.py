"""Ask MLflow which of thousands of runs it has whole, in seconds.

MLflow answers a search with all params, tags and metrics of each run: 10,000 runs are 58 MB. So the ids of runs that
were seen whole are kept, a file that can be deleted at any time, and MLflow is asked to count those: it sends one run
for a thousand. Only runs that are new here, or not whole any more, are read.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config import home, load_platform
from ..errors import ProjectError
from ..files import read_json, write_json
from .mlflow_client import pages, tracking_uri
from .mlflow_sync import ENDED, MIRROR_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient

COUNTED = 1000  # ids in one question; MLflow's parser takes no more than a few thousand
PAGE = 1000  # runs; a busy server takes 5 s for them, and a request has 20
FEW = 300  # that are asked for one by one; more, and reading all there are is quicker
WHOLE = "attributes.status != 'RUNNING' and attributes.status != 'SCHEDULED'"

Search = Callable[..., Any]


@dataclass(frozen=True)
class MlflowRunState:
    """A run in MLflow."""

    run_id: str  # MLflow's id
    whole: bool  # whether it has its end: that is sent last
    deleted: bool  # whether a person deleted it


def fetch_states(client: "MlflowClient", runs: Iterable[str]) -> dict[str, MlflowRunState]:
    """Return those of `runs` that MLflow has.

    Raises:
        ProjectError: A person deleted the project's MLflow experiment.
    """
    experiment = client.get_experiment_by_name(load_platform().project)
    if experiment is None:
        return {}
    if experiment.lifecycle_stage == "deleted":
        raise ProjectError(
            f"the MLflow experiment {experiment.name} was deleted at {tracking_uri()}",
            f"to have it back: mlflow experiments restore --experiment-id {experiment.experiment_id}",
        )
    # By a digest: there may be a password in the address.
    server = hashlib.sha256(f"{tracking_uri()} {experiment.experiment_id}".encode()).hexdigest()[:12]
    path = home() / ".dvc" / "tmp" / "mirrored" / f"{server}.json"
    kept: dict[str, str] = read_json(path) if path.exists() else {}
    found = _find(partial(client.search_runs, [experiment.experiment_id]), set(runs), kept)
    write_json(path, {run: one.run_id for run, one in found.items() if one.whole and not one.deleted})
    return found


def _find(search: Search, runs: set[str], kept: dict[str, str]) -> dict[str, MlflowRunState]:
    found: dict[str, MlflowRunState] = {}
    seen = sorted(runs & kept.keys())
    for start in range(0, len(seen), COUNTED):
        some = {run: kept[run] for run in seen[start : start + COUNTED]}
        query = f"attributes.run_id IN ({','.join(repr(run_id) for run_id in some.values())})"
        if _count_is(search, f"{query} and {WHOLE}", len(some)):
            found |= {run: MlflowRunState(run_id, whole=True, deleted=False) for run, run_id in some.items()}
        else:
            found |= {run: one for run, one in _read(search, query) if run in some and not one.deleted}
    rest = runs - found.keys()
    if len(rest) > FEW:
        return found | {run: one for run, one in _read(search, "") if run in rest}
    return found | {run: one for asked in rest for run, one in _read(search, f"tags.{MIRROR_ID} = '{asked}'")}


def _count_is(search: Search, query: str, number: int) -> bool:
    """Return whether exactly so many runs match: there is a last one, and none after it."""
    from mlflow.utils.search_utils import SearchUtils

    def after(skipped: int) -> Any:
        # MLflow's token of the page after so many runs; a server with tokens of another kind refuses it, and says so.
        token: bytes = SearchUtils.create_page_token(skipped)  # type: ignore[no-untyped-call]
        return search(query, max_results=1, page_token=token.decode() if skipped else None)

    return bool(after(number - 1)) and not after(number)


def _read(search: Search, query: str) -> list[tuple[str, MlflowRunState]]:
    """Return the runs that match; of a run that is there twice, the one that was not deleted is the last."""
    from mlflow.entities import ViewType

    found: list[tuple[str, MlflowRunState]] = []
    order = ["attributes.start_time ASC"]  # a run that begins meanwhile doesn't move the pages
    for run in pages(partial(search, query, ViewType.ALL, PAGE, order)):
        standing = MlflowRunState(run.info.run_id, run.info.status in ENDED, run.info.lifecycle_stage == "deleted")
        found.append((run.data.tags.get(MIRROR_ID, ""), standing))
    return sorted(found, key=lambda one: not one[1].deleted)

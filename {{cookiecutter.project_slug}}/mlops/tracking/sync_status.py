"""What MLflow lacks of the runs that this clone knows: those in the outbox, in the work tree, and in Git's history.

Thousands of runs take seconds. MLflow answers a search with all params, tags and metrics of each run: 10,000 runs are
58 MB. So the ids of runs that were seen complete are cached, in a file that can be deleted at any time, and MLflow is
asked to count those: it sends one run for a thousand. Only runs that are new here, or no longer complete, are read.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..config import home, load_platform
from ..errors import ProjectError
from ..files import read_json, write_json
from . import lineage_log, uploader
from .lineage_log import KnownRun
from .mlflow_client import pages, tracking_uri
from .mlflow_sync import ENDED, MIRROR_ID
from .run_files import LINEAGE, read_facts

if TYPE_CHECKING:
    from mlflow import MlflowClient

SYNC = "python -m mlops mirror sync"
REPAIR = "python -m mlops mirror repair"
STAGE_METRICS = "metrics of stages after the training"
IDS_PER_QUERY = 1000  # MLflow's parser takes no more than a few thousand
PAGE = 1000  # runs; a busy server takes 5 s for them, and a request may take 20
MAX_SINGLE_QUERIES = 300  # runs that are searched one by one; for more, reading all there are is quicker


@dataclass(frozen=True)
class Missing:
    """Something that MLflow lacks."""

    what: str  # `run 3f2a… (gouty-fifo)`, `version 2`, `alias champion`
    # What helps. `training`: nothing, it will come. `deleted`: nothing, a person deleted it.
    state: Literal["training", "deleted", "sync", "repair", "fetch", "impossible"]
    lacks: str  # the missing part
    remedy: str  # a command; or why nothing helps

    @property
    def counts(self) -> bool:
        """Whether MLflow has less than it should."""
        return self.state not in ("training", "deleted")


@dataclass(frozen=True)
class MlflowRunState:
    """A run in MLflow."""

    run_id: str  # MLflow's id
    complete: bool  # whether its end arrived, which is sent last
    deleted: bool  # whether a person deleted it


def known() -> dict[str, KnownRun]:
    """Return the runs that this clone knows of, by id, the oldest first."""
    logged, current = lineage_log.runs(), [read_facts()["run"]] if LINEAGE.exists() else []
    return logged | {run: KnownRun(run, run) for run in (*uploader.waiting(), *current) if run not in logged}


def missing(client: "MlflowClient", runs: dict[str, KnownRun]) -> dict[str, Missing]:
    """Return what MLflow lacks of runs, by their ids, in their order; raises what `fetch_states` does."""
    states = fetch_states(client, runs)
    parts = {run: _missing_part(past, states.get(run)) for run, past in runs.items()}
    return {run: part for run, part in parts.items() if part}


def _missing_part(past: KnownRun, state: MlflowRunState | None) -> Missing | None:
    what = f"run {past.run}" if past.name == past.run else f"run {past.run} ({past.name})"
    lacks, entry = "its end" if state else "everything", uploader.folder() / past.run
    if state and state.deleted:
        restore = f"deleted by a person; to have it back: mlflow runs restore --run-id {state.run_id}"
        return Missing(what, "deleted", "everything", restore)
    if (entry / LINEAGE).exists():
        path = entry / "mirror.log"
        messages = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
        note = f" (its mirror.log ends with: {messages.splitlines()[-1].strip()})" if messages else ""
        if uploader.is_training(past.run):
            return Missing(what, "training", lacks, f"nothing to do: it is training{note}")
        return Missing(what, "sync", lacks, f"{SYNC}{note}")
    if state and state.complete:
        if past.run in uploader.waiting_stage_metrics():
            return Missing(what, "sync", STAGE_METRICS, SYNC)
        return None
    if LINEAGE.exists() and read_facts()["run"] == past.run:
        return Missing(what, "sync", lacks, SYNC)
    if past.commits:
        return Missing(what, "repair", lacks, REPAIR)
    if state:
        return Missing(what, "impossible", lacks, f"its files are not in this clone; where it was trained: {SYNC}")
    reason = "no results in DVC: the training failed, or nobody committed them"
    return Missing(what, "impossible", lacks, f"not repairable: {reason}")


def fetch_states(client: "MlflowClient", runs: Iterable[str]) -> dict[str, MlflowRunState]:
    """Return the states of those of `runs` that MLflow has; raise ProjectError if its experiment was deleted."""
    from mlflow.utils.search_utils import SearchUtils

    experiment = client.get_experiment_by_name(load_platform().project)
    if experiment is None:
        return {}
    if experiment.lifecycle_stage == "deleted":
        fix = f"to have it back: mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise ProjectError(f"the MLflow experiment {experiment.name} was deleted at {tracking_uri()}", fix)
    # A digest: the address may hold a password.
    server = hashlib.sha256(f"{tracking_uri()} {experiment.experiment_id}".encode()).hexdigest()[:12]
    path = home() / ".dvc" / "tmp" / "mirrored" / f"{server}.json"
    cached: dict[str, str] = read_json(path) if path.exists() else {}
    search, wanted = partial(client.search_runs, [experiment.experiment_id]), set(runs)

    def after(skipped: int, query: str) -> Any:
        # MLflow's token of the page after so many runs; a server with tokens of another kind refuses it with an error.
        token: bytes = SearchUtils.create_page_token(skipped)  # type: ignore[no-untyped-call]
        return search(query, max_results=1, page_token=token.decode() if skipped else None)

    states: dict[str, MlflowRunState] = {}
    seen = sorted(wanted & cached.keys())
    for start in range(0, len(seen), IDS_PER_QUERY):
        ids = {run: cached[run] for run in seen[start : start + IDS_PER_QUERY]}
        query = f"attributes.run_id IN ({','.join(repr(run_id) for run_id in ids.values())})"
        complete = f"{query} and attributes.status != 'RUNNING' and attributes.status != 'SCHEDULED'"
        if after(len(ids) - 1, complete) and not after(len(ids), complete):  # just as many: the last, and none after it
            states |= {run: MlflowRunState(run_id, complete=True, deleted=False) for run, run_id in ids.items()}
        else:
            states |= {run: state for run, state in _read(search, query).items() if run in ids and not state.deleted}
    rest = wanted - states.keys()
    for query in [""] if len(rest) > MAX_SINGLE_QUERIES else [f"tags.{MIRROR_ID} = '{run}'" for run in rest]:
        states |= {run: state for run, state in _read(search, query).items() if run in rest}
    write_json(path, {run: state.run_id for run, state in states.items() if state.complete and not state.deleted})
    return states


def _read(search: Callable[..., Any], query: str) -> dict[str, MlflowRunState]:
    """Return the runs that match; of two with one id, the one that was not deleted counts."""
    from mlflow.entities import ViewType

    order = ["attributes.start_time ASC"]  # a run that begins meanwhile doesn't move the pages
    runs = list(pages(partial(search, query, ViewType.ALL, PAGE, order)))
    runs.sort(key=lambda run: run.info.lifecycle_stage == "active")  # of two with one id, the last one counts
    states: dict[str, MlflowRunState] = {}
    for run in runs:
        state = MlflowRunState(run.info.run_id, run.info.status in ENDED, run.info.lifecycle_stage == "deleted")
        states[run.data.tags.get(MIRROR_ID, "")] = state
    return states

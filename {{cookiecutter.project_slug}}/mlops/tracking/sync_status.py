"""What MLflow lacks of the runs that this clone knows: those in the outbox, in the work tree, and in Git's history."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import git_history, sync_cache, upload_queue
from .git_history import KnownRun
from .run_files import LINEAGE, read_facts
from .sync_cache import MlflowRunState

if TYPE_CHECKING:
    from mlflow import MlflowClient

SYNC = "python -m mlops mirror sync"
REPAIR = "python -m mlops mirror repair"


@dataclass(frozen=True)
class Missing:
    """Something that MLflow lacks."""

    what: str  # `run 3f2a… (gouty-fifo)`, `version 2`, `alias champion`
    # What helps. `training`: nothing, it will come. `deleted`: a person wanted it so.
    state: Literal["training", "deleted", "sync", "repair", "fetch", "impossible"]
    lacks: str  # what of it is not there
    remedy: str  # a command; or why nothing helps

    @property
    def counts(self) -> bool:
        """Whether MLflow has less than it should."""
        return self.state not in ("training", "deleted")


def known() -> dict[str, KnownRun]:
    """Return the runs that this clone knows of, by id, the oldest first."""
    found, here = git_history.runs(), [read_facts()["run"]] if LINEAGE.exists() else []
    return found | {run: KnownRun(run, run) for run in (*upload_queue.waiting(), *here) if run not in found}


def missing(client: "MlflowClient", runs: dict[str, KnownRun]) -> dict[str, Missing]:
    """Return what MLflow lacks of runs, by their ids, in their order.

    Raises:
        ProjectError: A person deleted the project's MLflow experiment.
    """
    there = sync_cache.fetch_states(client, runs)
    judged = {run: _judge(past, there.get(run)) for run, past in runs.items()}
    return {run: lack for run, lack in judged.items() if lack}


def _judge(past: KnownRun, there: MlflowRunState | None) -> Missing | None:
    what = f"run {past.run}" if past.name == past.run else f"run {past.run} ({past.name})"
    lacks, entry = "its end" if there else "everything", upload_queue.folder() / past.run
    if there and there.deleted:
        restore = f"deleted by a person; to have it back: mlflow runs restore --run-id {there.run_id}"
        return Missing(what, "deleted", "everything", restore)
    if (entry / LINEAGE).exists():
        told = entry / "mirror.log"
        said = told.read_text(encoding="utf-8", errors="replace").strip() if told.exists() else ""
        said = f" (its mirror said: {said.splitlines()[-1].strip()})" if said else ""
        if upload_queue.is_training(past.run):
            return Missing(what, "training", lacks, f"nothing to do: it is training{said}")
        return Missing(what, "sync", lacks, f"{SYNC}{said}")
    if there and there.whole:
        return None
    if LINEAGE.exists() and read_facts()["run"] == past.run:
        return Missing(what, "sync", lacks, SYNC)
    if past.commits:
        return Missing(what, "repair", lacks, REPAIR)
    if there:
        return Missing(what, "impossible", lacks, f"its files are not in this clone; where it was trained: {SYNC}")
    reason = "no results in DVC: the training failed, or nobody committed them"
    return Missing(what, "impossible", lacks, f"not repairable: {reason}")

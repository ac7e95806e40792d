"""What MLflow lacks of the runs that this clone knows: those in the outbox, in the work tree, and in Git's history."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..settings import PACKAGE
from . import history, outbox, receipts
from .history import PastRun
from .receipts import Standing
from .record import LINEAGE, read_facts

if TYPE_CHECKING:
    from mlflow import MlflowClient

SYNC = f"python -m {PACKAGE} mirror sync"
REPAIR = f"python -m {PACKAGE} mirror repair"


@dataclass(frozen=True)
class Lack:
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


def known() -> dict[str, PastRun]:
    """Return the runs that this clone knows of, by id, the oldest first."""
    found, here = history.runs(), [read_facts()["run"]] if LINEAGE.exists() else []
    return found | {run: PastRun(run, run) for run in (*outbox.waiting(), *here) if run not in found}


def lacking(client: "MlflowClient", runs: dict[str, PastRun]) -> dict[str, Lack]:
    """Return what MLflow lacks of runs, by their ids, in their order.

    Raises:
        ProjectError: A person deleted the project's MLflow experiment.
    """
    there = receipts.look(client, runs)
    judged = {run: _judge(past, there.get(run)) for run, past in runs.items()}
    return {run: lack for run, lack in judged.items() if lack}


def _judge(past: PastRun, there: Standing | None) -> Lack | None:
    what = f"run {past.run}" if past.name == past.run else f"run {past.run} ({past.name})"
    lacks, entry = "its end" if there else "everything", outbox.folder() / past.run
    if there and there.deleted:
        restore = f"deleted by a person; to have it back: mlflow runs restore --run-id {there.run_id}"
        return Lack(what, "deleted", "everything", restore)
    if (entry / LINEAGE).exists():
        told = entry / "mirror.log"
        said = told.read_text(encoding="utf-8", errors="replace").strip() if told.exists() else ""
        said = f" (its mirror said: {said.splitlines()[-1].strip()})" if said else ""
        if outbox.is_training(past.run):
            return Lack(what, "training", lacks, f"nothing to do: it is training{said}")
        return Lack(what, "sync", lacks, f"{SYNC}{said}")
    if there and there.whole:
        return None
    if LINEAGE.exists() and read_facts()["run"] == past.run:
        return Lack(what, "sync", lacks, SYNC)
    if past.commits:
        return Lack(what, "repair", lacks, REPAIR)
    if there:
        return Lack(what, "impossible", lacks, f"its files are not in this clone; where it was trained: {SYNC}")
    reason = "no results in DVC: the training failed, or nobody committed them"
    return Lack(what, "impossible", lacks, f"not repairable: {reason}")

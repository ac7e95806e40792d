"""What MLflow lacks of the runs that this clone knows: those in the outbox, in the work tree, and in Git's history.

python -m <package> mirror status
"""

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
State = Literal["training", "deleted", "sync", "repair", "fetch", "impossible"]


@dataclass(frozen=True)
class Lack:
    """Something that MLflow lacks.

    Args:
        what: `run 3f2a… (gouty-fifo)`, `version 2`, `alias champion`.
        state: What can be done. `training`: nothing, it will come. `deleted`: a person wanted it so.
        lacks: What of it is not there.
        remedy: A command; or why nothing helps.
    """

    what: str
    state: State
    lacks: str
    remedy: str

    @property
    def counts(self) -> bool:
        """Whether MLflow has less than it should."""
        return self.state not in ("training", "deleted")


@dataclass(frozen=True)
class Known:
    """The runs that this clone knows of.

    Args:
        past: Those of Git's history, by id.
        waiting: Ids of those in the outbox.
        here: Id of the run in the work tree; "" when there is none.
    """

    past: dict[str, PastRun]
    waiting: frozenset[str]
    here: str

    def runs(self) -> list[str]:
        """Return the ids of all, the oldest first."""
        return list(dict.fromkeys([*self.past, *sorted(self.waiting), *([self.here] if self.here else [])]))

    def title(self, run: str) -> str:
        """Return how a run is called: its id, and the experiment's name where it has one."""
        name = self.past[run].name if run in self.past else run
        return f"run {run}" if name == run else f"run {run} ({name})"


def known() -> Known:
    """Read what this clone knows."""
    here = read_facts()["run"] if LINEAGE.exists() else ""
    return Known(history.runs(), frozenset(outbox.waiting()), here)


def lacking(client: "MlflowClient", clone: Known) -> dict[str, Lack]:
    """Return what MLflow lacks, by the run's id, the oldest first.

    Raises:
        ProjectError: A person deleted the project's MLflow experiment.
    """
    there = receipts.look(client, clone.runs())
    judged = {run: _judge(run, clone, there.get(run)) for run in clone.runs()}
    return {run: lack for run, lack in judged.items() if lack}


def _judge(run: str, clone: Known, there: Standing | None) -> Lack | None:
    what, lacks = clone.title(run), "its end" if there else "everything"
    if there and there.deleted:
        restore = f"deleted by a person; to have it back: mlflow runs restore --run-id {there.run_id}"
        return Lack(what, "deleted", "everything", restore)
    if run in clone.waiting:
        return _judge_waiting(run, what, lacks)
    if there and there.whole:
        return None
    if run == clone.here:
        return Lack(what, "sync", lacks, SYNC)
    if run in clone.past and clone.past[run].commits:
        return Lack(what, "repair", lacks, REPAIR)
    if there:
        return Lack(what, "impossible", lacks, f"its files are not in this clone; where it was trained: {SYNC}")
    reason = "no results in DVC: the training failed, or nobody committed them"
    return Lack(what, "impossible", lacks, f"not repairable: {reason}")


def _judge_waiting(run: str, what: str, lacks: str) -> Lack:
    told = outbox.folder() / run / "mirror.log"
    lines = told.read_text(encoding="utf-8", errors="replace").split("\n") if told.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = f" (its mirror said: {last})" if last else ""
    if outbox.is_training(run):
        return Lack(what, "training", lacks, f"nothing to do: it is training{said}")
    return Lack(what, "sync", lacks, f"{SYNC}{said}")

"""What a run knows of a subject, when it was trained, and what follows: one table, `RULES`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import reduce
from operator import or_

from ..config import read_params
from ..errors import ProjectError
from ..records.consent import DOUBT, NOT_REQUIRED, PATH, Registry, read
from ..records.ids import normalize_id
from .catalog_mlflow import Run
from .index import Membership


class Exposure(StrEnum):
    """How a run knows a subject: trained on its records, or started from a run that was; or it is unknown."""

    NONE = "none"
    DIRECT = "direct"
    INHERITED = "inherited"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """The answer to an audit's question."""

    PASS = "PASS"  # noqa: S105 (no password)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command; 2 is for bad input."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}[self]


class Timing(StrEnum):
    """When a run was trained, compared with the end of a subject's consent."""

    ACTIVE = "consent is active"
    BEFORE = "before"
    IN_FLIGHT = "in flight"
    AFTER = "after"
    NEVER = "never consented"
    DOUBT = "in doubt"  # a withdrawal was lost in a merge: see `mlops/records/consent.py`


KNOWN = (Exposure.DIRECT, Exposure.INHERITED)

RULES: tuple[tuple[tuple[Exposure, ...], tuple[Timing, ...], Verdict, Verdict], ...] = (
    # exposure, trained (against the end of consent), verify, deployed: for what is served
    ((Exposure.NONE,), tuple(Timing), Verdict.PASS, Verdict.PASS),
    (KNOWN, (Timing.ACTIVE,), Verdict.PASS, Verdict.PASS),
    (KNOWN, (Timing.BEFORE,), Verdict.PASS, Verdict.FAIL),
    (KNOWN, (Timing.IN_FLIGHT, Timing.AFTER, Timing.NEVER), Verdict.FAIL, Verdict.FAIL),
    (KNOWN, (Timing.DOUBT,), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ((Exposure.UNKNOWN,), (Timing.ACTIVE,), Verdict.PASS, Verdict.PASS),
    ((Exposure.UNKNOWN,), tuple(Timing)[1:], Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
)
CELLS = {
    (exposure, timing): (verify, deployed)
    for exposures, timings, verify, deployed in RULES
    for exposure in exposures
    for timing in timings
}


def judge(exposure: Exposure, timing: Timing, served: bool) -> Verdict:
    """Return the verdict on one run and one subject; `served` asks if the run may be served, not if it was allowed."""
    return CELLS[exposure, timing][served]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on all: FAIL outranks INCONCLUSIVE, which outranks PASS."""
    return max(verdicts, key=[Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL].index, default=Verdict.PASS)


@dataclass(frozen=True, slots=True)
class Consent:
    """A subject's consent, as a verdict needs it."""

    status: str  # active, ended, in doubt, or never (no line grants it)
    ended: datetime | None = None  # UTC; None if it did not end, or if the registry has no date

    @classmethod
    def of(cls, subject: str, registry: Registry) -> "Consent":
        """Look a subject up; one that is not listed never consented."""
        if registry.allows(subject):
            return cls("active")
        subject = normalize_id(subject)
        if subject in registry.ended:
            return cls("ended", registry.ended[subject])
        return cls(DOUBT if subject in registry.doubtful else "never")

    def timing(self, run: Run) -> Timing:
        """Return when a run was trained; the worse of two, if its times are unknown."""
        if self.ended is None:  # where neither active nor in doubt: never granted, or ended at an unknown date
            return {"active": Timing.ACTIVE, DOUBT: Timing.DOUBT}.get(self.status, Timing.NEVER)
        if run.started is None or run.started >= self.ended:
            return Timing.AFTER
        return Timing.BEFORE if run.ended and run.ended <= self.ended else Timing.IN_FLIGHT


def read_registry() -> Registry:
    """Read the consent registry as it is now; raise ProjectError if none is required, or it is missing or malformed."""
    if (read_params().get("data") or {}).get("consent") == NOT_REQUIRED:
        problem = "consent is not required (params.yaml:data.consent), so there is no end of consent to compare with"
        fix = "python -m mlops audit verify <subject> --since <date>; or set params.yaml:data.consent to required"
        raise ProjectError(problem, fix)
    return read(PATH)


@dataclass(slots=True, eq=False)
class Node:
    """A run and what it read; sets of manifests are bits."""

    run: Run
    own: int  # the manifest that it read
    problem: str  # why what it read or started from is unknown; "" if it is known
    parents: "list[Node]" = field(default_factory=list)  # the runs that it started from
    inherited: int = 0  # the manifests that its ancestors read
    complete: bool = True  # whether neither it nor an ancestor has a problem


class ExposureGraph:
    """All runs by id (`nodes`), linked to those that they started from.

    `numbers` has the number of each manifest in the index, and `missing` why the others are not in it.
    """

    def __init__(self, runs: Iterable[Run], numbers: Mapping[str, int], missing: Mapping[str, str]) -> None:
        self.nodes: dict[str, Node] = {}
        self._named: dict[str, list[Node]] = {}
        for run in runs:
            own, problem = 0, ""
            if run.manifest is None:
                problem = "it does not record which manifest it read"
            elif run.manifest not in numbers:
                problem = missing.get(run.manifest, "its manifest is not in the index")
            else:
                own = 1 << numbers[run.manifest]
                problem = "" if run.parents is not None else "it does not record what it started from"
            self.nodes[run.id] = node = Node(run, own, problem)
            for name in run.names:
                self._named.setdefault(name, []).append(node)
        for node in self.nodes.values():
            for name in node.run.parents or ():
                node.parents += self._named.get(name, [])  # if two runs have the name, either may be meant
                if name not in self._named:
                    node.problem = node.problem or f"its parent {name} is not known"
        ancestry = {run_id: [self.nodes[step] for step in self._ways(run_id)] for run_id in self.nodes}
        for run_id, node in self.nodes.items():
            ancestors = ancestry[run_id][1:]
            if any(node in child.parents for child in ancestry[run_id]):
                node.problem = node.problem or "it is among its own parents"
                ancestors.append(node)
            node.inherited = reduce(or_, (ancestor.own for ancestor in ancestors), 0)
        for run_id, node in self.nodes.items():
            node.complete = not any(ancestor.problem for ancestor in ancestry[run_id])

    def _ways(self, run_id: str) -> dict[str, list[str]]:
        """Return the ids of a run and of all that it started from, the nearest first; for each, the way to it."""
        ways = {run_id: [run_id]}
        queue = [run_id]
        for child in queue:  # grows
            for parent in self.nodes[child].parents:
                if parent.run.id not in ways:
                    ways[parent.run.id] = [*ways[child], parent.run.id]
                    queue.append(parent.run.id)
        return ways

    def runs_named(self, names: Iterable[str]) -> list[Run]:
        """Return the runs that have one of these names."""
        return list(dict.fromkeys(node.run for name in names for node in self._named.get(name, ())))

    def exposures(self, subject: Membership) -> dict[str, Exposure]:
        """Return the exposure of each run to a subject, by run id; runs without exposure are left out."""
        exposures = {}
        for run_id, node in self.nodes.items():
            if node.own & subject.exact:
                exposures[run_id] = Exposure.DIRECT
            elif node.inherited & subject.exact:
                exposures[run_id] = Exposure.INHERITED
            elif not node.complete or (node.own | node.inherited) & subject.alike:
                exposures[run_id] = Exposure.UNKNOWN
        return exposures

    def path(self, run_id: str, subject: Membership) -> list[str]:
        """Return how a run knows a subject: run by run, to the manifest or to the reason why it is unknown."""
        path: list[str] = []
        for step, way in self._ways(run_id).items():
            node, runs = self.nodes[step], [f"run {run}" for run in way]
            manifest = f"manifest {node.run.manifest}"
            if node.own & subject.exact:
                return [*runs, manifest]
            if not path and node.problem:
                path = [*runs, node.problem]
            elif not path and node.own & subject.alike:
                path = [*runs, f"{manifest}, with a similar id that may be the same person's"]
        return path

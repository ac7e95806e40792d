"""What a run knows of a subject, when it was trained, and what follows: one table, `RULES`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ..config import read_params
from ..errors import ProjectError
from ..records import consent
from ..records.consent import DOUBT, Registry
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
        if subject in registry.doubtful:
            return cls(DOUBT)
        return cls("ended", registry.ended[subject]) if subject in registry.ended else cls("never")

    def timing(self, run: Run) -> Timing:
        """Return when a run was trained; the worse of two, if its times are unknown."""
        if self.status == "active":
            return Timing.ACTIVE
        if self.status == DOUBT:
            return Timing.DOUBT
        if self.ended is None:  # never granted, or ended at an unknown date
            return Timing.NEVER
        if run.started is None or run.started >= self.ended:
            return Timing.AFTER
        return Timing.BEFORE if run.ended and run.ended <= self.ended else Timing.IN_FLIGHT


def read_registry() -> Registry:
    """Read the consent registry as it is now.

    Raises:
        ProjectError: The project requires no consent, or the registry is missing or malformed.
    """
    if read_params().get("data", {}).get("consent") == consent.NOT_REQUIRED:
        raise ProjectError(
            "consent is not required (params.yaml:data.consent), so there is no end of consent to compare with",
            "audit verify <subject> --since <date>; or set params.yaml:data.consent to required",
        )
    return consent.read(consent.PATH)


@dataclass(slots=True)
class _Node:
    """A run and what it read; sets of manifests are bits."""

    run: Run
    own: int  # the manifest that it read
    problem: str  # why what it read or started from is unknown; "" if it is known
    parents: list[int] = field(default_factory=list)  # positions of the runs that it started from
    inherited: int = 0  # the manifests that its ancestors read
    complete: bool = True  # whether neither it nor an ancestor has a problem


class ExposureGraph:
    """All runs, linked to those that they started from.

    Args:
        runs: All of them.
        numbers: The number of each manifest in the index.
        missing: For manifests that are not in the index, the reason.
    """

    def __init__(self, runs: Iterable[Run], numbers: Mapping[str, int], missing: Mapping[str, str]) -> None:
        self._nodes = [_node(run, numbers, missing) for run in runs]
        self._positions = {node.run.id: position for position, node in enumerate(self._nodes)}
        self._named: dict[str, list[int]] = {}
        for position, node in enumerate(self._nodes):
            for name in node.run.names:
                self._named.setdefault(name, []).append(position)
        for node in self._nodes:
            for name in node.run.parents or ():
                node.parents += self._named.get(name, [])  # if two runs have the name, either may be meant
                if name not in self._named:
                    node.problem = node.problem or f"its parent {name} is not known"
        ancestors = [self._ancestors(position) for position in range(len(self._nodes))]
        for position, node in enumerate(self._nodes):
            if position in ancestors[position]:
                node.problem = node.problem or "it is among its own parents"
        for node, positions in zip(self._nodes, ancestors, strict=True):
            above = [self._nodes[position] for position in positions]
            node.complete = not (node.problem or any(ancestor.problem for ancestor in above))
            for ancestor in above:
                node.inherited |= ancestor.own

    def _ancestors(self, position: int) -> dict[int, int]:
        """Return all runs that a run started from, the nearest first; for each, the run that leads to it."""
        children: dict[int, int] = {}
        queue = [position]
        for child in queue:  # grows
            for parent in self._nodes[child].parents:
                if parent not in children:
                    children[parent] = child
                    queue.append(parent)
        return children

    def runs_named(self, names: Iterable[str]) -> list[Run]:
        """Return the runs that have one of these names."""
        positions = dict.fromkeys(position for name in names for position in self._named.get(name, ()))
        return [self._nodes[position].run for position in positions]

    def exposures(self, subject: Membership) -> dict[str, Exposure]:
        """Return the exposure of each run to a subject, by run id; runs without exposure are left out."""
        exposures = {}
        for node in self._nodes:
            if node.own & subject.exact:
                exposures[node.run.id] = Exposure.DIRECT
            elif node.inherited & subject.exact:
                exposures[node.run.id] = Exposure.INHERITED
            elif not node.complete or (node.own | node.inherited) & subject.alike:
                exposures[node.run.id] = Exposure.UNKNOWN
        return exposures

    def manifests(self, run_id: str) -> tuple[int, int, bool]:
        """Return the manifests, as bits, that a run read and that it inherits; and whether these are all."""
        node = self._nodes[self._positions[run_id]]
        return node.own, node.inherited, node.complete

    def path(self, run_id: str, subject: Membership) -> list[str]:
        """Return how a run knows a subject: run by run, to the manifest or to the reason why it is unknown."""
        start = self._positions[run_id]
        children = self._ancestors(start)
        ends = {}
        for position in (start, *children):
            node = self._nodes[position]
            if node.own & subject.exact:
                ends = {position: f"manifest {node.run.manifest}"}
                break
            if node.problem:
                ends[position] = node.problem
            elif node.own & subject.alike:
                ends[position] = f"manifest {node.run.manifest}, in which another id may be the same"
        if not ends:
            return []
        position, end = next(iter(ends.items()))
        steps = [position]
        while steps[-1] != start:
            steps.append(children[steps[-1]])
        return [*(f"run {self._nodes[step].run.id}" for step in reversed(steps)), end]


def _node(run: Run, numbers: Mapping[str, int], missing: Mapping[str, str]) -> _Node:
    if run.manifest is None:
        return _Node(run, 0, "it does not say which manifest it read")
    if run.manifest not in numbers:
        return _Node(run, 0, missing.get(run.manifest, "its manifest is not in the index"))
    problem = "" if run.parents is not None else "it does not say what it started from"
    return _Node(run, 1 << numbers[run.manifest], problem)

"""What a run knows of a subject: trained on its records, or started from a run that was; or nobody can tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .catalog_mlflow import Run
from .index import Membership


class Exposure(StrEnum):
    """How a run knows a subject."""

    NONE = "none"
    DIRECT = "direct"
    INHERITED = "inherited"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class _Node:
    """A run with what it has read.

    Args:
        run: The run.
        own: The manifest that it read, as a bit.
        problem: Why what it read, or what it started from, can't be known; "" when it can.
        parents: Positions of the runs that it started from.
        inherited: The manifests that those read, and theirs.
        unknown: Whether any of them, or itself, has a problem.
    """

    run: Run
    own: int
    problem: str
    parents: tuple[int, ...] = ()
    inherited: int = 0
    unknown: bool = False


class Exposures:
    """All runs, ready to be asked about any subject.

    Args:
        runs: All of them.
        numbers: The numbers of manifests in the index.
        lacking: Why a manifest is not in the index.
    """

    def __init__(self, runs: Iterable[Run], numbers: Mapping[str, int], lacking: Mapping[str, str]) -> None:
        self._nodes = [_node(run, numbers, lacking) for run in runs]
        self._at = {node.run.id: place for place, node in enumerate(self._nodes)}
        self._named: dict[str, list[int]] = {}
        for place, node in enumerate(self._nodes):
            for name in node.run.names:
                self._named.setdefault(name, []).append(place)
        for node in self._nodes:
            self._adopt(node)
        above = [self._above(place) for place in range(len(self._nodes))]
        for place, node in enumerate(self._nodes):
            if place in above[place]:
                node.problem = node.problem or "it is among its own parents"
        for place, node in enumerate(self._nodes):
            others = [self._nodes[other] for other in above[place]]
            node.unknown = bool(node.problem) or any(other.problem for other in others)
            for other in others:
                node.inherited |= other.own

    def _adopt(self, node: _Node) -> None:
        for name in node.run.parents or ():
            if name in self._named:  # two runs of one name: either may be meant
                node.parents += tuple(self._named[name])
            else:
                node.problem = node.problem or f"its parent {name} is not known"

    def _above(self, place: int) -> dict[int, int]:
        """Return all that a run started from, the nearest first; for each, the one that started from it."""
        by: dict[int, int] = {}
        todo = [place]
        for one in todo:  # grows
            for parent in self._nodes[one].parents:
                if parent not in by:
                    by[parent] = one
                    todo.append(parent)
        return by

    def runs(self, names: Iterable[str]) -> list[Run]:
        """Return the runs that have one of these names."""
        places = dict.fromkeys(place for name in names for place in self._named.get(name, ()))
        return [self._nodes[place].run for place in places]

    def of(self, subject: Membership) -> dict[str, Exposure]:
        """Return what every run knows of a subject, by its id; those that know nothing of it are left out."""
        found = {}
        for node in self._nodes:
            if node.own & subject.exact:
                found[node.run.id] = Exposure.DIRECT
            elif node.inherited & subject.exact:
                found[node.run.id] = Exposure.INHERITED
            elif node.unknown or (node.own | node.inherited) & subject.alike:
                found[node.run.id] = Exposure.UNKNOWN
        return found

    def reads(self, run_id: str) -> tuple[int, int, bool]:
        """Return the manifests that a run read, and those that it inherits, as bits; and whether these are all."""
        node = self._nodes[self._at[run_id]]
        return node.own, node.inherited, not node.unknown

    def path(self, run_id: str, subject: Membership) -> list[str]:
        """Return how a run knows a subject, or why nobody can tell: from run to run, to the manifest or the reason."""
        start = self._at[run_id]
        by = self._above(start)
        for place in (start, *by):
            if self._nodes[place].own & subject.exact:
                return [*self._steps(start, place, by), f"manifest {self._nodes[place].run.manifest}"]
        for place in (start, *by):
            node = self._nodes[place]
            if node.problem:
                return [*self._steps(start, place, by), node.problem]
            if node.own & subject.alike:
                return [
                    *self._steps(start, place, by),
                    f"manifest {node.run.manifest}, in which another id may be the same",
                ]
        return []

    def _steps(self, start: int, place: int, by: dict[int, int]) -> list[str]:
        steps = [place]
        while steps[-1] != start:
            steps.append(by[steps[-1]])
        return [f"run {self._nodes[step].run.id}" for step in reversed(steps)]


def _node(run: Run, numbers: Mapping[str, int], lacking: Mapping[str, str]) -> _Node:
    if run.manifest is None:
        return _Node(run, 0, "it does not say which manifest it read")
    if run.manifest not in numbers:
        return _Node(run, 0, lacking.get(run.manifest, "its manifest is not in the index"))
    problem = "" if run.parents is not None else "it does not say what it started from"
    return _Node(run, 1 << numbers[run.manifest], problem)

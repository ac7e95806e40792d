"""Who put which version in use, when and why: entries of the branch `lineage`.

    git log --first-parent --grep "^move: " lineage

The branch is the authority: it survives a wiped MLflow, which `mirror repair` gives its aliases back.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..config import home, load_platform
from ..errors import ProjectError
from ..tracking import lineage_log
from ..tracking.git import git

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHALLENGER, CHAMPION)


@dataclass(frozen=True)
class AliasChange:
    """One move of an alias."""

    model: str
    action: str  # promote, rollback
    alias: str
    before: int | None  # the version that had it
    version: int  # the one that gets it
    who: str  # as Git knows them: name <address>
    aws: str  # ARN of the AWS caller; none without credentials; unknown (…) when AWS could not be asked
    when: str  # UTC, 2026-01-31T09:00:00Z
    why: str
    metrics: dict[str, Any]  # the version's own, and those of the comparison that justified it

    @property
    def id(self) -> str:
        """The move in the name of MLflow's tag, where a colon is not safe."""
        return f"{self.when.replace(':', '')}-{self.alias}"

    def entry(self) -> str:
        """Return it as the log keeps it: a title, then each field as JSON."""
        # JSON stays on its line, whatever a person typed: a line break can't forge another field.
        fields = {name: json.dumps(value, ensure_ascii=False) for name, value in dataclasses.asdict(self).items()}
        lines = "".join(f"{name}: {value}\n" for name, value in {"move": self.id, **fields}.items())
        text = f"{self.action} {self.model} {self.alias} to version {self.version}\n\n{lines}"
        return text.encode(errors="replace").decode()


def moves(log_ref: str = lineage_log.REF) -> list[AliasChange]:
    """Return the moves of the project's model in the log of this repository, the first one first.

    Args:
        log_ref: Another log: of a Git remote, as it was fetched.

    Raises:
        ShallowCloneError: This clone is shallow.
        ProjectError: An entry can't be read, so who has which alias can't be known.
    """
    lineage_log.check_not_shallow()
    if not git("for-each-ref", log_ref, where=home()):
        return []
    plain = ("--first-parent", "--reverse", "--no-show-signature", "--encoding=UTF-8", "-z", "--format=%H%n%B")
    told = git("log", *plain, "--basic-regexp", "--grep=^move: ", log_ref, where=home())
    entries = [one.partition("\n") for one in told.split("\0") if one]
    found = {entry: _parse(entry, commit[:10]) for commit, _, entry in entries}  # joined logs may have one twice
    model = load_platform().project  # one repository may hold several projects
    return [move for move in found.values() if move.model == model]


def _parse(entry: str, commit: str) -> AliasChange:
    told = dict(line.split(": ", 1) for line in entry.split("\n") if ": " in line)
    try:
        return AliasChange(**{field.name: json.loads(told[field.name]) for field in dataclasses.fields(AliasChange)})
    except (KeyError, ValueError) as error:
        problem = f"entry {commit} of the branch {lineage_log.BRANCH} is no whole move of an alias: {error!r}"
        raise ProjectError(problem, f"see it: git show {commit}") from error


@dataclass(frozen=True)
class AliasState:
    """Which versions have the aliases."""

    champions: tuple[int, ...]  # the last one is it; those before are what `registry rollback` goes back to
    challenger: int | None

    def of(self, alias: str) -> int | None:
        """Return the version that has an alias."""
        return self.challenger if alias == CHALLENGER else next(reversed(self.champions), None)


def alias_state(log: Iterable[AliasChange]) -> AliasState:
    """Return what holds after the moves of a log: of those of an alias, the last one counts."""
    champions: list[int] = []
    challenger = None
    for move in log:
        if move.alias == CHALLENGER:
            challenger = move.version
            continue
        if move.action == "rollback":
            del champions[-1:]
        if champions[-1:] != [move.version]:
            champions.append(move.version)
        challenger = None if challenger == move.version else challenger  # it has won
    return AliasState(tuple(champions), challenger)

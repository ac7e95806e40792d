"""Who put which version in use, when and why: entries of the branch `lineage`.

    git log --first-parent --grep "^move: " lineage

The branch is the authority: it survives a wiped MLflow, whose aliases and tags are a copy (`aliases.replay`).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from ..errors import ProjectError
from ..settings import home, load_platform
from ..tracking import branch
from ..tracking.git import git

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHALLENGER, CHAMPION)
NONE = "none"  # what stands where there was no version before, and where nobody gave a reason


@dataclass(frozen=True)
class Move:
    """One move of an alias.

    Args:
        id: Begins with the time, so that ids sort by it.
        model: Name of the registered model.
        action: `rollback` takes the last `promote` back.
        alias: The alias.
        before: The version that had the alias, or None.
        version: The version that gets it.
        who: Git identity, `name <address>`.
        aws: ARN of the AWS caller; `none` without credentials, `unknown (…)` when AWS could not be asked.
        when: ISO 8601, UTC.
        why: One line; may be empty.
        metrics: The figures that justified it, see `comparison.compare`.
    """

    id: str
    model: str
    action: Literal["promote", "rollback"]
    alias: str
    before: int | None
    version: int
    who: str
    aws: str
    when: str
    why: str
    metrics: dict[str, Any]

    def body(self) -> str:
        """Return the move as text, one `key: value` a line: the log entry's body, and the tag in MLflow."""
        values = {
            "move": self.id,
            "model": self.model,
            "action": self.action,
            "alias": self.alias,
            "from": self.before or NONE,
            "to": self.version,
            "who": self.who,
            "aws": self.aws,
            "when": self.when,
            "why": self.why or NONE,
            "metrics": json.dumps(self.metrics),
        }
        # One line each, whatever a person typed: a line break could forge another key.
        return "".join(f"{key}: {' '.join(str(value).split())}\n" for key, value in values.items())

    def subject(self) -> str:
        """Return the log entry's first line."""
        if self.action == "rollback":
            return f"roll back {self.model} to version {self.version}"
        return f"promote {self.model} version {self.version} to {self.alias}"


def parse(body: str, where: str) -> Move:
    """Read what `Move.body` wrote, wherever it stands in a text.

    Raises:
        ProjectError: It is not whole, so who has which alias can't be known.
    """
    found = dict(line.split(": ", 1) for line in body.splitlines() if ": " in line)
    try:
        if found["action"] not in ("promote", "rollback") or found["alias"] not in ALIASES:
            raise ValueError(f"{found['action']} {found['alias']}")
        return Move(
            id=found["move"],
            model=found["model"],
            action="rollback" if found["action"] == "rollback" else "promote",
            alias=found["alias"],
            before=None if found["from"] == NONE else int(found["from"]),
            version=int(found["to"]),
            who=found["who"],
            aws=found["aws"],
            when=found["when"],
            why="" if found["why"] == NONE else found["why"],
            metrics=json.loads(found["metrics"]),
        )
    except (KeyError, ValueError) as error:
        raise ProjectError(f"{where} can't be read as a move of an alias: {error!r}", f"see it: {where}") from error


def moves() -> list[Move]:
    """Return the moves of the project's model in the log of this repository, the first one first.

    Raises:
        ProjectError: An entry can't be read.
    """
    if not git("for-each-ref", branch.REF, where=home()):
        return []
    plain = ("--first-parent", "--reverse", "--no-show-signature", "--encoding=UTF-8", "-z")
    arguments = (*plain, "--grep=^move: ", "--format=%H%n%B", branch.REF)
    found: dict[str, Move] = {}
    for entry in filter(None, git("log", *arguments, where=home()).split("\0")):
        commit, _, body = entry.partition("\n")
        move = parse(body, f"git show {commit[:10]}")
        found.setdefault(move.id, move)
    model = load_platform().project  # one repository may hold several projects
    return [move for move in found.values() if move.model == model]


def record(move: Move, commit: str) -> None:
    """Write a move to the log.

    Args:
        move: The move.
        commit: The version's tag `result_commit`.
    """
    branch.record(commit, f"{move.subject()}\n\n{move.body()}")


@dataclass(frozen=True)
class Standing:
    """Which versions have the aliases.

    Args:
        champions: The champion is the last; those before it are what `registry rollback` goes back to.
        challenger: The challenger.
        last: The last move of the champion that counted.
        void: Ids of moves that did not count: when two clones moved an alias at once, the first in the log did.
    """

    champions: tuple[int, ...] = ()
    challenger: int | None = None
    last: Move | None = None
    void: frozenset[str] = field(default_factory=frozenset)

    def of(self, alias: str) -> int | None:
        """Return the version that has an alias."""
        if alias == CHALLENGER:
            return self.challenger
        return self.champions[-1] if self.champions else None

    def after(self, move: Move) -> "Standing":
        """Return what holds after one more move."""
        back = move.action == "rollback"
        if move.before != self.of(move.alias) or (back and self.champions[-2:-1] != (move.version,)):
            return replace(self, void=self.void | {move.id})
        if move.alias == CHALLENGER:
            return replace(self, challenger=move.version)
        champions = self.champions[:-1] if back else (*self.champions, move.version)
        challenger = None if self.challenger == move.version else self.challenger
        return replace(self, champions=champions, challenger=challenger, last=move)


def standing(log: Iterable[Move]) -> Standing:
    """Return what holds after the moves of a log."""
    return reduce(Standing.after, log, Standing())

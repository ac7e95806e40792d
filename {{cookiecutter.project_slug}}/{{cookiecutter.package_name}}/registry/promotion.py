"""Put a version in use, and take it back: `registry promote`, `registry rollback`.

Each move is first written to the log, then to MLflow. What is killed in between, the same command completes.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from filelock import FileLock

from ..errors import ProjectError
from ..settings import PACKAGE, home
from . import aliases, figures
from .actor import Actor, actor
from .aliases import Registry
from .comparison import check_measure, compare
from .evidence import Incomparable, result_commit
from .moves import CHAMPION, Move, record

VERB = f"python -m {PACKAGE} registry"

log = logging.getLogger(__name__)


def promote(version: str, alias: str = CHAMPION, by: str = "test_acc", why: str = "", anyway: bool = False) -> str:
    """Give a version an alias, when it is as good as the champion.

    A challenger is only compared: it is not in use.

    Args:
        version: Its number.
        alias: `champion` or `challenger`.
        by: One of `measures.MEASURES`.
        why: A reason, for the record.
        anyway: Also when it is worse, or can't be compared.

    Returns:
        What was done.

    Raises:
        ProjectError: It is worse, or can't be compared; nobody can be held to it (no Git identity, no reason); the
            version, its commit or MLflow isn't there; or another clone moved the alias.
    """
    check_measure(by)
    if anyway and not why.strip():
        raise ProjectError("--anyway goes past the comparison, so it needs a reason", "--why '…'")
    who = actor()
    with _alone():
        registry = aliases.read()
        number = _number(registry, version)
        registry.check_complete()
        if registry.standing.of(alias) == number:
            return _done(f"{registry.name} version {number} is {alias} already")
        commit = result_commit(registry.version(number))
        _check_not_moved_by_hand(registry, number)
        found = _judged(registry, number, alias, by, anyway)
        metrics = {"run": figures.committed(commit), **found}
        _write(registry, "promote", alias, number, commit, who, why, metrics)
        return _done(f"{registry.name} version {number} is {alias}")


def rollback(why: str = "") -> str:
    """Make the version champion that was it before the present one.

    Returns:
        What was done.

    Raises:
        ProjectError: There was none before, or it is gone; Git does not know who asks; MLflow can't be reached; or
            another clone moved the alias.
    """
    who = actor()
    with _alone():
        registry = aliases.read()
        registry.check_complete()
        if _interrupted_rollback(registry):
            return _done(f"completed: {registry.name} version {registry.standing.of(CHAMPION)} is champion")
        _check_not_moved_by_hand(registry)
        champions = registry.standing.champions
        if len(champions) < 2:
            raise ProjectError(
                f"no version of {registry.name} was champion before {champions[0] if champions else 'this'}",
                f"{VERB} promote <version>",
            )
        number = champions[-2]
        version = registry.version(number)
        commit = result_commit(version)
        _write(registry, "rollback", CHAMPION, number, commit, who, why, {"run": figures.committed(commit)})
        return _done(f"{registry.name} version {number} is champion again")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    # Two in one clone come one after the other; the second is compared with what the first made champion.
    with FileLock(home() / ".dvc" / "tmp" / "registry.lock"):
        yield


def _number(registry: Registry, text: str) -> int:
    if text.isdecimal():
        return int(registry.version(int(text)).version)
    number = registry.find(text).version
    raise ProjectError(f"{text} is an alias, and it moves: now it is version {number}", f"{VERB} promote {number}")


def _check_not_moved_by_hand(registry: Registry, wanted: int | None = None) -> None:
    """See that MLflow's champion is the log's, or what it was before a move that did not come to its end."""
    have, last = registry.aliases.get(CHAMPION), registry.standing.last
    if have in (None, registry.standing.of(CHAMPION), last.before if last else None, wanted):
        return
    raise ProjectError(
        f"in MLflow version {have} is champion, but no recorded move made it so: the log says "
        f"{registry.standing.of(CHAMPION) or 'none'}",
        f"{VERB} promote {have} to record it; or undo it: python -m {PACKAGE} mirror repair",
    )


def _interrupted_rollback(registry: Registry) -> bool:
    last = registry.standing.last
    if last is None or last.action != "rollback":
        return False
    tagged = aliases.TAG + last.id in registry.version(last.version).tags
    return not tagged or registry.aliases.get(CHAMPION) == last.before


def _judged(registry: Registry, number: int, alias: str, by: str, anyway: bool) -> dict[str, Any]:
    """Return the figures of the comparison that justifies a move; none where there is no champion.

    Raises:
        ProjectError: They don't.
    """
    champion = registry.standing.of(CHAMPION)
    if champion is None:
        return {}
    if champion == number:
        raise ProjectError(
            f"version {number} is the champion: it can't challenge itself", f"{VERB} promote <another> --to {alias}"
        )
    try:
        found = compare(registry, number, champion, by)
    except Incomparable as error:
        if not anyway and alias == CHAMPION:
            raise Incomparable(error.problem, f"{error.fix}; or {_anyway(number)}") from error
        log.warning("not compared: %s", error.problem)
        return {"not_compared": error.problem}
    if found.worse and alias == CHAMPION and not anyway:
        raise ProjectError(f"it is worse: {found.told()}", f"promote a better one; or {_anyway(number)}")
    log.info("%s", found.told())
    return found.figures()


def _anyway(number: int) -> str:
    return f"{VERB} promote {number} --anyway --why '…'"


def _write(
    registry: Registry,
    action: Literal["promote", "rollback"],
    alias: str,
    number: int,
    commit: str,
    who: Actor,
    why: str,
    metrics: dict[str, Any],
) -> None:
    aliases.read().check_complete()  # comparing takes its time, in which another clone may have been first
    now = datetime.now(UTC)
    move = Move(
        id=f"{now:%Y%m%dT%H%M%S.%f}Z-{os.urandom(3).hex()}",
        model=registry.name,
        action=action,
        alias=alias,
        before=registry.standing.of(alias),
        version=number,
        who=who.git,
        aws=who.aws,
        when=now.isoformat(timespec="seconds"),
        why=why,
        metrics=metrics,
    )
    record(move, commit)


def _done(said: str) -> str:
    """Let MLflow follow the log; return what to say."""
    return "\n".join([said, *aliases.replay()])

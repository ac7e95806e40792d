"""Put a version in use, and take it back: `registry promote`, `registry rollback`.

A version is refused when it is shown to be worse than the champion, and when it has lost more than
`params.yaml:promote.margin` against the champion or the best champion so far: else losses too small to be shown would
add up. Records that one of the two has trained on, and those of subjects who have no consent today, do not count.

A change is first made in MLflow, then written to the log. When a command is killed in between, the same command
completes it: it finds the alias set in MLflow, compares with the log's champion as before, and writes.
"""

import dataclasses
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock
from pydantic import Field

from ..config import StrictModel, check, home, read_params
from ..errors import ProjectError
from ..explain import explain
from ..tracking import lineage_log, publishing
from ..tracking.git import GitError, git
from . import aliases
from .aliases import CHAMPION, REFUSE, VERB, AliasChange, Registry, alias_holders, champions
from .comparison import Comparison, compare
from .evaluation import IncomparableError, Predictions, find_metric, result_commit
from .versions import metrics_at

LOCK = ".dvc/tmp/registry.lock"  # of two commands in one clone, the second waits
ROUNDING = 1e-9  # 0.97 - 0.95 is a little more than 0.02

log = logging.getLogger(__name__)


class Promote(StrictModel):
    """`params.yaml:promote`: which loss is accepted. No stage depends on it, and a project may be without it."""

    margin: float = Field(0.02, ge=0)  # the largest loss against the best champion so far, in the metric's unit
    strict: bool = False  # whether a version has to show that its loss is not above that


def promote(version: str, alias: str = CHAMPION, by: str = "test_acc", why: str = "", anyway: bool = False) -> str:
    """Give a version (a number, or an alias that it has) an alias, unless it is worse than the champion.

    A challenger may be worse, since it is not in use. With `anyway`, and a reason, a version that is refused or can't
    be compared becomes champion too. A refusal is recorded in the log.

    Raises:
        ProjectError: It is refused, or can't be compared; nobody can be held to it (no Git identity, no reason); the
            version, its commit or MLflow isn't there; or MLflow and the log disagree about who has the alias.
    """
    find_metric(by, "test_")
    if anyway and not why.strip():
        raise ProjectError("--anyway goes past the comparison, so it needs a reason", "--why '…'")
    who = identity()
    lineage_log.check_refs()
    with FileLock(home() / LOCK):
        registry = aliases.read()
        change = _draft(registry, "promote", alias, int(registry.find(version).version), who, why)
        registry.check_agrees(change)
        if change.before == change.version:
            is_again = registry.aliases.get(alias) != change.version
            if is_again:
                aliases.apply(registry, {alias: change.version}, [])
            return f"{registry.name} version {change.version} is {alias} {'again' if is_again else 'already'}"
        result = _make(registry, change, _decide(registry, change, by, anyway))
    publishing.publish(may_ask=True)
    return result


def rollback(why: str = "") -> str:
    """Make the version champion that was champion before the present one; raises what `promote` does."""
    who = identity()
    lineage_log.check_refs()
    with FileLock(home() / LOCK):
        registry = aliases.read()
        *_, before, now = (None, None, *alias_holders(registry.log)[CHAMPION])
        if before is None or before not in registry.versions:
            registry.check_agrees()
            others = [number for number in registry.versions if number != now]
            problem = f"no version of {registry.name} that MLflow has was champion before {now or 'now'}"
            raise ProjectError(problem, f"{VERB} promote {others[-1]}" if others else "register another one: dvc repro")
        change = _draft(registry, "rollback", CHAMPION, before, who, why)
        registry.check_agrees(change)
        result = _make(registry, change, {})
    publishing.publish(may_ask=True)
    return result


def _draft(registry: Registry, action: str, alias: str, number: int, who: tuple[str, str], why: str) -> AliasChange:
    metrics = {"run": metrics_at(result_commit(registry.find(str(number))))}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return AliasChange(registry.name, action, alias, registry.holder(alias), number, *who, now, why, metrics)


def _decide(registry: Registry, change: AliasChange, by: str, anyway: bool) -> dict[str, Any]:
    """Return the results of the comparison that justify a change; record a refusal and raise ProjectError."""
    if (champion := registry.holder(CHAMPION)) is None:
        return {}
    limits = check("params.yaml", "promote", read_params().get("promote") or {}, Promote)
    for_use, override = change.alias == CHAMPION, f"{VERB} promote {change.version} --anyway --why '…'"
    best = best_champion(registry.log, by) if for_use else champion
    known: dict[tuple[str, ...], Predictions] = {}
    try:
        others = [other for other in dict.fromkeys((champion, best)) if other != change.version]
        results = [result for other in others for result in compare(registry, change.version, other, by, known)]
    except IncomparableError as error:
        if for_use and not anyway:
            raise IncomparableError(error.problem, f"{error.fix}; or {override}") from error
        log.warning("not compared: %s", error.problem)
        return {"by": by, "not_compared": error.problem}
    for result in results:
        log.info("%s", _describe(change.version, champion, by, result))
        if result.against == champion:
            log.info("what these records can't see: %s", result.blind_spot(limits.margin))
    rows = [{key: value and round(value, 6) for key, value in vars(result).items()} for result in results]
    decided = {"by": by, "champion": champion, **limits.model_dump(), "test_sets": rows}
    if not for_use:
        return decided
    if objections := [text for result in results for text in _objections(result, champion, limits)]:
        decided["objections"] = objections
        if not anyway:
            _record_refusal(registry, change, decided)
            problem = f"version {change.version} is refused: {'; '.join(objections)}"
            raise ProjectError(problem, f"promote a better one; or {override}")
    is_best = all(result.value >= 0 for result in results if result.against == best)
    return {**decided, "best": change.version if is_best or objections else best}


def best_champion(log: list[AliasChange], by: str) -> int:
    """Return the version of all champions in a row that is the best by a metric.

    Each promotion compares the new champion with the best one before, and records which of the two is better. A
    promotion in spite of objections, or without a comparison, begins anew: somebody gave a reason for that loss.
    """
    row = champions(log)
    for change in reversed(row):
        if {"objections", "not_compared"} & change.metrics.keys():
            return change.version
        if change.metrics.get("by") == by and "best" in change.metrics:
            return int(change.metrics["best"])
    return row[-1].version  # before there were margins, none was worse than the one before


def _describe(version: int, champion: int, by: str, result: Comparison) -> str:
    """Return the figures of a comparison as a sentence."""
    interval = "no interval" if result.low is None else f"95 % interval {result.low:+.4f} to {result.high:+.4f}"
    return (
        f"version {version} against the {_role(result, champion)}, by {by}: {result.candidate:.4f} against "
        f"{result.champion:.4f}, gain {result.value:+.4f} ({interval}), on the test set of version "
        f"{result.test_set_of}: {result.records} records of {result.subjects} subjects (left out: {result.seen} that "
        f"one of them has trained on, {result.without_consent} without consent)"
    )


def _role(result: Comparison, champion: int) -> str:
    return f"{'champion' if result.against == champion else 'best champion so far'}, version {result.against}"


def _objections(result: Comparison, champion: int, limits: Promote) -> Iterator[str]:
    """Give the reasons against a version that a comparison has."""
    against = f"the {_role(result, champion)}, on the test set of version {result.test_set_of}"
    if result.against == champion and result.high is not None and result.high < 0:
        yield f"it is worse than {against}: the interval of its gain ends at {result.high:+.4f}"
    if result.value + limits.margin < -ROUNDING:
        yield f"it has lost {-result.value:.4f} against {against}: more than promote.margin ({limits.margin})"
    elif limits.strict and (result.low is None or result.low + limits.margin < -ROUNDING):
        needed = result.needed_records(limits.margin)
        text = f"no loss above promote.margin ({limits.margin}) is ruled out against {against}"
        enough = f"; of a version as good as it, about {needed} records would do so 4 times in 5" if needed else ""
        yield f"promote.strict: {text}{enough}"


def _record_refusal(registry: Registry, change: AliasChange, decided: dict[str, Any]) -> None:
    refusal = dataclasses.replace(change, action=REFUSE, metrics={**change.metrics, **decided})
    lineage_log.record(result_commit(registry.versions[change.version]), refusal.entry())
    log.info("the refusal is recorded: %s log", VERB)
    aliases.apply(registry, {}, [refusal])


def _make(registry: Registry, change: AliasChange, compared: dict[str, Any]) -> str:
    if aliases.read().aliases != registry.aliases:  # a comparison takes time
        raise ProjectError(f"meanwhile somebody moved an alias of {registry.name}", "run the same command again")
    change = dataclasses.replace(change, metrics={**change.metrics, **compared})
    aliases.apply(registry, {change.alias: change.version}, [change])
    lineage_log.record(result_commit(registry.versions[change.version]), change.entry())
    return f"{registry.name} version {change.version} is {change.alias}"


def author() -> str:
    """Return who runs this, `name <address>`; raise ProjectError if Git does not know."""
    try:
        # Without useConfigOnly, Git makes up a name of the account and the machine.
        identity = git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
    except GitError as error:
        fix = "git config user.name 'Your Name' && git config user.email you@example.org"
        raise ProjectError("Git does not know who you are, and the log records who decides", fix) from error
    return identity.rsplit(" ", 2)[0]  # without the time and its zone


def identity() -> tuple[str, str]:
    """Return who runs this, as `AliasChange` has it: what Git and AWS know; raise ProjectError if Git does not."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    who = author()
    patience = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            return who, "none"
        sts = session.client("sts", region_name=session.region_name or "us-east-1", config=patience)
        return who, str(sts.get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError) as error:
        log.warning(
            "AWS did not say who you are, and the record will say so: %s", getattr(explain(error), "problem", error)
        )
        return who, f"unknown ({type(error).__name__})"

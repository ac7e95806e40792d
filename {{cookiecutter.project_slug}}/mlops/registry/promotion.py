"""Put a version in use, and take it back: `registry promote`, `registry rollback`.

A move is first made in MLflow, then written to the log. What is killed in between, the same command completes: it
finds in MLflow what it was to make, compares with the log's champion as before, and writes.
"""

import dataclasses
import logging
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock

from ..config import home
from ..contract import package_name
from ..errors import ProjectError
from ..tracking import lineage_log
from ..tracking.git import GitError, git
from . import aliases
from .alias_log import CHAMPION, AliasChange
from .aliases import VERB, Registry
from .cli_output import metrics_at
from .evaluation import IncomparableError, compare, metric_names, result_commit

LOCK = ".dvc/tmp/registry.lock"  # two in one clone come one after the other

log = logging.getLogger(__name__)


def promote(version: str, alias: str = CHAMPION, by: str = "test_acc", why: str = "", anyway: bool = False) -> str:
    """Give a version (a number, or an alias that it has) an alias, when it is as good as the champion.

    A challenger is only compared, since it is not in use. With `anyway`, and a reason, also one that is worse or can't
    be compared becomes champion.

    Raises:
        ProjectError: It is worse, or can't be compared; nobody can be held to it (no Git identity, no reason); the
            version, its commit or MLflow isn't there; or MLflow and the log disagree about who has the alias.
    """
    if by not in (known := metric_names()):
        fix = f"--by {known[0]}, or write it: {package_name()}/interface.py:compare"
        raise ProjectError(f"{by!r} can't be measured on a test set (known: {', '.join(known)})", fix)
    if anyway and not why.strip():
        raise ProjectError("--anyway goes past the comparison, so it needs a reason", "--why '…'")
    who = identity()
    with FileLock(home() / LOCK):
        registry = aliases.read()
        move = _draft(registry, "promote", alias, int(registry.find(version).version), who, why)
        registry.check_agrees(move)
        if move.before == move.version:
            return f"{registry.name} version {move.version} is {alias} already"
        return _make(registry, move, _judged(registry, move, by, anyway))


def rollback(why: str = "") -> str:
    """Make the version champion that was it before the present one.

    Raises:
        ProjectError: There was none before, or it is gone; Git does not know who asks; MLflow can't be reached; or
            MLflow and the log disagree about who is champion.
    """
    who = identity()
    with FileLock(home() / LOCK):
        registry = aliases.read()
        *_, before, now = (None, None, *registry.standing.champions)
        if before is None:
            registry.check_agrees()
            raise ProjectError(f"no version of {registry.name} was champion before {now}", f"{VERB} promote <version>")
        move = _draft(registry, "rollback", CHAMPION, before, who, why)
        registry.check_agrees(move)
        return _make(registry, move, {})


def _draft(registry: Registry, action: str, alias: str, number: int, who: tuple[str, str], why: str) -> AliasChange:
    commit = result_commit(registry.find(str(number)))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = registry.standing.of(alias)
    return AliasChange(registry.name, action, alias, before, number, *who, now, why, {"run": metrics_at(commit)})


def _judged(registry: Registry, move: AliasChange, by: str, anyway: bool) -> dict[str, Any]:
    """Return the figures of the comparison that justifies a move; raise where they don't."""
    champion = registry.standing.of(CHAMPION)
    if champion is None:
        return {}
    needed, past = move.alias == CHAMPION and not anyway, f"{VERB} promote {move.version} --anyway --why '…'"
    try:
        bouts = compare(registry, move.version, champion, by)
    except IncomparableError as error:
        if needed:
            raise IncomparableError(error.problem, f"{error.fix}; or {past}") from error
        log.warning("not compared: %s", error.problem)
        return {"not_compared": error.problem}
    told = f"version {move.version} against the champion, version {champion}, by {by}: {'; '.join(map(str, bouts))}"
    if needed and not all(bout.candidate >= bout.champion for bout in bouts):
        raise ProjectError(f"it is worse: {told}", f"promote a better one; or {past}")
    log.info("%s", told)
    return {"by": by, "champion": champion, "test_sets": [dataclasses.asdict(bout) for bout in bouts]}


def _make(registry: Registry, move: AliasChange, compared: dict[str, Any]) -> str:
    if aliases.read().aliases != registry.aliases:  # comparing takes its time
        raise ProjectError(f"meanwhile somebody moved an alias of {registry.name}", "the same command again")
    move = dataclasses.replace(move, metrics={**move.metrics, **compared})
    aliases.apply(registry, {move.alias: move.version}, [move])
    lineage_log.record(result_commit(registry.versions[move.version]), move.entry())
    return f"{registry.name} version {move.version} is {move.alias}"


def identity() -> tuple[str, str]:
    """Return who runs this, as `Move` has it: what Git knows, and what AWS knows.

    Raises:
        ProjectError: Git does not know them.
    """
    try:
        # Without useConfigOnly, Git makes up a name of the account and the machine.
        found = git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
    except GitError as error:
        fix = "git config user.name 'Your Name' && git config user.email you@example.org"
        raise ProjectError("Git does not know who you are, and the registry records who moves an alias", fix) from error
    return found.rsplit(" ", 2)[0], _aws_caller()  # Git's without the time and its zone


def _aws_caller() -> str:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    patience = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            return "none"
        sts = session.client("sts", region_name=session.region_name or "us-east-1", config=patience)
        return str(sts.get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError) as error:
        log.warning("AWS did not say who you are, and the record will say so: %s", error)
        return f"unknown ({type(error).__name__})"

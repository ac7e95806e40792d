"""Put a version in use, and take it back: `registry promote`, `registry rollback`.

A version must be as good as the champion on the same records, by a metric of the team's `interface.METRICS`. Records
that one of the two has trained on, and those of subjects who have no consent today, do not count.

A change is first made in MLflow, then written to the log. When a command is killed in between, the same command
completes it: it finds the alias set in MLflow, compares with the log's champion as before, and writes.
"""

import dataclasses
import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from filelock import FileLock

from ..config import home
from ..errors import ProjectError
from ..records import consent, shards
from ..tracking import lineage_log, mlflow_client
from ..tracking.git import GitError, git
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.sync_status import REPAIR
from . import aliases
from .aliases import CHAMPION, VERB, AliasChange, Registry, alias_holders
from .evaluation import (
    IncomparableError,
    fair_part,
    find_metric,
    measure,
    predict,
    restored,
    result_commit,
    seen_subjects,
)
from .predictions import open_pyfunc
from .versions import metrics_at

LOCK = ".dvc/tmp/registry.lock"  # of two commands in one clone, the second waits
TEST_SET = "data/dataset/test"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """The scores of two versions on one test set."""

    test_set_of: int  # a version
    records: int  # on which both were measured
    seen: int  # records left out, since one of the two has trained on their subject, or was chosen by it (val)
    without_consent: int  # further records left out
    candidate: float
    champion: float


def promote(version: str, alias: str = CHAMPION, by: str = "test_acc", why: str = "", anyway: bool = False) -> str:
    """Give a version (a number, or an alias that it has) an alias, when it is as good as the champion.

    A challenger may be worse, since it is not in use. With `anyway`, and a reason, a version that is worse or can't be
    compared becomes champion too.

    Raises:
        ProjectError: It is worse, or can't be compared; nobody can be held to it (no Git identity, no reason); the
            version, its commit or MLflow isn't there; or MLflow and the log disagree about who has the alias.
    """
    find_metric(by, "test_")
    if anyway and not why.strip():
        raise ProjectError("--anyway goes past the comparison, so it needs a reason", "--why '…'")
    who = identity()
    with FileLock(home() / LOCK):
        registry = aliases.read()
        change = _draft(registry, "promote", alias, int(registry.find(version).version), who, why)
        registry.check_agrees(change)
        if change.before == change.version:
            return f"{registry.name} version {change.version} is {alias} already"
        return _make(registry, change, _justify(registry, change, by, anyway))


def rollback(why: str = "") -> str:
    """Make the version champion that was champion before the present one; raises what `promote` does."""
    who = identity()
    with FileLock(home() / LOCK):
        registry = aliases.read()
        *_, before, now = (None, None, *alias_holders(registry.log)[CHAMPION])
        if before is None:
            registry.check_agrees()
            raise ProjectError(f"no version of {registry.name} was champion before {now}", f"{VERB} promote <version>")
        change = _draft(registry, "rollback", CHAMPION, before, who, why)
        registry.check_agrees(change)
        return _make(registry, change, {})


def _draft(registry: Registry, action: str, alias: str, number: int, who: tuple[str, str], why: str) -> AliasChange:
    metrics = {"run": metrics_at(result_commit(registry.find(str(number))))}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return AliasChange(registry.name, action, alias, registry.holder(alias), number, *who, now, why, metrics)


def _justify(registry: Registry, change: AliasChange, by: str, anyway: bool) -> dict[str, Any]:
    """Return the results of the comparison that justify a change; raise ProjectError where they don't."""
    if (champion := registry.holder(CHAMPION)) is None:
        return {}
    must_win, override = change.alias == CHAMPION and not anyway, f"{VERB} promote {change.version} --anyway --why '…'"
    try:
        results = compare(registry, change.version, champion, by)
    except IncomparableError as error:
        if must_win:
            raise IncomparableError(error.problem, f"{error.fix}; or {override}") from error
        log.warning("not compared: %s", error.problem)
        return {"not_compared": error.problem}
    scores = "; ".join(
        f"{result.candidate:.4f} against {result.champion:.4f} on the test set of version {result.test_set_of} "
        f"({result.records} records; left out: {result.seen} that one of them has trained on, "
        f"{result.without_consent} without consent)"
        for result in results
    )
    summary = f"version {change.version} against the champion, version {champion}, by {by}: {scores}"
    sign = 1 if find_metric(by, "test_").higher_is_better else -1
    if must_win and not all(sign * result.candidate >= sign * result.champion for result in results):
        raise ProjectError(f"it is worse: {summary}", f"promote a better one; or {override}")
    log.info("%s", summary)
    return {"by": by, "champion": champion, "test_sets": [dataclasses.asdict(result) for result in results]}


def _make(registry: Registry, change: AliasChange, compared: dict[str, Any]) -> str:
    if aliases.read().aliases != registry.aliases:  # a comparison takes time
        raise ProjectError(f"meanwhile somebody moved an alias of {registry.name}", "run the same command again")
    change = dataclasses.replace(change, metrics={**change.metrics, **compared})
    aliases.apply(registry, {change.alias: change.version}, [change])
    lineage_log.record(result_commit(registry.versions[change.version]), change.entry())
    return f"{registry.name} version {change.version} is {change.alias}"


def identity() -> tuple[str, str]:
    """Return who runs this, as `AliasChange` has it: what Git and AWS know; raise ProjectError if Git does not."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # Without useConfigOnly, Git makes up a name of the account and the machine.
        author = git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
    except GitError as error:
        fix = "git config user.name 'Your Name' && git config user.email you@example.org"
        raise ProjectError("Git does not know who you are, and the registry records who moves an alias", fix) from error
    who = author.rsplit(" ", 2)[0]  # without the time and its zone
    patience = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            return who, "none"
        sts = session.client("sts", region_name=session.region_name or "us-east-1", config=patience)
        return who, str(sts.get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError) as error:
        log.warning("AWS did not say who you are, and the record will say so: %s", error)
        return who, f"unknown ({type(error).__name__})"


def compare(registry: Registry, candidate: int, champion: int, by: str) -> list[Comparison]:
    """Measure two versions on the test set of the first, and on that of the second where it differs.

    IncomparableError is raised where a version, its data or its trainings aren't there, or no record is fair to both.
    """
    import mlflow

    if champion not in registry.versions:
        raise IncomparableError(f"{registry.name} version {champion} is not in MLflow any more", REPAIR)
    versions = [registry.versions[number] for number in (candidate, champion)]
    seen = frozenset[str]().union(*(seen_subjects(registry, version) for version in versions))
    test_sets = [_fair_records(version, seen) for version in versions]
    if test_sets[0][0].equals(test_sets[1][0]):
        del test_sets[1]
    mlflow_client.client()  # tells MLflow its tracking URI
    metric = find_metric(by, "test_")
    scores = []
    for version in versions:
        uri = f"models:/{registry.name}/{version.version}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = open_pyfunc(mlflow.pyfunc.load_model(uri, dst_path=folder))
                answers = [predict(model, records) for records, *_ in test_sets]
            except Exception as error:  # the model runs code of its own, which raises what it likes
                fix = f"see that MLflow answers, and what it needs: mlflow.pyfunc.get_model_dependencies('{uri}')"
                raise IncomparableError(f"{uri} gives no {by}: {error}", fix) from error
        scores.append([measure(answer, [metric])[metric.name] for answer in answers])
    return [
        Comparison(int(version.version), len(records), *left_out, *pair)
        for version, (records, *left_out), pair in zip(versions, test_sets, zip(*scores, strict=True), strict=False)
    ]


def _fair_records(version: StoredVersion, seen: frozenset[str]) -> tuple[pa.Table, int, int]:
    """Return the records of a test set that are fair to both, and how many are not: seen, without consent."""
    with restored(version, TEST_SET) as folder:
        test = shards.read(folder / TEST_SET)
    today = consent.read(consent.PATH) if version.tags.get("consent_sha256") != consent.NOT_REQUIRED else None
    records, trained_on, without_consent = fair_part(test, seen, today)
    if not len(records):
        raise IncomparableError(
            f"of the {len(test)} records in the test set of version {version.version} none is left: one of the two has "
            f"trained on {trained_on}, and {without_consent} more have no consent",
            "compare versions of the same split (params.yaml:split)",
        )
    return records, trained_on, without_consent

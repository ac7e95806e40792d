"""Check all that a first job on SageMaker needs, before it costs anything: `python -m mlops jobs doctor`.

It starts nothing and changes nothing; one small object is written to S3, read, and deleted again.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ...errors import UnavailableError
from ...explain import explain
from ...output import table
from .checks import account, project
from .checks.project import CheckResult, CheckStatus, Results, broken, unknown


class Check(NamedTuple):
    """A check."""

    name: str
    run: Callable[[], Results]
    after: tuple[str, ...] = ()  # the checks that must not have failed before it


CHECKS = (
    Check("jobs", project.jobs),
    Check("GPUs", project.gpus, ("jobs",)),
    Check("git", project.commit, ("jobs",)),
    Check("region", project.region),
    Check("credentials", project.credentials, ("region",)),
    Check("places", project.places),
    Check("buckets", account.buckets, ("credentials", "places")),
    Check("keys", account.keys, ("credentials", "jobs")),
    Check("probe", account.probe, ("buckets", "keys")),
    Check("data", project.pushed, ("buckets",)),
    Check("role", project.role, ("credentials",)),
    Check("role's rights", account.of_role, ("role", "places", "jobs")),
    Check("own rights", account.of_caller, ("credentials", "places", "jobs")),
    Check("image", account.images, ("credentials", "jobs")),
    Check("quotas", account.quotas, ("credentials", "jobs")),
    Check("network", account.networks, ("credentials", "jobs")),
    Check("MLflow", project.tracking, ("jobs",)),
)


class DoctorReport(NamedTuple):
    """The results of all checks: the name of a check and one of its results, in the order of `CHECKS`."""

    rows: list[tuple[str, CheckResult]]

    @property
    def is_broken(self) -> bool:
        """Return whether something must be corrected."""
        return any(result.status is CheckStatus.BROKEN for _, result in self.rows)

    def table(self) -> str:
        """Return it for people."""
        lines = []
        for name, result in self.rows:
            lines += [(result.status, name, result.message), *([("", "", f"Fix: {result.fix}")] if result.fix else [])]
        statuses = [result.status for _, result in self.rows]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in CheckStatus if status in statuses)
        return f"{table(lines)}\n\n{counts}"


def examine() -> DoctorReport:
    """Run all checks, in parallel as far as they don't depend on each other."""
    # Here, and not by several threads at once: their modules import each other.
    import boto3  # noqa: F401
    import dvc.repo  # noqa: F401

    with ThreadPoolExecutor(len(CHECKS)) as pool:  # one thread for each: some wait for others
        futures: dict[str, Future[list[CheckResult]]] = {}
        for check in CHECKS:
            futures[check.name] = pool.submit(_results, check, {name: futures[name] for name in check.after})
        return DoctorReport([(name, result) for name, future in futures.items() for result in future.result()])


def _results(check: Check, before: dict[str, Future[list[CheckResult]]]) -> list[CheckResult]:
    """Return the results of a check; an error that it raises is the last one."""
    from botocore.exceptions import ClientError

    for name, future in before.items():
        if any(result.status in (CheckStatus.BROKEN, CheckStatus.SKIPPED) for result in future.result()):
            return [CheckResult(CheckStatus.SKIPPED, f"because of {name}")]
    results: list[CheckResult] = []
    try:
        results.extend(check.run())
    except Exception as error:
        if not (known := explain(error)):
            raise
        describe = unknown if isinstance(known, UnavailableError) else broken
        if isinstance(error, ClientError):
            results.append(unknown(known.problem, f"ask somebody who may do {error.operation_name}"))
        else:
            results.append(describe(known.problem, known.fix))
    return results

"""Look at all that a first job on SageMaker needs, before it costs anything.

    python -m mlops jobs doctor

It starts nothing and changes nothing; one small object is written to S3, read, and deleted again.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

from ...errors import ProjectError
from . import client
from .checks import account, data, instances, permissions, project
from .checks.result import CheckResult, CheckStatus, Findings, mend, unasked


@dataclass(frozen=True)
class Check:
    """One of the things to look at.

    Args:
        name: For people.
        ask: Does it.
        after: Those that it makes no sense without.
    """

    name: str
    ask: Callable[[], Findings]
    after: tuple[str, ...] = ()


TABLE = (
    Check("jobs", project.jobs),
    Check("git", project.commit, ("jobs",)),
    Check("region", account.region),
    Check("credentials", account.credentials, ("region",)),
    Check("places", data.places),
    Check("buckets", data.buckets, ("credentials", "places")),
    Check("keys", data.keys, ("credentials", "jobs")),
    Check("probe", data.probe, ("buckets", "keys")),
    Check("data", data.pushed, ("buckets",)),
    Check("role", account.role, ("credentials",)),
    Check("role's rights", permissions.of_role, ("role", "places", "jobs")),
    Check("own rights", permissions.of_caller, ("credentials", "places", "jobs")),
    Check("image", instances.images, ("credentials", "jobs")),
    Check("quotas", instances.quotas, ("credentials", "jobs")),
    Check("network", instances.networks, ("credentials", "jobs")),
    Check("MLflow", project.tracking, ("jobs",)),
)


@dataclass(frozen=True)
class DoctorReport:
    """What was found, in the table's order.

    Args:
        rows: The name of a check, and one thing that it found.
    """

    rows: list[tuple[str, CheckResult]]

    @property
    def is_broken(self) -> bool:
        """Return whether something is to be mended."""
        return self.count(CheckStatus.MEND) > 0

    def count(self, standing: CheckStatus) -> int:
        """Return of how many things this is true."""
        return sum(finding.standing is standing for _, finding in self.rows)

    def as_json(self) -> list[dict[str, str]]:
        """Return it for programs."""
        return [{"check": name, **asdict(finding)} for name, finding in self.rows]

    def table(self) -> str:
        """Return it for people."""
        widths = max(map(len, CheckStatus)), max(len(name) for name, _ in self.rows)
        lines = []
        for name, finding in self.rows:
            lines.append(f"{finding.standing:<{widths[0]}}  {name:<{widths[1]}}  {finding.found}")
            lines += [f"{'':<{sum(widths) + 4}}Fix: {finding.fix}"] if finding.fix else []
        return "\n".join([*lines, "", ", ".join(f"{self.count(one)} {one}" for one in CheckStatus if self.count(one))])


def examine() -> DoctorReport:
    """Do all checks, at once as far as they don't need each other."""
    # Here, and not by several threads at once: their modules import each other.
    import boto3  # noqa: F401
    import dvc.repo  # noqa: F401

    with ThreadPoolExecutor(len(TABLE)) as pool:  # one for each: some wait for others
        found: dict[str, Future[list[CheckResult]]] = {}
        for check in TABLE:
            found[check.name] = pool.submit(_findings, check, {name: found[name] for name in check.after})
        return DoctorReport([(name, finding) for name, future in found.items() for finding in future.result()])


def _findings(check: Check, before: dict[str, Future[list[CheckResult]]]) -> list[CheckResult]:
    """Return what a check finds; what it can't deal with is a finding too."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException

    for name, future in before.items():
        if any(one.standing in (CheckStatus.MEND, CheckStatus.SKIPPED) for one in future.result()):
            return [CheckResult(CheckStatus.SKIPPED, f"because of {name}")]
    found: list[CheckResult] = []
    try:
        found.extend(check.ask())
    except client.AwsUnavailableError as error:
        found.append(unasked(error.problem, error.fix))
    except ProjectError as error:
        found.append(mend(error.problem, error.fix))
    except DvcException as error:
        found.append(mend(f"DVC says: {error}", "mend that, in .dvc/config or dvc.yaml"))
    except ClientError as error:
        found.append(unasked(str(error), f"have it asked by somebody who may do {error.operation_name}"))
    except BotoCoreError as error:
        found.append(unasked(str(error), "see that the network is there, then the same command"))
    return found

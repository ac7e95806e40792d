"""Look at all that a first job on SageMaker needs, before it costs anything.

    python -m <package> jobs doctor

It starts nothing and changes nothing; one small object is written to S3, read, and deleted again.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

from ...errors import ProjectError
from . import api
from .checks import account, data, machines, project, rights
from .checks.finding import Finding, Findings, Standing, mend, unasked


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
    Check("role's rights", rights.of_role, ("role", "places", "jobs")),
    Check("own rights", rights.of_caller, ("credentials", "places", "jobs")),
    Check("image", machines.images, ("credentials", "jobs")),
    Check("quotas", machines.quotas, ("credentials", "jobs")),
    Check("network", machines.networks, ("credentials", "jobs")),
    Check("MLflow", project.tracking, ("jobs",)),
)


@dataclass(frozen=True)
class Report:
    """What was found, in the table's order.

    Args:
        rows: The name of a check, and one thing that it found.
    """

    rows: list[tuple[str, Finding]]

    @property
    def is_broken(self) -> bool:
        """Return whether something is to be mended."""
        return self.count(Standing.MEND) > 0

    def count(self, standing: Standing) -> int:
        """Return of how many things this is true."""
        return sum(finding.standing is standing for _, finding in self.rows)

    def as_json(self) -> list[dict[str, str]]:
        """Return it for programs."""
        return [{"check": name, **asdict(finding)} for name, finding in self.rows]

    def table(self) -> str:
        """Return it for people."""
        widths = max(map(len, Standing)), max(len(name) for name, _ in self.rows)
        lines = []
        for name, finding in self.rows:
            lines.append(f"{finding.standing:<{widths[0]}}  {name:<{widths[1]}}  {finding.found}")
            lines += [f"{'':<{sum(widths) + 4}}Fix: {finding.fix}"] if finding.fix else []
        return "\n".join([*lines, "", ", ".join(f"{self.count(one)} {one}" for one in Standing if self.count(one))])


def examine() -> Report:
    """Do all checks, at once as far as they don't need each other."""
    # Here, and not by several threads at once: their modules import each other.
    import boto3  # noqa: F401
    import dvc.repo  # noqa: F401

    with ThreadPoolExecutor(len(TABLE)) as pool:  # one for each: some wait for others
        found: dict[str, Future[list[Finding]]] = {}
        for check in TABLE:
            found[check.name] = pool.submit(_findings, check, {name: found[name] for name in check.after})
        return Report([(name, finding) for name, future in found.items() for finding in future.result()])


def _findings(check: Check, before: dict[str, Future[list[Finding]]]) -> list[Finding]:
    """Return what a check finds; what it can't deal with is a finding too."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException

    for name, future in before.items():
        if any(one.standing in (Standing.MEND, Standing.SKIPPED) for one in future.result()):
            return [Finding(Standing.SKIPPED, f"because of {name}")]
    found: list[Finding] = []
    try:
        found.extend(check.ask())
    except api.AwayError as error:
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

"""SageMaker's API, and what is the same for its two kinds of jobs.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from ..state import State


@dataclass(frozen=True)
class JobKind:
    """One of the two kinds of jobs.

    Args:
        noun: In names of fields.
        verb: In names of boto3's methods.
        log_group: Of CloudWatch.
        page: In the console's addresses.
    """

    noun: str
    verb: str
    log_group: str
    page: str


KINDS = {
    "training": JobKind("TrainingJob", "training_job", "/aws/sagemaker/TrainingJobs", "jobs"),
    "processing": JobKind("ProcessingJob", "processing_job", "/aws/sagemaker/ProcessingJobs", "processing-jobs"),
}
STATES = {
    "InProgress": State.RUNNING,
    "Stopping": State.RUNNING,
    "Completed": State.COMPLETED,
    "Failed": State.FAILED,
    "Stopped": State.STOPPED,
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
BUSY = {"ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}


class AwsUnavailableError(ProjectError):
    """AWS can't be reached, or asks to be asked less often: it is worth trying again."""


@dataclass(frozen=True)
class Job:
    """A job as SageMaker tells of it.

    Args:
        name: Its name.
        kind: "training" or "processing".
        told: All that SageMaker tells.
    """

    name: str
    kind: str
    told: dict[str, Any]

    @property
    def state(self) -> State:
        """Return what became of it."""
        return STATES[self.told[f"{KINDS[self.kind].noun}Status"]]

    @property
    def phase(self) -> str:
        """Return what it is doing, in SageMaker's words, which for trainings are finer."""
        return str(self.told.get("SecondaryStatus") or self.told[f"{KINDS[self.kind].noun}Status"])

    @property
    def reason(self) -> str:
        """Return why it failed or stopped."""
        return str(self.told.get("ExitMessage") or self.told.get("FailureReason") or self.phase)

    @property
    def billable_s(self) -> int | None:
        """Return the seconds to pay for, on each machine; None before SageMaker knows."""
        if self.kind == "training":
            return self.told.get("BillableTimeInSeconds")
        start, end = self.told.get("ProcessingStartTime"), self.told.get("ProcessingEndTime")
        return round((end - start).total_seconds()) if start and end else None

    @property
    def machines(self) -> str:
        """Return how many of which machines it has."""
        told = (
            self.told["ResourceConfig"]
            if self.kind == "training"
            else self.told["ProcessingResources"]["ClusterConfig"]
        )
        return f"{told['InstanceCount']} x {told['InstanceType']}"

    @property
    def page(self) -> str:
        """Return the address of its page in AWS's console."""
        region = self.told[f"{KINDS[self.kind].noun}Arn"].split(":")[3]
        place = f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}"
        return f"{place}#/{KINDS[self.kind].page}/{self.name}"


def region() -> str:
    """Return the project's region.

    Raises:
        ProjectError: No region is set.
    """
    found = load_platform().region
    if not found:
        raise ProjectError("no AWS region is set", "platform.yaml:region: such as us-east-1")
    return found


@functools.cache
def client(service: str, attempts: int = 4) -> Any:
    """Return boto3's client of a service in the project's region.

    Args:
        service: boto3's name of it.
        attempts: How often it asks, when AWS is away or too busy.

    Raises:
        ProjectError: No region is set.
    """
    import boto3
    from botocore.config import Config

    # "standard" waits longer after each throttling, and does the same after a lost connection.
    patient = Config(retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=10, read_timeout=60)
    return boto3.Session(region_name=region()).client(service, config=patient)


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turn what AWS says in the block into an error of the project.

    Raises:
        AwayError: It can't be reached, or is too busy.
        ProjectError: It refuses, or knows no such thing.
    """
    from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, HTTPClientError

    try:
        yield
    except HTTPClientError as error:
        raise AwsUnavailableError(
            f"AWS can't be reached: {error}", "see that the network is there, then the same command"
        ) from error
    except (BotoCoreError, CredentialRetrievalError) as error:
        raise ProjectError(f"AWS can't be asked: {error}", "aws configure, or AWS_PROFILE=<a profile>") from error
    except ClientError as error:
        raise _told(error) from error


def _told(error: Any) -> ProjectError:
    code, said = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in BUSY or status >= 500:
        return AwsUnavailableError(f"AWS is too busy: {code}: {said}", "the same command, later")
    if code in EXPIRED:
        return ProjectError(
            f"the AWS credentials have expired: {said}",
            "log in again (aws sso login), then the same command; a job that runs goes on meanwhile",
        )
    if code in REFUSED:
        return ProjectError(f"AWS refuses: {said}", "python -m mlops jobs doctor")
    if code == "ResourceLimitExceeded":
        return ProjectError(
            f"the account's quota is used up: {said}",
            "ask for more (Service Quotas, SageMaker), wait for other jobs, or another instance_type in meta.job",
        )
    return ProjectError(f"AWS says {code}: {said}", "python -m mlops jobs doctor")


def describe(name: str, kind: str | None = None) -> Job | None:
    """Return a job as it is now; None when there is no such job.

    Args:
        name: Its name.
        kind: "training" or "processing"; None to look for it among both.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    from botocore.exceptions import ClientError

    for one in (kind,) if kind else KINDS:
        with translate_errors():
            try:
                ask = getattr(client("sagemaker"), f"describe_{KINDS[one].verb}")
                return Job(name, one, ask(**{f"{KINDS[one].noun}Name": name}))
            except ClientError as error:
                if not _is_unknown(error):
                    raise
    return None


def _is_unknown(error: Any) -> bool:
    """Return whether there is no such job: the documented ResourceNotFound, or what SageMaker says in fact."""
    told = error.response["Error"]
    said = told.get("Message", "").lower()
    return told["Code"] == "ResourceNotFound" or (
        told["Code"] == "ValidationException" and ("not found" in said or "could not find" in said)
    )


def create(kind: str, request: dict[str, Any]) -> bool:
    """Start a job.

    Returns:
        Whether this call did: not when one of this name is there.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses the request.
    """
    from botocore.exceptions import ClientError

    with translate_errors():
        try:
            getattr(client("sagemaker"), f"create_{KINDS[kind].verb}")(**request)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUse":
                raise
            return False
    return True


def stop(job: Job) -> None:
    """Ask a job to stop; nothing happens to one that has ended.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    from botocore.exceptions import ClientError

    with translate_errors():
        try:
            getattr(client("sagemaker"), f"stop_{KINDS[job.kind].verb}")(**{f"{KINDS[job.kind].noun}Name": job.name})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise


def names(part: str) -> list[str]:
    """Return the names of the account's jobs of which `part` is the beginning, the oldest first.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    found = []
    with translate_errors():
        for kind in KINDS.values():
            pages = client("sagemaker").get_paginator(f"list_{kind.verb}s").paginate(NameContains=part)
            rows = [row for page in pages for row in page[f"{kind.noun}Summaries"]]
            found += [(row["CreationTime"], row[f"{kind.noun}Name"]) for row in rows]
    return [name for _, name in sorted(found) if name.startswith(part)]

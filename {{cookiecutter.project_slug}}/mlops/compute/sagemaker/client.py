"""How the project calls AWS: errors, S3, and what its two kinds of SageMaker jobs have in common.

A function that calls AWS raises `AwsUnavailableError` when AWS can't be reached or is too busy, and `ProjectError` when
it refuses.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

import contextlib
import functools
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...config import load_platform
from ...errors import ProjectError
from ..backend import State
from ..transfer import S3

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class JobKind:
    """One of the two kinds of jobs: its names in fields, in boto3's methods, in CloudWatch and in the console."""

    noun: str
    verb: str
    log_group: str
    page: str


KINDS = {
    "training": JobKind("TrainingJob", "training_job", "/aws/sagemaker/TrainingJobs", "jobs"),
    "processing": JobKind("ProcessingJob", "processing_job", "/aws/sagemaker/ProcessingJobs", "processing-jobs"),
}
STATES = {"InProgress": State.RUNNING, "Stopping": State.RUNNING} | {
    state.value: state for state in (State.COMPLETED, State.FAILED, State.STOPPED)
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
REFUSED = {
    *("AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch"),
    "UnrecognizedClientException",
}
BUSY = {"ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}
# The documented ResourceNotFound, or what SageMaker says in fact.
NO_JOB = r"ResourceNotFound:|ValidationException: .*(not found|could not find)"
RETRY_S = 1.0


class AwsUnavailableError(ProjectError):
    """AWS can't be reached, or asks to be called less often: it is worth trying again."""


@dataclass(frozen=True)
class Job:
    """A job in SageMaker."""

    name: str
    kind: str  # "training" or "processing"
    details: dict[str, Any]  # the response of SageMaker's Describe call

    @property
    def state(self) -> State:
        """Return what became of it."""
        return STATES[self.details[f"{KINDS[self.kind].noun}Status"]]

    @property
    def phase(self) -> str:
        """Return what it is doing, in SageMaker's words, which are finer for trainings."""
        return str(self.details.get("SecondaryStatus") or self.details[f"{KINDS[self.kind].noun}Status"])

    @property
    def reason(self) -> str:
        """Return why it failed or stopped."""
        return str(self.details.get("ExitMessage") or self.details.get("FailureReason") or self.phase)

    @property
    def billable_s(self) -> int | None:
        """Return the billed seconds of each machine; None before SageMaker knows."""
        if self.kind == "training":
            return self.details.get("BillableTimeInSeconds")
        start, end = self.details.get("ProcessingStartTime"), self.details.get("ProcessingEndTime")
        return round((end - start).total_seconds()) if start and end else None

    @property
    def machines(self) -> str:
        """Return its machines, such as 2 x ml.m5.xlarge."""
        resources = self.details.get("ResourceConfig") or self.details["ProcessingResources"]["ClusterConfig"]
        return f"{resources['InstanceCount']} x {resources['InstanceType']}"

    @property
    def page(self) -> str:
        """Return the address of its page in AWS's console."""
        job_region = self.details[f"{KINDS[self.kind].noun}Arn"].split(":")[3]
        home = f"https://{job_region}.console.aws.amazon.com/sagemaker/home?region={job_region}"
        return f"{home}#/{KINDS[self.kind].page}/{self.name}"


def region() -> str:
    """Return the project's region.

    Raises:
        ProjectError: `platform.yaml` sets none.
    """
    name = load_platform().region
    if not name:
        raise ProjectError("no AWS region is set", "platform.yaml:region: such as us-east-1")
    return name


@functools.cache
def client(service: str, attempts: int = 4) -> Any:
    """Return boto3's client of a service in the project's region; it tries a call `attempts` times at most."""
    import boto3
    from botocore.config import Config

    # "standard" waits longer after each throttling, and retries lost connections too.
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=10, read_timeout=60)
    return boto3.Session(region_name=region()).client(service, config=config)


def attempt(method: Callable[..., Any], expected: str = "", **request: Any) -> tuple[Any, str]:
    """Call a method of a boto3 client, such as `client("s3").head_bucket`, with the arguments `request`.

    Args:
        method: The method.
        expected: Regular expression of errors to return, matched from the start of "<code>: <message>", in any case;
            other errors are raised as boto3 does.
        request: Its arguments.

    Returns:
        The response, {} after an expected error; and that error as "<code>: <message>", "" when there was none.
    """
    from botocore.exceptions import ClientError

    try:
        return method(**request), ""
    except ClientError as error:
        text = f"{error_code(error)}: {error.response['Error'].get('Message', '')}"
        if not (expected and re.match(expected, text, re.IGNORECASE)):
            raise
        return {}, text


def call(method: Callable[..., Any], expected: str = "", **request: Any) -> Any:
    """Call a method of a boto3 client and return its response, or {} after an expected error; see `attempt`."""
    with translate_errors():
        return attempt(method, expected, **request)[0]


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turn an error of AWS or boto3 in the block into a `ProjectError`, an `AwsUnavailableError` where it fits."""
    from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, HTTPClientError

    try:
        yield
    except HTTPClientError as error:
        raise AwsUnavailableError(
            f"AWS can't be reached: {error}", "check the network connection, then the same command"
        ) from error
    except (BotoCoreError, CredentialRetrievalError) as error:
        raise ProjectError(f"AWS can't be called: {error}", "aws configure, or AWS_PROFILE=<a profile>") from error
    except ClientError as error:
        raise _project_error(error) from error


def _project_error(error: Any) -> ProjectError:
    code, message = error_code(error), error.response["Error"].get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in BUSY or status >= 500:
        return AwsUnavailableError(f"AWS is too busy: {code}: {message}", "the same command, later")
    if code in EXPIRED:
        return ProjectError(
            f"the AWS credentials have expired: {message}",
            "log in again (aws sso login), then the same command; a running job goes on meanwhile",
        )
    if code in REFUSED:
        return ProjectError(f"AWS refuses: {message}", "python -m mlops jobs doctor")
    if code == "ResourceLimitExceeded":
        return ProjectError(
            f"the account's quota is used up: {message}",
            "ask for more (Service Quotas, SageMaker), wait for other jobs, or another instance_type in meta.job",
        )
    return ProjectError(f"AWS says {code}: {message}", "python -m mlops jobs doctor")


def error_code(error: Any) -> str:
    """Return AWS's code of a `ClientError`."""
    return str(error.response["Error"]["Code"])


def retry_forever(function: Callable[[], Result]) -> Result:
    """Return the result of `function`, called again while AWS is unavailable: a job goes on without the launcher."""
    warned = False
    while True:
        try:
            return function()
        except AwsUnavailableError as error:
            if not warned:
                log.warning("%s. The job goes on; trying again", error.problem)
            warned = True
            time.sleep(RETRY_S)


def describe(name: str, kind: str | None = None) -> Job | None:
    """Return a job as it is now, of one kind or of either; None when there is no such job."""
    for job_kind in (kind,) if kind else KINDS:
        noun, verb = KINDS[job_kind].noun, KINDS[job_kind].verb
        details = call(getattr(client("sagemaker"), f"describe_{verb}"), NO_JOB, **{f"{noun}Name": name})
        if details:
            return Job(name, job_kind, details)
    return None


def create(kind: str, request: dict[str, Any]) -> bool:
    """Start a job; return False when a job of this name exists already."""
    return bool(call(getattr(client("sagemaker"), f"create_{KINDS[kind].verb}"), "ResourceInUse:", **request))


def stop(job: Job) -> None:
    """Ask a job to stop; nothing happens to one that has ended."""
    method = getattr(client("sagemaker"), f"stop_{KINDS[job.kind].verb}")
    call(method, "ValidationException:", **{f"{KINDS[job.kind].noun}Name": job.name})


def names(prefix: str) -> list[str]:
    """Return the names of the account's jobs that begin with `prefix`, the oldest first."""
    jobs: list[tuple[Any, str]] = []
    with translate_errors():
        for kind in KINDS.values():
            pages = client("sagemaker").get_paginator(f"list_{kind.verb}s").paginate(NameContains=prefix)
            rows = pages.search(f"{kind.noun}Summaries[]")
            jobs += [(row["CreationTime"], row[f"{kind.noun}Name"]) for row in rows]
    return [name for _, name in sorted(jobs) if name.startswith(prefix)]


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 address."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key


def upload(path: Path, uri: str, kms_key: str | None) -> None:
    """Copy a file to S3, unless the object exists: an object's name is made of its content, or used once."""
    bucket, key = split_uri(uri)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    with path.open("rb") as file:
        target = {"Bucket": bucket, "Key": key, "Body": file, "IfNoneMatch": "*", **encryption}
        call(client("s3").put_object, "(PreconditionFailed|ConditionalRequestConflict):", **target)


def download(uri: str, folder: Path) -> bool:
    """Copy the objects below an S3 address into a folder, each whole or not at all; return whether there were any."""
    bucket, prefix = split_uri(uri)
    s3, keys = client("s3"), []
    with translate_errors():
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            keys += [entry["Key"] for entry in page.get("Contents", [])]
        for key in keys:
            path = folder / key.removeprefix(prefix).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, key, str(path))
    return bool(keys)

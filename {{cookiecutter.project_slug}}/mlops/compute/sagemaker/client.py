"""How the project calls AWS: errors, S3, and what its two kinds of SageMaker jobs have in common.

A function that calls AWS raises `UnavailableError` when AWS can't be reached or is too busy, and `ProjectError` when it
refuses.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Service.html
"""

import contextlib
import functools
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...config import load_platform
from ...errors import ProjectError, UnavailableError
from ...explain import explain
from ..backend import State
from ..transfer import S3

log = logging.getLogger(__name__)
Result = TypeVar("Result")

KINDS = ("training", "processing")
TRIES, RETRY_S = 4, 1.0  # of a call, when AWS is unavailable or too busy; between two tries of `retry_forever`
# The documented ResourceNotFound, or what SageMaker says in fact.
NO_JOB = r"ResourceNotFound:|ValidationException: .*(not found|could not find)"
DOCTOR = "python -m mlops jobs doctor"
REFUSED = r"AccessDenied(Exception)?"
LIMIT = "ask for more (Service Quotas, SageMaker), wait for other jobs, or another instance_type in meta.job"


def noun(kind: str) -> str:
    """Return a kind of jobs as SageMaker's fields name it: TrainingJob or ProcessingJob."""
    return f"{kind.capitalize()}Job"


def log_group(kind: str) -> str:
    """Return the log group of a kind of jobs in CloudWatch."""
    return f"/aws/sagemaker/{noun(kind)}s"


class Job(NamedTuple):
    """A job in SageMaker."""

    name: str
    kind: str  # "training" or "processing"
    details: dict[str, Any]  # the response of SageMaker's Describe call

    @property
    def state(self) -> State:
        """Return its state; the words are SageMaker's."""
        status = self.details[f"{noun(self.kind)}Status"]
        return State.RUNNING if status == "Stopping" else State(status)

    @property
    def phase(self) -> str:
        """Return what it is doing, in SageMaker's words, which are finer for trainings."""
        return str(self.details.get("SecondaryStatus") or self.details[f"{noun(self.kind)}Status"])

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


def region() -> str:
    """Return the project's region, or raise a `ProjectError` when `platform.yaml` sets none."""
    if name := load_platform().region:
        return name
    raise ProjectError("no AWS region is set", "platform.yaml:region: such as us-east-1")


@functools.cache
def client(service: str, tries: int = TRIES) -> Any:
    """Return boto3's client of a service in the project's region; it tries a call `tries` times at most."""
    import boto3
    from botocore.config import Config

    # "standard" waits longer after each throttling, and retries lost connections too.
    config = Config(retries={"mode": "standard", "total_max_attempts": tries}, connect_timeout=10, read_timeout=60)
    return boto3.Session(region_name=region()).client(service, config=config)


def attempt(service: str, operation: str, expected: str = "", tries: int = TRIES, **request: Any) -> tuple[Any, str]:
    """Call an operation of a service, such as "head_bucket" of "s3"; return its response, with all its pages, and "".

    After an error whose "<code>: <message>" begins with the regular expression `expected`, in any case, the response is
    {}, and the second value that text. Other errors are raised as boto3 does.
    """
    from botocore.exceptions import ClientError

    api = client(service, tries)
    try:
        if api.can_paginate(operation):
            return api.get_paginator(operation).paginate(**request).build_full_result(), ""
        return getattr(api, operation)(**request), ""
    except ClientError as error:
        text = f"{error.response['Error']['Code']}: {error.response['Error'].get('Message', '')}"
        if not (expected and re.match(expected, text, re.IGNORECASE)):
            raise
        return {}, text


def call(service: str, operation: str, expected: str = "", **request: Any) -> Any:
    """Call an operation and return its response, or {} after an expected error; see `attempt`."""
    with translate_errors():
        return attempt(service, operation, expected, **request)[0]


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turn an error of AWS or boto3 in the block into a `ProjectError`, an `UnavailableError` where it fits."""
    try:
        yield
    except Exception as error:
        if not (known := explain(error)):
            raise
        details = getattr(error, "response", {}).get("Error", {})
        if details.get("Code") == "ResourceLimitExceeded":
            raise ProjectError(f"the account's quota is used up: {details.get('Message')}", LIMIT) from error
        if re.fullmatch(REFUSED, details.get("Code", "")):  # it simulates which rights are missing
            raise ProjectError(known.problem, f"{DOCTOR} tells what you may not; {known.fix}") from error
        raise known from error


def retry_forever(function: Callable[[], Result]) -> Result:
    """Return the result of `function`, called again while AWS is unavailable: a job goes on without the launcher."""
    warned = False
    while True:
        try:
            return function()
        except UnavailableError as error:
            if not warned:
                log.warning("%s. The job goes on; trying again", error.problem)
            warned = True
            time.sleep(RETRY_S)


def describe(name: str, kind: str | None = None) -> Job | None:
    """Return a job as it is now, of one kind or of either; None when there is no such job."""
    for job_kind in (kind,) if kind else KINDS:
        if details := call("sagemaker", f"describe_{job_kind}_job", NO_JOB, **{f"{noun(job_kind)}Name": name}):
            return Job(name, job_kind, details)
    return None


def create(kind: str, request: dict[str, Any]) -> bool:
    """Start a job; return False when a job of this name exists already."""
    return bool(call("sagemaker", f"create_{kind}_job", "ResourceInUse:", **request))


def stop(job: Job) -> None:
    """Ask a job to stop; nothing happens to one that has ended."""
    call("sagemaker", f"stop_{job.kind}_job", "ValidationException:", **{f"{noun(job.kind)}Name": job.name})


def names(prefix: str) -> list[str]:
    """Return the names of the account's jobs that begin with `prefix`, the oldest first."""
    jobs: list[tuple[Any, str]] = []
    for kind in KINDS:
        rows = call("sagemaker", f"list_{kind}_jobs", NameContains=prefix)[f"{noun(kind)}Summaries"]
        jobs += [(row["CreationTime"], row[f"{noun(kind)}Name"]) for row in rows]
    return [name for _, name in sorted(jobs) if name.startswith(prefix)]


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 address."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key


def download(uri: str, folder: Path) -> bool:
    """Copy the objects below an S3 address into a folder, each whole or not at all; return whether there were any."""
    bucket, prefix = split_uri(uri)
    entries = call("s3", "list_objects_v2", Bucket=bucket, Prefix=prefix).get("Contents", [])
    for key in (entry["Key"] for entry in entries):
        path = folder / key.removeprefix(prefix).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with translate_errors():
            client("s3").download_file(bucket, key, str(path))
    return bool(entries)

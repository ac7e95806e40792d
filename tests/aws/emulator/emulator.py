"""SageMaker's API of jobs: each action, and what it answers."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .account import Account
from .checks import check, fitted
from .errors import ServiceError
from .jobs import Job
from .processing import ProcessingJob
from .quotas import Quotas, usage_of
from .rules import apply
from .training import TrainingJob

Action = Callable[[dict[str, Any], str], dict[str, Any]]

KINDS: tuple[type[Job], ...] = (TrainingJob, ProcessingJob)
PAGE = 10  # jobs in a list, unless asked otherwise


class Emulator:
    """All jobs of an account, and what can be asked about them.

    Args:
        account: Where they run.
        assume: Sees that a role can be assumed.
        quotas: How many machines there may be.

    Attributes:
        jobs: By their names.
        actions: By their names; those of SageMaker that are answered here.
    """

    def __init__(self, account: Account, assume: Callable[[str], None], quotas: Quotas) -> None:
        """Have no jobs yet."""
        self.jobs: dict[str, Job] = {}
        self._account, self._assume, self._quotas = account, assume, quotas
        self._lock = threading.Lock()
        self.actions: dict[str, Action] = {"ListTags": self._tags}
        for kind in KINDS:
            self.actions |= {
                f"Create{kind.noun}": self._creates(kind),
                f"Describe{kind.noun}": self._describes(kind),
                f"Stop{kind.noun}": self._stops(kind),
                f"List{kind.noun}s": self._lists(kind),
            }

    def call(self, action: str, request: dict[str, Any], region: str) -> dict[str, Any]:
        """Answer a call.

        Raises:
            ServiceError: It is answered with an error.
        """
        check(action, request)
        return fitted(action, self.actions[action](request, region))

    def close(self) -> None:
        """End all jobs."""
        running = [job for job in self.jobs.values() if not job.is_over]
        for job in running:
            job.stop()
            job.kill()
        for job in running:
            job.close()

    def _of(self, kind: type[Job]) -> Iterable[Job]:
        return [job for job in list(self.jobs.values()) if isinstance(job, kind)]

    def _creates(self, kind: type[Job]) -> Action:
        def create(request: dict[str, Any], region: str) -> dict[str, Any]:
            apply(kind.noun, request)
            self._assume(request["RoleArn"])
            job = kind(self._account, request, region)
            job.check()
            with self._lock:
                if any(other.name == job.name for other in self._of(kind)):
                    text = "names must be unique within an AWS account and region, and a"
                    what = "Training" if kind is TrainingJob else "Processing"
                    raise ServiceError(
                        "ResourceInUse",
                        f"{what} job {text} {what.lower()} job with this name already exists ({job.arn})",
                    )
                self._quotas.check(
                    usage_of(job), [usage_of(other) for other in self.jobs.values() if not other.is_over]
                )
                self.jobs[job.name] = job
            job.start()
            return {f"{kind.noun}Arn": job.arn}

        return create

    def _find(self, kind: type[Job], request: Mapping[str, Any]) -> Job:
        name = request[f"{kind.noun}Name"]
        for job in self._of(kind):
            if job.name == name:
                return job
        if kind is TrainingJob:
            raise ServiceError("ValidationException", "Requested resource not found.")
        raise ServiceError("ValidationException", f"Could not find requested job with name: {name}")

    def _describes(self, kind: type[Job]) -> Action:
        return lambda request, region: self._find(kind, request).describe()

    def _stops(self, kind: type[Job]) -> Action:
        def stop(request: dict[str, Any], region: str) -> dict[str, Any]:
            job = self._find(kind, request)
            if job.is_over:
                what = kind.noun.replace("Job", " job").lower()
                text = f"The request was rejected because the {what} is in status {job.history.status}."
                raise ServiceError("ValidationException", text)
            job.stop()
            return {}

        return stop

    def _lists(self, kind: type[Job]) -> Action:
        def listed(request: dict[str, Any], region: str) -> dict[str, Any]:
            jobs = [job for job in self._of(kind) if _fits(job, request)]
            name_first = request.get("SortBy") == "Name"
            descending = request.get("SortOrder", "Ascending" if name_first else "Descending") == "Descending"
            jobs.sort(key=lambda job: job.name if name_first else job.history.created, reverse=descending)
            start, size = int(request.get("NextToken") or 0), request.get("MaxResults", PAGE)
            page = jobs[start : start + size]
            more = {"NextToken": str(start + size)} if start + size < len(jobs) else {}
            return {f"{kind.noun}Summaries": [_summary(job) for job in page], **more}

        return listed

    def _tags(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        for job in list(self.jobs.values()):
            if job.arn == request["ResourceArn"]:
                return {"Tags": job.request.get("Tags", [])}
        raise ServiceError("ValidationException", "Requested resource not found.")


def _fits(job: Job, request: Mapping[str, Any]) -> bool:
    with contextlib.suppress(KeyError):
        if job.history.status != request["StatusEquals"]:
            return False
    earliest, latest = request.get("CreationTimeAfter", 0), request.get("CreationTimeBefore", float("inf"))
    return request.get("NameContains", "").lower() in job.name.lower() and earliest <= job.history.created <= latest


def _summary(job: Job) -> dict[str, Any]:
    details = job.describe()
    end = "TrainingEndTime" if job.noun == "TrainingJob" else "ProcessingEndTime"
    more = ("SecondaryStatus",) if job.noun == "TrainingJob" else ("FailureReason", "ExitMessage")
    own = [f"{job.noun}{field}" for field in ("Name", "Arn", "Status")]
    return {name: details[name] for name in (*own, "CreationTime", "LastModifiedTime", end, *more) if name in details}

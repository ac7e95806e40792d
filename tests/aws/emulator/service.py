"""The services that a launcher speaks to: SageMaker's jobs, CloudWatch's logs, and credentials for jobs.

What goes wrong is switched on with `breaks`.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3

from ...servers.proxies import Reply, Request, Server
from ...servers.s3 import KEY, REGION, SECRET
from . import rules
from .jobs import ENDED, Job
from .kinds import Processing, Training
from .logs import Logs

TOKEN = "of the job"  # noqa: S105  # nobody else's
KINDS: dict[str, type[Job]] = {"TrainingJob": Training, "ProcessingJob": Processing}


class Refused(Exception):
    """An answer that is an error of AWS's: its code and its message."""


class SageMaker(Server):
    """SageMaker, CloudWatch Logs and a source of credentials at one address.

    Args:
        folder: Where jobs work.
        s3_url: Where S3 is.
        images: Folder with `python`, for each image, by a part of its address.
        hidden: Folders of this machine that no job sees.
        more: Variables by which jobs find what else there is of AWS.
        grace_s: Between asking a job to stop and killing it; SageMaker's is 120.

    Attributes:
        calls: How often each action was asked for.
        jobs: By name.
    """

    def __init__(
        self,
        folder: Path,
        s3_url: str,
        images: dict[str, Path],
        hidden: list[Path],
        more: dict[str, str] | None = None,
        grace_s: float = 120,
    ) -> None:
        """Listen on a free port."""
        self.folder, self.region, self.hidden, self.grace_s = folder, REGION, hidden, grace_s
        self._more = more or {}
        self._s3_url, self._images = s3_url, images
        self.s3 = boto3.client(
            "s3", endpoint_url=s3_url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION
        )
        self.calls: Counter[str] = Counter()
        self.jobs: dict[str, Job] = {}
        self.logs = Logs()
        self._lock = threading.RLock()
        self._faults: Counter[tuple[str, str]] = Counter()
        super().__init__()

    def environment(self) -> dict[str, str]:
        """Return the variables by which a launcher finds it."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ENDPOINT_URL_S3": self._s3_url, **self._more}

    def network(self, name: str) -> dict[str, str]:
        """Return what a job finds of AWS: where it is, which no real job is told, and where its credentials are."""
        return {
            **self.environment(),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/credentials/{name}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def python(self, image: str) -> Path:
        """Return the folder of an image's Python.

        Raises:
            Refused: There is no such image.
        """
        for part, folder in self._images.items():
            if part in image:
                return folder
        raise Refused("ClientError", f"Cannot find the image {image}")

    def breaks(self, what: str, where: str = "", times: int = 1) -> None:
        """Let something go wrong.

        Args:
            what: "throttle", "drop", "expire" or "refuse", which are about calls; "capacity", about jobs.
            where: The action, or a part of the job's name; "" for any.
            times: How often.
        """
        with self._lock:
            self._faults[what, where] += times

    def heals(self) -> None:
        """Let everything go right again."""
        with self._lock:
            self._faults.clear()

    def takes(self, what: str, where: str) -> bool:
        """Return whether something is to go wrong now, and count it."""
        with self._lock:
            for (fault, place), left in self._faults.items():
                if fault == what and place in where and left > 0:
                    self._faults[fault, place] -= 1
                    return True
        return False

    def running(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs.values() if job.status not in ENDED]

    def close(self) -> None:
        """End all jobs, and take no more calls."""
        for job in self.running():
            if job.container:
                job.container.kill()
        super().close()

    def handle(self, request: Request) -> Reply | None:
        """Answer a call."""
        if request.target.startswith("/credentials/"):
            return self._credentials(request)
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        with self._lock:
            self.calls[action] += 1
        if self.takes("drop", action):
            return None
        try:
            for fault, code, said in FAULTS:
                if self.takes(fault, action):
                    raise Refused(code, said)
            return _reply(200, self._act(action, json.loads(request.body or b"{}")))
        except Refused as error:
            code, message = error.args
            return _reply(400, {"__type": code, "message": message})

    def _credentials(self, request: Request) -> Reply:
        if request.headers.get("Authorization") != TOKEN:
            return _reply(403, {"message": "not for you"})
        until = datetime.now(UTC) + timedelta(hours=1)
        told = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
        return _reply(200, told)

    def _act(self, action: str, params: dict[str, Any]) -> Any:
        verb, noun = next(
            (
                (verb, noun)
                for verb in ("Create", "Describe", "Stop", "List")
                for noun in KINDS
                if action.startswith(verb + noun)
            ),
            ("", ""),
        )
        if action in ("DescribeLogStreams", "GetLogEvents"):
            return self._logs(action, params)
        if not verb:
            raise Refused("UnknownOperationException", f"{action} is not emulated")
        wrong = rules.problems(action, params)
        if wrong:
            raise Refused("ValidationException", "; ".join(wrong))
        acts: dict[str, Callable[[str, dict[str, Any]], Any]] = {
            "Create": self._create,
            "Describe": lambda noun, params: self._get(noun, params).describe(),
            "Stop": self._stop,
            "List": self._list,
        }
        return acts[verb](noun, params)

    def _create(self, noun: str, params: dict[str, Any]) -> dict[str, str]:
        name = params[f"{noun}Name"]
        resources = params.get("ResourceConfig") or params["ProcessingResources"]["ClusterConfig"]
        if resources["InstanceCount"] > 1:
            raise Refused("ValidationException", "several instances are not emulated")
        with self._lock:
            if name in self.jobs:
                raise Refused("ResourceInUse", f"Job names must be unique, and a job named {name} already exists")
            self.jobs[name] = KINDS[noun](self, params)
        return {f"{noun}Arn": self.jobs[name].arn}

    def _get(self, noun: str, params: dict[str, Any]) -> Job:
        name = params[f"{noun}Name"]
        job = self.jobs.get(name)
        if job is None or job.noun != noun:
            if noun == "TrainingJob":
                raise Refused("ValidationException", "Requested resource not found.")
            raise Refused("ResourceNotFound", f"Could not find requested job with name: {name}")
        return job

    def _stop(self, noun: str, params: dict[str, Any]) -> dict[str, str]:
        job = self._get(noun, params)
        if job.status in ENDED:
            raise Refused("ValidationException", f"The request was rejected because the job is in status {job.status}.")
        job.stopped.set()
        return {}

    def _list(self, noun: str, params: dict[str, Any]) -> dict[str, Any]:
        found = [job for job in self.jobs.values() if job.noun == noun and params.get("NameContains", "") in job.name]
        begin, size = int(params.get("NextToken", 0)), params.get("MaxResults", 10)
        page = sorted(found, key=lambda job: -job.created)[begin : begin + size]
        rows = [
            {
                f"{noun}Name": job.name,
                f"{noun}Arn": job.arn,
                f"{noun}Status": job.status,
                "CreationTime": job.created,
            }
            for job in page
        ]
        more = {"NextToken": str(begin + size)} if begin + size < len(found) else {}
        return {f"{noun}Summaries": rows, **more}

    def _logs(self, action: str, params: dict[str, Any]) -> dict[str, Any]:
        if action == "DescribeLogStreams":
            streams = self.logs.streams(params["logGroupName"], params.get("logStreamNamePrefix", ""))
            if streams is None:
                raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
            return {"logStreams": streams}
        return self.logs.events(params["logGroupName"], params["logStreamName"], params.get("nextToken"))


FAULTS = (
    ("throttle", "ThrottlingException", "Rate exceeded"),
    ("expire", "ExpiredTokenException", "The security token included in the request is expired"),
    ("refuse", "AccessDeniedException", "User is not authorized to perform this action"),
)


def _reply(status: int, told: Any) -> Reply:
    return Reply(status, [("Content-Type", "application/x-amz-json-1.1")], json.dumps(told).encode())


def wait(job: Job, wait_s: float = 60) -> str:
    """Wait for a job's end, and return its status."""
    deadline = time.monotonic() + wait_s
    job.thread.join(max(0.0, deadline - time.monotonic()))
    assert job.status in ENDED, f"{job.name} is {job.status}: {job.phase}"
    return job.status

"""A job from its request to its end: what is the same for trainings and processings.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
"""

import shutil
import signal
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from . import buckets, rules
from .containers import Container

if TYPE_CHECKING:
    from .service import SageMaker

ACCOUNT = "123456789012"
LOOK_S = 0.05
ENDED = ("Completed", "Failed", "Stopped")


class Job(ABC):
    """A job; its subclasses know the folders and fields of their kind.

    Args:
        service: That it belongs to.
        request: The Create request.

    Attributes:
        noun: Of its kind, in names of fields.
        group: Of its logs in CloudWatch.
        status: In SageMaker's words.
        interrupted: To be set to take its machine away.
        starts: How often its command was started.
    """

    noun: ClassVar[str]
    path: ClassVar[str]
    group: ClassVar[str]

    def __init__(self, service: "SageMaker", request: dict[str, Any]) -> None:
        """Start it."""
        self.service, self.request = service, request
        self.name = request[f"{self.noun}Name"]
        self.arn = f"arn:aws:sagemaker:{service.region}:{ACCOUNT}:{self.path}/{self.name}"
        self.folder = service.folder / self.path / self.name
        self.ml = self.folder / "ml"
        self.status, self.phase, self.reason, self.message = "InProgress", "Starting", "", ""
        self.created, self.started, self.ended = time.time(), 0.0, 0.0
        self.transitions: list[dict[str, Any]] = []
        self.container: Container | None = None
        self.starts = 0
        self.stopped, self.interrupted = threading.Event(), threading.Event()
        self._step("Starting")
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    # What each kind has its own way of.

    @abstractmethod
    def image(self) -> str:
        """Return the image that is asked for."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command of the container."""

    @abstractmethod
    def bring(self) -> None:
        """Make the folders of `/opt/ml`, and bring its inputs there."""

    @abstractmethod
    def take(self) -> None:
        """Bring its results to S3."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """Return what its kind tells more than others."""

    @abstractmethod
    def failure(self) -> str:
        """Return the reason that the container gave for its failure."""

    @abstractmethod
    def sync(self) -> None:
        """Bring checkpoints to S3, where it has any."""

    # What all have.

    def inside(self, path: str) -> Path:
        """Return where a path of the container is on this machine."""
        place: Path = self.ml / Path(path).relative_to("/opt/ml")
        return place

    def describe(self) -> dict[str, Any]:
        """Return what SageMaker tells of it."""
        told = {
            **self.request,
            f"{self.noun}Arn": self.arn,
            f"{self.noun}Status": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": time.time(),
            "FailureReason": self.reason,
            **self.told(),
        }
        known = rules.model().operation_model(f"Describe{self.noun}").output_shape.members
        return {name: value for name, value in told.items() if name in known and value not in (None, "")}

    def _step(self, phase: str, message: str = "") -> None:
        now = time.time()
        if self.transitions:
            self.transitions[-1]["EndTime"] = now
        self.phase = phase
        self.transitions.append({"Status": phase, "StartTime": now, "StatusMessage": message})

    def _end(self, status: str, reason: str = "", phase: str = "") -> None:
        self.ended, self.reason = time.time(), reason[:1024]
        self._step(phase or status, reason)
        self.status = status

    def _live(self) -> None:
        try:
            if self.service.takes("capacity", self.name):
                self._end("Failed", "CapacityError: Unable to provision requested ML compute capacity. Please retry.")
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            self._step("Downloading")
            self.bring()
            self._step("Training")
            self.started = time.time()
            self._finish(self._run_until_left_alone())
        except buckets.Missing as error:
            self._end("Failed", f"ClientError: {error}")
        except Exception as error:
            self._end("Failed", f"InternalServerError: {error!r}")

    def _run_until_left_alone(self) -> str:
        """Run the command, again whenever its machine was taken away; return how it ended."""
        deadline = self.started + self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400)
        while (how := self._run(deadline)) == "interrupted":
            self._step("Interrupted")
            self._step("Restarting")
            shutil.rmtree(self.ml)
            self.bring()
            self._step("Training")
        return how

    def _run(self, deadline: float) -> str:
        self.interrupted.clear()
        self.starts += 1
        python = self.service.python(self.image())
        self.container = Container(self.command(), self.ml, self._environment(python), self.service.hidden)
        stream = f"{self.name}/algo-1-{int(time.time() * 1000)}"
        reader = threading.Thread(target=self._read_log, args=(stream,), daemon=True)
        reader.start()
        how = self._wait(self.container, deadline)
        reader.join()
        self.sync()
        return how

    def _wait(self, container: Container, deadline: float) -> str:
        how, asked = "ended", 0.0
        while container.code is None:
            now = time.time()
            if how == "ended":
                how = self._asked(now > deadline)
                if how != "ended":
                    asked = now
                    container.signal(signal.SIGTERM)
            elif now - asked > self.service.grace_s:
                container.kill()
            self.sync()
            time.sleep(LOOK_S)
        return how

    def _asked(self, late: bool) -> str:
        if self.stopped.is_set():
            self.status = "Stopping"
            self._step("Stopping")
            return "stopped"
        return "late" if late else "interrupted" if self.interrupted.is_set() else "ended"

    def _finish(self, how: str) -> None:
        assert self.container
        code = self.container.code
        self._step("Uploading")
        self.take()
        if how == "stopped":
            self._end("Stopped")
        elif how == "late":
            self._end("Stopped", phase="MaxRuntimeExceeded")
        elif code == 0:
            self._end("Completed")
        else:
            said = self.failure() or "See job logs for more information"
            self._end("Failed", f"AlgorithmError: {said}, exit code: {code}")

    def _environment(self, python: Path) -> dict[str, str]:
        return {
            "PATH": f"{python}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **self.service.network(self.name),
            **self.request.get("Environment", {}),
        }

    def _read_log(self, stream: str) -> None:
        assert self.container
        assert self.container.process.stdout
        for line in self.container.process.stdout:
            self.service.logs.put(self.group, stream, line.decode(errors="replace").rstrip("\r\n"))


def text(path: Path) -> str:
    """Return the content of a file; "" when there is none."""
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""

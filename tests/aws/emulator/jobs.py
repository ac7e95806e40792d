"""A job, from the request to its end: what SageMaker's two kinds have in common."""

import abc
import math
import shutil
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any, ClassVar

from .account import Account
from .checks import fitted
from .container import ML, Image
from .credentials import ACCOUNT
from .errors import JobError, not_emulated
from .faults import CAPACITY
from .history import History
from .run import TICK_S, Outcome, Run
from .transfer import Transfer

DAY_S = 86_400


class Job(abc.ABC):
    """A job on one machine.

    Args:
        account: Where it runs.
        request: That asked for it, checked.
        region: Where it was asked for.
    """

    noun: ClassVar[str]
    log_group: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, account: Account, request: dict[str, Any], region: str) -> None:
        """Be ready to start."""
        self.request, self.region = request, region
        self.name: str = request[f"{self.noun}Name"]
        kind = self.noun.replace("Job", "-job").lower()
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind}/{self.name}"
        self.history = History()
        self.attempts = 0
        self._account = account
        self._transfer = Transfer(account.s3)
        self.folder: Path = account.work / kind / self.name
        self.ml: Path = self.folder / "ml"
        self.stopping, self.interrupted = threading.Event(), threading.Event()
        self._run: Run | None = None
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)

    def start(self) -> None:
        """Let it live."""
        self._thread.start()

    # What is asked of it

    @property
    def is_over(self) -> bool:
        """Return whether it has ended."""
        return self.history.is_over

    @property
    def status(self) -> str:
        """Return its status, the coarse one."""
        return self.history.status

    @property
    def failure(self) -> str:
        """Return why it failed."""
        return self.history.failure

    def describe(self) -> dict[str, Any]:
        """Return what SageMaker tells of it."""
        history = self.history
        with history.lock:
            details = {
                **self.request,
                f"{self.noun}Arn": self.arn,
                f"{self.noun}Status": history.status,
                "CreationTime": history.created,
                "LastModifiedTime": history.modified,
                "FailureReason": history.failure or None,
                **self._described(),
            }
        return fitted(f"Describe{self.noun}", details)

    def stop(self) -> None:
        """Ask it to stop."""
        self.history.is_to_stop()
        self.stopping.set()

    def interrupt(self) -> None:
        """Take its machine away, as happens on spot."""
        self.interrupted.set()

    def kill(self) -> None:
        """Kill its first process, as the kernel does when memory runs out."""
        if self._run:
            self._run.kill()

    def close(self) -> None:
        """End it, with nothing uploaded; the emulator ends."""
        self.stop()
        self.kill()
        self._thread.join(10)

    # Its life

    def _live(self) -> None:
        try:
            self._work()
        except JobError as error:
            self.history.finish("Failed", str(error))
        except Exception as error:
            traceback.print_exc()  # a fault of the emulator: who runs it must see it
            self.history.finish("Failed", f"InternalServerError: {error!r}")
        finally:
            if self._run:
                self._run.kill()

    def _work(self) -> None:
        image = self._image()
        waited = self._get_machine()
        outcome: Outcome = waited or "interrupted"
        while outcome == "interrupted":
            self.attempts += 1
            outcome = self._attempt(image)
        if outcome == "exited":
            code = self._exit_code
            if code:
                self.history.finish("Failed", f"AlgorithmError: {self.reason()}, exit code: {code}")
            else:
                self.history.finish("Completed")
        else:
            self.history.finish("Stopped", secondary=self._stopped_as(outcome))

    def _image(self) -> Image:
        uri = self.image_uri()
        image = self._account.image_of(uri)
        if not image:
            repository, registry = uri.partition("/")[2].partition(":")[0], uri.partition(".")[0]
            raise JobError(
                f"ClientError: Cannot find repository: {repository} in registry ID: {registry} Please check if your "
                f"ECR repository and image exist and role {self.request['RoleArn']} has proper pull permissions for "
                "SageMaker: ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer"
            )
        return image

    def _get_machine(self) -> Outcome | None:
        """Wait for a machine; return why it waits no more, None when it has one."""
        self.history.enter("Starting", "Launching requested ML instances")
        if self._account.faults.capacity == "wait":
            self.history.enter("Starting", "Insufficient capacity error from EC2 while launching instances, retrying!")
        while self._account.faults.capacity == "wait":
            if self.stopping.wait(TICK_S):
                return "stopped"
            if time.time() > self._patience_ends():
                self.history.enter("Stopping", "Stopping the training job")
                return "timeout"
        if self._account.faults.capacity == "none":
            raise JobError(CAPACITY)
        return None

    def _attempt(self, image: Image) -> Outcome:
        """Do it on one machine."""
        self.history.machine_starts()
        shutil.rmtree(self.ml, ignore_errors=True)
        (self.ml / "output").mkdir(parents=True)
        self.history.enter("Downloading", "Downloading input data")
        self.prepare()
        self.history.enter("Training", "Training image download completed. Training in progress.")
        self._run = Run(self, self._account, image)
        outcome = self._run.outcome()
        if outcome == "interrupted":
            self.history.enter("Interrupted", "The instances were interrupted")
            self.history.machine_is_gone()
            self.interrupted.clear()
            return self._get_machine() or "interrupted"
        self.history.enter("Uploading", "Uploading generated training model")
        self.upload(well=outcome != "exited" or not self._exit_code)
        return outcome

    @property
    def _exit_code(self) -> int:
        assert self._run
        return self._run.exit_code

    def is_too_long(self) -> bool:
        """Return whether it has had all the time that it was given."""
        return self.history.used_s > self._longest_s() or time.time() > self._patience_ends()

    def _longest_s(self) -> float:
        return float(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DAY_S))

    def _patience_ends(self) -> float:
        return math.inf

    def wrote(self, name: str) -> bytes:
        """Return the content of a file in `/opt/ml/output`; nothing when there is none."""
        path = self.ml / "output" / name
        return path.read_bytes() if path.is_file() else b""

    def reason(self) -> str:
        """Return what it told of why it failed."""
        return ""

    def _stopped_as(self, outcome: Outcome) -> str:
        return "Stopped"

    # What the two kinds do each in their way

    @abc.abstractmethod
    def check(self) -> None:
        """See that it is something this emulator can do.

        Raises:
            ServiceError: It is not.
        """

    @abc.abstractmethod
    def prepare(self) -> None:
        """Fill its `/opt/ml`."""

    @abc.abstractmethod
    def upload(self, well: bool) -> None:
        """Bring its results to S3.

        Args:
            well: Whether it did not fail.
        """

    @abc.abstractmethod
    def sync(self) -> None:
        """Bring to S3 what is brought while it runs."""

    @abc.abstractmethod
    def _described(self) -> dict[str, Any]:
        """Return what is told of this kind."""

    @abc.abstractmethod
    def image_uri(self) -> str:
        """Return the address of its image."""

    @abc.abstractmethod
    def is_cut_off(self) -> bool:
        """Return whether it is to have no network."""

    @abc.abstractmethod
    def command(self) -> list[str]:
        """Return what its container runs."""

    def variables(self) -> dict[str, str]:
        """Return the variables that this kind has more."""
        return {}

    def inside(self, path: str) -> Path:
        """Return the folder of this machine for one of the container's."""
        if not Path(path).is_relative_to(ML) or ".." in Path(path).parts:
            raise not_emulated(f"a LocalPath outside {ML}: {path}")
        return self.ml / Path(path).relative_to(ML)

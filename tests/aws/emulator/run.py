"""A job on one machine: its container from the start to the end, and what it prints."""

import math
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING, Literal

from .account import Account
from .container import Container, Image

if TYPE_CHECKING:
    from .jobs import Job

TICK_S = 0.05
SYNC_S = 1.0  # between two looks at checkpoints

Outcome = Literal["exited", "stopped", "timeout", "interrupted"]


class Run:
    """A container of a job, whose `/opt/ml` is filled.

    Args:
        job: The job.
        account: Where it runs.
        image: Of the container.
    """

    def __init__(self, job: "Job", account: Account, image: Image) -> None:
        """Start it."""
        self._job, self._account = job, account
        tmp = job.folder / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True)
        self._token = account.credentials.admit(job.request["RoleArn"])
        self._container = Container(
            image, job.command(), self._environment(), job.ml, tmp, account.hidden, job.is_cut_off()
        )
        self._printing = threading.Thread(target=self._print, daemon=True)
        self._printing.start()

    @property
    def exit_code(self) -> int:
        """Return the exit code, once it has ended."""
        return self._container.exit_code or 0

    def kill(self) -> None:
        """Kill its first process."""
        self._container.kill()

    def outcome(self) -> Outcome:
        """Wait for its end, and return how it came."""
        try:
            outcome = self._watch()
        finally:
            self._account.credentials.dismiss(self._token)
            self._container.kill()
        self._printing.join(10)
        if outcome != "interrupted":
            self._job.sync()
        return outcome

    def _watch(self) -> Outcome:
        synced = time.monotonic()
        while not self._container.wait(TICK_S):
            if self._job.interrupted.is_set():
                self._container.kill()
                self._container.wait(math.inf)
                return "interrupted"
            if self._job.stopping.is_set():
                self._end()
                return "stopped"
            if self._job.is_too_long():
                self._end()
                return "timeout"
            if time.monotonic() - synced > SYNC_S:
                self._job.sync()
                synced = time.monotonic()
        return "exited"

    def _end(self) -> None:
        self._job.history.enter("Stopping", "Stopping the training job")
        self._container.signal(self._job.stop_signal)
        if not self._container.wait(self._account.grace_s):
            self._container.signal(signal.SIGKILL)
            self._container.wait(math.inf)

    def _print(self) -> None:
        """Bring what it prints to CloudWatch, to a stream of its own."""
        logs, seen, stream = self._account.logs, self._account.faults.takes_stream(), ""
        for raw in self._container.output:
            if seen and not stream:
                stream = logs.open(self._job.log_group, f"{self._job.name}/algo-1")
            if stream:
                logs.write(self._job.log_group, stream, raw.decode(errors="replace").rstrip("\r\n"))

    def _environment(self) -> dict[str, str]:
        return {
            "AWS_REGION": self._job.region,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": self._account.credentials_url,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self._token,
            "AWS_EC2_METADATA_DISABLED": "true",  # nobody answers there
            **self._account.network,
            **self._job.variables(),
            **self._job.request.get("Environment", {}),
        }

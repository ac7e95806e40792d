"""What became of a job, and when.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_SecondaryStatusTransition.html
"""

import threading
import time
from typing import Any

TERMINAL = frozenset({"Completed", "Failed", "Stopped"})
REASON_CHARACTERS = 1024


class History:
    """The statuses of a job, the coarse one and the fine ones.

    Attributes:
        lock: Held while several of these change together.
        status: InProgress, Stopping, Completed, Failed or Stopped.
        secondary: What it is doing.
        transitions: What it did.
        failure: Why it failed.
        created: Seconds since 1970, as all times.
        modified: When something changed last.
        started: When its first machine started.
        ended: When it ended.
    """

    def __init__(self) -> None:
        """Begin."""
        self.lock = threading.RLock()
        self.status, self.secondary, self.failure = "InProgress", "Starting", ""
        self.created = self.modified = time.time()
        self.started: float | None = None
        self.ended: float | None = None
        self.transitions: list[dict[str, Any]] = []
        self._machine_since: float | None = None
        self._spent_s = 0.0  # on machines that are gone
        self.enter("Starting", "Starting the training job")

    @property
    def is_over(self) -> bool:
        """Return whether the job has ended."""
        return self.status in TERMINAL

    @property
    def used_s(self) -> float:
        """Return how long its machines have run."""
        running = (self.ended or time.time()) - self._machine_since if self._machine_since else 0.0
        return self._spent_s + running

    def enter(self, secondary: str, message: str = "") -> None:
        """Begin to do something else."""
        now = time.time()
        with self.lock:
            if self.transitions:
                self.transitions[-1]["EndTime"] = now
            self.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
            self.secondary, self.modified = secondary, now

    def finish(self, status: str, failure: str = "", secondary: str = "") -> None:
        """End.

        Args:
            status: At the end.
            failure: Why it failed.
            secondary: The fine status, where it is another one.
        """
        with self.lock:
            self.failure = failure[:REASON_CHARACTERS]
            self.enter(secondary or status, self.failure)
            self.ended = self.transitions[-1]["EndTime"] = self.modified
            self.status = status

    def is_to_stop(self) -> None:
        """Know that somebody asked for its end."""
        with self.lock:
            if not self.is_over:
                self.status = "Stopping"

    def machine_starts(self) -> None:
        """Count the time of a machine from now on."""
        self._machine_since = time.time()
        self.started = self.started or self._machine_since

    def machine_is_gone(self) -> None:
        """Count it no longer."""
        self._spent_s, self._machine_since = self.used_s, None

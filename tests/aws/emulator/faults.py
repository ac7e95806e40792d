"""What goes wrong when it is told to, and what was asked."""

import math
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ServiceError

CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)


S3 = "S3"  # all its actions


@dataclass
class Fault:
    """What is done to calls.

    Args:
        what: Answer with an error; hang up before the call is done; do it, and hang up.
        action: The call, such as DescribeTrainingJob; "S3" for each of S3's, "*" for each of all others.
        times: How often.
        every: Only each so-manieth call that fits.
        error: The answer.
    """

    what: Literal["answer", "lose request", "lose reply"]
    action: str = "*"
    times: float = math.inf
    every: int = 1
    error: ServiceError | None = None
    seen: int = 0
    hits: int = 0


@dataclass
class Faults:
    """Switches; all off at first.

    Attributes:
        calls: How often each action was called.
        log_delay_s: How much later than printed the lines of jobs can be read.
        capacity: Whether there are machines for new jobs: "yes", "none" (they fail at once), "wait" (they wait).
        without_stream: How many next jobs get no log stream.
        denied: Actions that nobody may do, such as `s3:PutObject`; IAM's simulation says so too.
        slow_down: How many next calls of S3 are answered 503 SlowDown.
    """

    calls: Counter[str] = field(default_factory=Counter)
    log_delay_s: float = 0.0
    capacity: Literal["yes", "none", "wait"] = "yes"
    without_stream: int = 0
    denied: set[str] = field(default_factory=set)
    slow_down: float = 0
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def throttle(self, action: str = "*", times: float = math.inf, every: int = 1) -> Fault:
        """Answer ThrottlingException to calls."""
        return self.answer(ServiceError("ThrottlingException", "Rate exceeded"), action, times, every)

    def drop(self, action: str = "*", times: float = math.inf, after: bool = False) -> Fault:
        """Hang up; with `after`, when the call was done."""
        return self._add(Fault("lose reply" if after else "lose request", action, times))

    def answer(self, error: ServiceError, action: str = "*", times: float = math.inf, every: int = 1) -> Fault:
        """Answer an error to calls."""
        return self._add(Fault("answer", action, times, every, error))

    def heal(self) -> None:
        """Let everything go right again; jobs that wait for a machine get one. The calls stay counted."""
        with self._lock:
            self._faults.clear()
        self.log_delay_s, self.capacity, self.without_stream, self.slow_down = 0.0, "yes", 0, 0
        self.denied.clear()

    def set(self, **switches: Any) -> None:
        """Set switches by their names.

        Raises:
            ServiceError: There is none of this name.
        """
        known = ("log_delay_s", "capacity", "without_stream", "denied", "slow_down")
        for name, value in switches.items():
            if name not in known:
                raise ServiceError("NotFound", f"no switch {name!r}; there are {', '.join(known)}", 404)
            setattr(self, name, set(value) if name == "denied" else value)

    def meet(self, action: str) -> Fault | None:
        """Count a call, and return what is done to it."""
        with self._lock:
            self.calls[action] += 1
            for fault in self._faults:
                if fault.action in (action, "*" if action != S3 else action) and fault.hits < fault.times:
                    fault.seen += 1
                    if fault.seen % fault.every == 0:
                        fault.hits += 1
                        return fault
        return None

    def takes_stream(self) -> bool:
        """Return whether a new job gets a log stream."""
        with self._lock:
            self.without_stream, lost = max(0, self.without_stream - 1), self.without_stream > 0
        return not lost

    def slows_down(self) -> bool:
        """Return whether a call of S3 is refused."""
        with self._lock:
            refused = self.slow_down > 0
            self.slow_down = max(0, self.slow_down - 1)
        return refused

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

"""Stay with a job until it ends."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from ...errors import ProjectError
from ...files import read_json
from ..state import State
from ..worker import FAILURE
from . import client
from .client import AwsUnavailableError, Job
from .logs import Log, all_of

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

SHORTEST_S, LONGEST_S = 1.0, 10.0  # between two looks: a tenth of the time that the job has taken
LAST_S = 2.0  # CloudWatch has the last lines later than SageMaker the end
TAIL = 5  # lines of the log in an error

FULL = "No space left"
HINTS = {  # what SageMaker says of a failure, and what to do
    "CapacityError": "the same command, later; or another instance_type in meta.job",
    "137": "it ran out of memory, so a larger instance_type in meta.job; then the same command",
    "MaxRuntimeExceeded": "a larger max_runtime_s in meta.job, then the same command",
    "MaxWaitTimeExceeded": "a larger max_wait_s in meta.job, or spot: false; then the same command",
    FULL: "a larger volume_gb in meta.job, then the same command",
}


def follow(job: Job) -> tuple[Job, bool]:
    """Show what a job prints until it ends. Ctrl-C stops it, a second one leaves it to itself.

    Returns:
        The ended job, and whether Ctrl-C stopped it.

    Raises:
        KeyboardInterrupt: It was left to itself.
        ProjectError: AWS refuses. When it can't be reached, we wait.
    """
    told, phase, stopping = Log(job.name, job.kind), "", False
    while True:
        try:
            job = retry_forever(partial(_look, job))
            _show(told, look=job.phase != phase)
            if job.phase != phase:
                log.info("job %s: %s", job.name, job.phase)
                phase = job.phase
            if job.state is not State.RUNNING:
                break
            time.sleep(_pause_s(job))
        except KeyboardInterrupt:
            if stopping:
                print(f"\nJob {job.name} goes on stopping by itself.", flush=True)
                raise
            retry_forever(partial(client.stop, job))
            print(f"\nStopping job {job.name}; Ctrl-C again leaves it to itself.", flush=True)
            stopping = True
    _show_last(told)
    if job.billable_s is not None:
        log.info("job %s: %s s to pay for on %s", job.name, job.billable_s, job.machines)
    return job, stopping


def retry_forever(ask: Callable[[], Answer]) -> Answer:
    """Return what `ask` gives, when AWS can be reached again: a job goes on without us."""
    warned = False
    while True:
        try:
            return ask()
        except AwsUnavailableError as error:
            if not warned:
                log.warning("%s. The job goes on; trying again", error.problem)
            warned = True
            time.sleep(SHORTEST_S)


def _look(job: Job) -> Job:
    found = client.describe(job.name, job.kind)
    if not found:
        raise ProjectError(f"SageMaker no longer has job {job.name}", "the same command: it starts a new job")
    return found


def _pause_s(job: Job) -> float:
    """Return how long to wait: with 50 jobs that take minutes, AWS is asked 5 times a second for each kind of thing."""
    elapsed_s: float = (datetime.now(UTC) - job.told["CreationTime"]).total_seconds()
    return min(max(elapsed_s / 10, SHORTEST_S), LONGEST_S)


def _show(told: Log, look: bool) -> int:
    """Print what is new; return how many lines. A log that is not to be had keeps nobody from the results."""
    shown = 0
    try:
        for line in told.lines(look):
            print(line, flush=True)
            shown += 1
    except ProjectError as error:
        log.warning("the log does not come: %s", error.problem)
    return shown


def _show_last(told: Log) -> None:
    quiet = time.monotonic()
    while time.monotonic() - quiet < LAST_S:
        time.sleep(LAST_S / 4)
        if _show(told, look=True):
            quiet = time.monotonic()


def failure(job: Job, out: Path) -> ProjectError:
    """Return the error for a job that did not end well.

    Args:
        job: It.
        out: What it handed back, which may be nothing.
    """
    how = f"job {job.name} {job.state.lower()}"
    seen = f"Its page: {job.page}"
    if job.state is State.FAILED and (out / FAILURE).exists():  # what was stopped only says that it was interrupted
        told = read_json(out / FAILURE)
        return ProjectError(f"{how}: {told['reason']}", f"{told['fix']}. {seen}")
    if job.state is State.STOPPED and "Max" not in job.phase:
        return ProjectError(f"{how}: somebody stopped it", f"the same command: it starts a new job. {seen}")
    tail = _tail(job)
    told = f"{job.phase} {job.reason}"
    hints = [fix for said, fix in HINTS.items() if said in told or (said == FULL and said in tail)]
    fix = hints[0] if hints else "mend that, then the same command: it starts a new job"
    return ProjectError(
        f"{how}: {job.reason}{tail}", f"{fix}. All it printed: python -m mlops jobs logs {job.name}. {seen}"
    )


def _tail(job: Job) -> str:
    try:
        lines = all_of(job)[-TAIL:]
    except ProjectError:
        return ""
    return "".join(f"\n  | {line}" for line in lines)

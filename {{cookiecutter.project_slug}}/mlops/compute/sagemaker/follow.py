"""Follow a job until it ends: what it prints (CloudWatch), its phase, and why it failed.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
"""

import logging
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ProjectError
from ...files import read_json
from ...tracking.git import without_credentials
from ..backend import State
from ..worker import FAILURE
from . import client
from .client import Job, retry_forever

log = logging.getLogger(__name__)

LAST_LINES_S = 2.0  # CloudWatch has the last lines later than SageMaker the end

# Access keys, and what is named as a secret or a token.
# Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
SECRET = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}|(?i:(?<=secret_access_key=)|(?<=session_token=))\S+")

FULL = "No space left"
HINTS = {  # words in SageMaker's reason of a failure, and the fix
    "CapacityError": "the same command, later; or another instance_type in meta.job (dvc.yaml)",
    "137": "it ran out of memory, so a larger instance_type in meta.job (dvc.yaml); then the same command",
    "MaxRuntimeExceeded": "a larger max_runtime_s in meta.job (dvc.yaml), then the same command",
    "MaxWaitTimeExceeded": "a larger max_wait_s in meta.job (dvc.yaml), or spot: false; then the same command",
    FULL: "a larger volume_gb in meta.job (dvc.yaml), then the same command",
}


def new_lines(job: Job, tokens: dict[str, str | None], refresh: bool) -> Iterator[str]:
    """Give the new lines of a job's log, up to 10,000 of each stream and none twice.

    Each machine has a stream, and a new one after an interruption. `tokens` has the position in each, and is updated;
    `refresh` looks for new streams too.
    """
    group = client.log_group(job.kind)
    if refresh or not tokens:  # there are none before the job prints
        request = {"logGroupName": group, "logStreamNamePrefix": f"{job.name}/"}
        streams = client.call("logs", "describe_log_streams", "ResourceNotFound", **request).get("logStreams", [])
        for stream in sorted(streams, key=lambda stream: int(stream.get("creationTime", 0))):
            tokens.setdefault(stream["logStreamName"], None)
    for name, token in tokens.items():
        position: dict[str, Any] = {"startFromHead": True, **({"nextToken": token} if token else {})}
        page = client.call("logs", "get_log_events", logGroupName=group, logStreamName=name, **position)
        tokens[name] = page["nextForwardToken"]
        yield from (mask_secrets(event["message"]) for event in page["events"])


def mask_secrets(line: str) -> str:
    """Return a line without credentials: those in addresses, and AWS's."""
    return SECRET.sub("****", without_credentials(line))


def read_log(job: Job) -> list[str]:
    """Return all lines that a job printed."""
    lines: list[str] = []
    tokens: dict[str, str | None] = {}
    before = None
    while tokens != before:  # an empty page need not be the last
        before = dict(tokens)
        lines += new_lines(job, tokens, refresh=not before)
    return lines


def follow(job: Job) -> tuple[Job, bool]:
    """Print the log of a job until it ends; return the ended job, and whether Ctrl-C stopped it.

    A second Ctrl-C leaves it running, and is raised. While AWS can't be reached, this waits.
    """
    tokens: dict[str, str | None] = {}
    phase, is_stopping = "", False
    while True:
        try:
            current = retry_forever(partial(client.describe, job.name, job.kind))
            if not current:
                raise ProjectError(f"SageMaker no longer has job {job.name}", "the same command: it starts a new job")
            job = current
            _print_new(job, tokens, refresh=job.phase != phase)
            if job.phase != phase:
                log.info("job %s: %s", job.name, job.phase)
                phase = job.phase
            if job.state is not State.RUNNING:
                break
            # With 50 jobs that take minutes, AWS gets 5 requests a second of each kind.
            elapsed_s = (datetime.now(UTC) - job.details["CreationTime"]).total_seconds()
            time.sleep(min(max(elapsed_s / 10, 1.0), 10.0))
        except KeyboardInterrupt:
            if is_stopping:
                print(f"\nJob {job.name} goes on stopping by itself.", flush=True)
                raise
            retry_forever(partial(client.stop, job))
            print(f"\nStopping job {job.name}; Ctrl-C again leaves it to itself.", flush=True)
            is_stopping = True
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < LAST_LINES_S:
        time.sleep(LAST_LINES_S / 4)
        if _print_new(job, tokens, refresh=True):
            quiet_since = time.monotonic()
    if job.billable_s is not None:
        log.info("job %s: %s s to pay for on %s", job.name, job.billable_s, job.machines)
    return job, is_stopping


def _print_new(job: Job, tokens: dict[str, str | None], refresh: bool) -> int:
    """Print new lines; return how many. An error of the log is a warning: it must not block the results."""
    count = 0
    try:
        for line in new_lines(job, tokens, refresh):
            print(line, flush=True)
            count += 1
    except ProjectError as error:
        log.warning("the log can't be read: %s", error.problem)
    return count


def failure(job: Job, out: Path) -> ProjectError:
    """Return the error for a failed or stopped job, given the folder of its output, which may be empty."""
    region = job.details[f"{client.noun(job.kind)}Arn"].split(":")[3]
    console = f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}"
    page = f"Its page: {console}#/{'jobs' if job.kind == 'training' else 'processing-jobs'}/{job.name}"
    outcome = f"job {job.name} {job.state.lower()}"
    if job.state is State.FAILED and (out / FAILURE).exists():  # of a stopped job, it only says that it was interrupted
        report = read_json(out / FAILURE)
        return ProjectError(f"{outcome}: {report['reason']}", f"{report['fix']}. {page}")
    if job.state is State.STOPPED and "Max" not in job.phase:
        return ProjectError(f"{outcome}: somebody stopped it", f"the same command: it starts a new job. {page}")
    try:
        tail = "".join(f"\n  | {line}" for line in read_log(job)[-5:])
    except ProjectError:
        tail = ""
    text = f"{job.phase} {job.reason}"
    hints = (hint for words, hint in HINTS.items() if words in text or (words == FULL and words in tail))
    fix = next(hints, "correct that, then the same command: it starts a new job")
    whole_log = f"The whole log: python -m mlops jobs logs {job.name}"
    return ProjectError(f"{outcome}: {job.reason}{tail}", f"{fix}. {whole_log}. {page}")

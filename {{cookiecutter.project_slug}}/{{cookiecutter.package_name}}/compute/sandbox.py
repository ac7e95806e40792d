"""Jobs on this machine, as a rehearsal that costs nothing: what SageMaker does, done by a process beside us.

Each job has a folder in `.dvc/tmp/jobs`, and in it a folder to work in that holds the code and no more. It gets no
environment variable of ours, a cache and a home of its own, AWS credentials as SageMaker gives them, and on Linux it
can't see the files of this machine.

A supervisor starts the job, waits for it, and writes how it ended. It outlives us: whoever comes later finds the job by
its folder.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from ..errors import ProjectError
from ..files import read_json, write_json
from ..settings import PACKAGE, home
from ..tracking import server
from ..tracking.origin import Origin
from . import bundle, credentials, processes, remote
from .job import RESULT
from .state import State

DESCRIPTION, CODE, LOG, ENDED, STARTED = "job.json", "code.tar.gz", "log", "ended.json", "started.json"
SUPERVISED = "supervised"  # a lock that the supervisor holds as long as it lives
SCRATCH = ("work", "home", "tmp", "site")
POLL_S = 0.1


def folder() -> Path:
    """Return where the jobs are: in the real repository, also for a throw-away experiment."""
    return home() / ".dvc" / "tmp" / "jobs"


def out_dir(name: str) -> Path:
    """Return the folder of what a job hands back."""
    return folder() / name / "out"


def last(base: str) -> str | None:
    """Return the name of the last attempt at something."""
    numbers = [path.name.removeprefix(f"{base}-") for path in folder().glob(f"{base}-*")]
    attempts = [int(number) for number in numbers if number.isdigit()]
    return f"{base}-{max(attempts)}" if attempts else None


def names() -> list[str]:
    """Return the names of all jobs, the oldest first."""
    found = folder().glob(f"*/{DESCRIPTION}")
    return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def state(name: str) -> State:
    """Return what became of a job."""
    place = folder() / name
    if not (place / STARTED).exists():
        return State.PREPARED
    if not (place / ENDED).exists() and _is_supervised(place):  # others who ask hold that lock for a moment too
        return State.RUNNING
    return State(ending_of(name)["state"])


def result_of(name: str) -> dict[str, Any]:
    """Return what a job that ended well says of its results."""
    result: dict[str, Any] = read_json(out_dir(name) / RESULT)
    return result


def ending_of(name: str) -> dict[str, Any]:
    """Return how a job ended: `state`, `reason`, and unless it was killed `seconds` and `peak_bytes`."""
    path = folder() / name / ENDED
    told: dict[str, Any] = {"state": State.FAILED, "reason": "it and its supervisor were killed"}
    return read_json(path) if path.exists() else told


def origin_of(name: str) -> Origin:
    """Return where a job was started."""
    return Origin.of_json(read_json(folder() / name / DESCRIPTION)["origin"])


def prepare(name: str, description: dict[str, Any]) -> None:
    """Make the folder of a job that is to be started; it is there whole or not at all."""
    place = folder() / name
    new = place.with_name(f".{name}.new")
    shutil.rmtree(new, ignore_errors=True)
    (new / "out").mkdir(parents=True)
    bundle.pack(description["origin"]["commit"], new / CODE)
    write_json(new / DESCRIPTION, description)
    os.replace(new, place)


def start(name: str) -> None:
    """Start a prepared job, and leave it to its supervisor.

    Raises:
        ProjectError: There are no AWS credentials for it, or the supervisor does not start.
    """
    place = folder() / name
    _sweep(place)
    secret = credentials.find(remote.options()) if _needs_aws(place) else {}
    with (place / LOG).open("ab") as told:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", PACKAGE, "jobs", "supervise", name],
            stdin=subprocess.PIPE,
            stdout=told,
            stderr=told,
            start_new_session=True,  # Ctrl-C is for us, and what it means for the job is ours to say
        )
    try:
        _hand_over(supervisor, secret)
        while not (place / STARTED).exists():
            if supervisor.poll() is not None and not _is_supervised(place):
                raise ProjectError(f"job {name} did not start", f"see {place / LOG}")
            time.sleep(POLL_S / 5)
    except KeyboardInterrupt:
        supervisor.terminate()  # what it has started by then, it stops
        raise


def _hand_over(supervisor: "subprocess.Popen[bytes]", secret: dict[str, str]) -> None:
    assert supervisor.stdin
    with contextlib.suppress(BrokenPipeError), supervisor.stdin as pipe:  # not communicate(), which waits for its end
        pipe.write(json.dumps(secret).encode())


def _sweep(place: Path) -> None:
    """End and delete what earlier attempts at the same left."""
    for earlier in place.parent.glob(f"{place.name.rpartition('-')[0]}-*"):
        if earlier == place or not (earlier / STARTED).exists() or _is_supervised(earlier):
            continue
        processes.kill(read_json(earlier / STARTED))
        for name in SCRATCH:
            shutil.rmtree(earlier / name, ignore_errors=True)


def _needs_aws(place: Path) -> bool:
    told = read_json(place / DESCRIPTION)
    return str(told["remote"]["url"]).startswith("s3://") or server.tracking_uri().startswith("arn:")


def follow(name: str) -> None:
    """Show what a job prints until it ends. Ctrl-C stops it, a second one leaves it to itself.

    Raises:
        KeyboardInterrupt: It was stopped by Ctrl-C.
        ProjectError: It failed, or was stopped otherwise.
    """
    stopping, shown = False, 0
    while True:
        try:
            running = state(name) is State.RUNNING  # before the look at its log: then we see all of that
            shown = _show(folder() / name / LOG, shown)
            if not running:
                break
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            if stopping:
                print(f"\nJob {name} goes on stopping by itself.", flush=True)
                raise
            print(f"\nStopping job {name}; Ctrl-C again leaves it to itself.", flush=True)
            stopping = True
            stop(name)
    if stopping:
        raise KeyboardInterrupt
    if state(name) is not State.COMPLETED:
        raise _failure(name)


def _show(path: Path, start: int) -> int:
    """Print a file from a position to its end; return the end."""
    with path.open("rb") as file:
        file.seek(start)
        sys.stdout.buffer.write(file.read())
        sys.stdout.flush()
        return file.tell()


def _failure(name: str) -> ProjectError:
    told = ending_of(name)
    return ProjectError(
        f"job {name} {told['state'].lower()}: {told['reason']}",
        f"mend that, then the same command starts a new job; what this one left is in {folder() / name / 'work'}",
    )


def stop(name: str) -> None:
    """Ask a job to stop: its training ends as after Ctrl-C. Nothing happens to one that has ended."""
    if state(name) is State.RUNNING:
        with contextlib.suppress(psutil.Error):
            psutil.Process(read_json(folder() / name / STARTED)["supervisor"]).terminate()


def _is_supervised(place: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(place / SUPERVISED, 0):
            return False
    except Timeout:
        return True


def log_of(name: str) -> str:
    """Return what a job printed."""
    return (folder() / name / LOG).read_text(encoding="utf-8", errors="replace")

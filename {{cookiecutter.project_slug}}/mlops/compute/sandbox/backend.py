"""Start, find, follow and stop jobs on this machine: the part of SageMaker's service.

Each job has a folder in `.dvc/tmp/jobs`, and in it a folder to work in that holds the code and no more. A supervisor
starts the job, waits for it, and writes how it ended. It outlives us: whoever comes later finds the job by its folder.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from ...config import home, load_platform
from ...errors import ProjectError
from ...files import read_json, write_json
from ...tracking import uploader
from ...tracking.run_context import RunContext
from .. import archive, remote
from ..state import State
from ..worker import RESULT
from . import credentials, processes

DESCRIPTION, CODE, LOG, STARTED, ENDED = "job.json", "code.tar.gz", "log", "started.json", "ended.json"
SUPERVISED = "supervised"  # a lock that the supervisor holds as long as it lives
SCRATCH = ("work", "home", "tmp", "site")
POLL_S = 0.1


def folder() -> Path:
    """Return where the jobs are: in the real repository, also for a throw-away experiment."""
    return home() / ".dvc" / "tmp" / "jobs"


def check() -> None:
    """See that a job can be started from here.

    Raises:
        ProjectError: This is Windows.
    """
    if os.name == "nt":
        raise ProjectError("the sandbox needs Linux or macOS", "work in WSL, or run the stage here: RUN_ON=local")


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
    found = [path for path in folder().glob(f"*/{DESCRIPTION}") if not path.parent.name.startswith(".")]
    return sorted((path.parent.name for path in found), key=described_at)


def is_described(name: str) -> bool:
    """Return whether there is a job of this name, which may not have been started."""
    return (folder() / name / DESCRIPTION).exists()


def described_at(name: str) -> float:
    """Return when a job was described, seconds since 1970."""
    return (folder() / name / DESCRIPTION).stat().st_mtime


def describe(name: str) -> dict[str, Any]:
    """Return what a job was told.

    Raises:
        ProjectError: There is no such job.
    """
    if not is_described(name):
        raise ProjectError(f"there is no job {name!r}", "python -m mlops jobs list")
    told: dict[str, Any] = read_json(folder() / name / DESCRIPTION)
    return told


def origin_of(name: str) -> RunContext:
    """Return where a job was started."""
    return RunContext(**describe(name)["origin"])


def state(name: str) -> State:
    """Return what became of a job."""
    place = folder() / name
    supervised = _is_supervised(place)  # before the look at how it ended, which is written before that ends
    if (place / ENDED).exists():
        return State(ending_of(name)["state"])
    if supervised:
        return State.RUNNING
    if not (place / STARTED).exists():
        return State.PREPARED
    # Its supervisor was killed. What a job hands back at last is whole.
    return State.COMPLETED if (out_dir(name) / RESULT).exists() else State.FAILED


def ending_of(name: str) -> dict[str, Any]:
    """Return how a job ended: `state`, `reason`, and unless its supervisor was killed `seconds` and `peak_bytes`."""
    path = folder() / name / ENDED
    told: dict[str, Any] = {"state": State.FAILED, "reason": "it and its supervisor were killed"}
    return read_json(path) if path.exists() else told


def result_of(name: str) -> dict[str, Any]:
    """Return what a job that ended well says of its results."""
    result: dict[str, Any] = read_json(out_dir(name) / RESULT)
    return result


def log_of(name: str) -> str:
    """Return what a job printed."""
    describe(name)
    path = folder() / name / LOG
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def row(name: str) -> str:
    """Return what there is to say of a job, in a line."""
    now = state(name)
    why = f"  {ending_of(name)['reason']}" if now in (State.FAILED, State.STOPPED) else ""
    return f"{now:<11} {name}{why}"


def prepare(name: str, description: dict[str, Any]) -> None:
    """Make the folder of a job that is to be started; it is there whole or not at all."""
    place = folder() / name
    new = place.with_name(f".{name}.new")
    for old in (new, place):  # of a launcher that was killed before it started the job
        shutil.rmtree(old, ignore_errors=True)
    (new / "out").mkdir(parents=True)
    archive.pack(description["origin"]["commit"], new / CODE)
    write_json(new / DESCRIPTION, description)
    os.replace(new, place)


def start(name: str) -> None:
    """Start a prepared job, and leave it to its supervisor.

    Raises:
        ProjectError: There are no AWS credentials, or the supervisor does not start.
    """
    place = folder() / name
    _sweep(describe(name)["stage"])
    if credentials.are_needed(describe(name)["remote"]["url"]):
        credentials.find(remote.options())  # the supervisor does too, but could not say so well when there are none
    with (place / LOG).open("ab") as told:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "mlops", "jobs", "supervise", name],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            start_new_session=True,  # Ctrl-C is for us, and what it means for the job is ours to say
        )
    try:
        while not (place / STARTED).exists():
            if supervisor.poll() is not None:
                raise ProjectError(f"job {name} did not start", f"see {place / LOG}")
            time.sleep(POLL_S / 5)
    except KeyboardInterrupt:
        supervisor.terminate()  # what it has started by then, it stops
        raise


def _sweep(stage: str) -> None:
    """End and delete what earlier jobs of a stage left."""
    for place in folder().glob(f"{load_platform().project}-{stage}-*-*"):
        if (place / STARTED).exists() and not _is_supervised(place):
            processes.kill(place / DESCRIPTION)
            keep_run(place)
            clear(place)


def clear(place: Path) -> None:
    """Delete the folders in which a job worked."""
    for name in SCRATCH:
        shutil.rmtree(place / name, ignore_errors=True)


def keep_run(place: Path) -> None:
    """Put the run of a job that is over into the outbox of this clone, when MLflow does not have all of it."""
    run, work = read_json(place / DESCRIPTION)["origin"]["run"], place / "work"
    waiting = work / ".dvc" / "tmp" / "outbox" / run
    if waiting.exists():
        uploader.stage_files(run, work)
        shutil.rmtree(waiting, ignore_errors=True)


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
            stop(name)
            print(f"\nStopping job {name}; Ctrl-C again leaves it to itself.", flush=True)
            stopping = True
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
    ended = ending_of(name)
    return ProjectError(
        f"job {name} {ended['state'].lower()}: {ended['reason']}",
        f"{ended.get('fix', 'mend that, then the same command: it starts a new job')}. "
        f"What this one left is in {folder() / name / 'work'}",
    )


def stop(name: str) -> None:
    """Ask a job to stop: its training ends as after Ctrl-C. Nothing happens to one that has ended.

    Raises:
        ProjectError: There is no such job.
    """
    describe(name)
    if state(name) is State.RUNNING:
        with contextlib.suppress(psutil.Error):
            psutil.Process(read_json(folder() / name / STARTED)["supervisor"]).terminate()


def clean() -> int:
    """Delete what ended jobs left but their results; return how many bytes that were."""
    ended = [folder() / name for name in names() if state(name) not in (State.RUNNING, State.PREPARED)]
    files = [path for place in ended for part in SCRATCH for path in (place / part).rglob("*") if path.is_file()]
    size = sum(path.lstat().st_size for path in files)
    for place in ended:
        processes.kill(place / DESCRIPTION)
        keep_run(place)
        clear(place)
    return size


def _is_supervised(place: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(place / SUPERVISED, 0):
            return False
    except Timeout:
        return True

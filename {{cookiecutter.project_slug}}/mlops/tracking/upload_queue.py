"""The runs that MLflow does not have whole yet.

A run enters when it begins and leaves when MLflow has confirmed its end. Its folder here has the same files as
`reports/train`, as hard links: what was written is still there when DVC clears the work tree for the next training, or
throws away the folder of an experiment, and when every process of the run was killed.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import home
from ..errors import ProjectError
from . import mlflow_client, mlflow_sync
from .run_files import ARTIFACTS, INPUT_FILES, LINEAGE, RUN_DIR, read_facts

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

WAIT_S = 60.0  # for a sidecar that is still sending
TRIES = 3
PAUSE_S = 1.0


def folder() -> Path:
    """Return where they are, a folder for each: out of Git's and DVC's sight."""
    return home() / ".dvc" / "tmp" / "outbox"


def waiting() -> list[str]:
    """Return the runs in the outbox."""
    return sorted(path.parents[len(LINEAGE.parts) - 1].name for path in folder().glob(f"*/{LINEAGE.as_posix()}"))


def stage_files(run: str, work: Path = Path()) -> Path:
    """Put the files that a run has written so far into the outbox.

    Args:
        run: Its id. When `work` holds another run already, nothing happens.
        work: Where it writes `reports/train`.

    Returns:
        Its folder in the outbox.
    """
    entry = folder() / run
    if (work / LINEAGE).exists() and read_facts(work)["run"] == run:
        written = [path.relative_to(work) for path in (work / RUN_DIR).rglob("*") if path.is_file()]
        # What the run read is what was there at its start: since then another stage may have run again.
        read = [Path(name) for name in INPUT_FILES if not (entry / name).exists()]
        for name in (*written, *read, *(Path(name) for name in ARTIFACTS if name not in INPUT_FILES)):
            with contextlib.suppress(FileNotFoundError):  # not there yet, or a temporary file that is gone again
                _link(work / name, entry / name)
    return entry


def _link(source: Path, target: Path) -> None:
    new, old = source.stat(), target.stat() if target.exists() else None
    if old and (os.path.samestat(new, old) or (new.st_size, new.st_mtime_ns) == (old.st_size, old.st_mtime_ns)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.new")
    scratch.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), scratch)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, scratch)
    os.replace(scratch, target)


def upload(root: Path = Path()) -> str:
    """Send to MLflow what it lacks of the ended run below `root`.

    Returns:
        MLflow's id of the run.

    Raises:
        RunDeletedError: A person deleted the run there.
        ProjectError: There is no run, or MLflow can't be reached.
    """
    run = read_facts(root)["run"]
    with upload_lock(run):
        entry = stage_files(run)  # what nobody came to, when all processes were killed
        run_id = _sync(entry if (entry / LINEAGE).exists() else root)
        remove(run)
    return run_id


def _sync(root: Path) -> str:
    # MLflow's client would send a request again whose reply was lost, and make two runs: this looks first.
    for _ in range(TRIES - 1):
        with contextlib.suppress(mlflow_client.MlflowError):
            return mlflow_sync.sync(root)
        time.sleep(PAUSE_S)
    return mlflow_sync.sync(root)


def upload_all() -> list[str]:
    """Deliver what is in the outbox, and then the run in the work tree.

    Returns:
        MLflow's ids of the runs.

    Raises:
        ProjectError: The first that was not taken; the others were sent all the same.
    """
    runs, delivered, problems = waiting(), [], []
    roots = [folder() / run for run in runs]
    if LINEAGE.exists() and read_facts()["run"] not in runs:
        roots.append(Path())
    for root in roots:
        try:
            if is_training(read_facts(root)["run"]):
                log.info("run %s is still training: its mirror is at work", root.name)
            else:
                delivered.append(upload(root))
        except mlflow_sync.RunDeletedError as error:
            if root == Path():
                raise
            log.warning("%s, so it is not sent; %s. To drop it: rm -r %s", error.problem, error.fix, root)
        except ProjectError as error:
            if (root / LINEAGE).exists():  # else its sidecar was still at it, and has sent it
                problems.append(error)
        except Exception as error:  # one damaged run must not hold up the others
            problem = f"the run in {root} can't be read: {type(error).__name__}: {error}"
            problems.append(ProjectError(problem, f"mend its files, or drop it: rm -r {root}"))
    if problems:
        raise problems[0]
    return delivered


def remove(run: str) -> None:
    """Take a run out of the outbox: MLflow has it."""
    shutil.rmtree(folder() / run, ignore_errors=True)


@contextlib.contextmanager
def upload_lock(run: str) -> Iterator[None]:
    """Be the only one who sends this run.

    Raises:
        ProjectError: Another process is at it, and does not end.
    """
    from filelock import Timeout

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_lock(f"{run}.sending", WAIT_S))
        except Timeout as error:
            problem = f"another process has been sending run {run} for more than {WAIT_S:.0f} s"
            raise ProjectError(problem, "the same command again, when it has ended") from error
        yield


@contextlib.contextmanager
def training(run: str) -> Iterator[None]:
    """Be the process whose run this is: `is_training` tells others as long as it lives."""
    with _lock(f"{run}.training", WAIT_S):  # others hold it for a moment, to ask
        yield


def is_training(run: str) -> bool:
    """Return whether the process that trains lives, on this machine."""
    from filelock import Timeout

    try:
        with _lock(f"{run}.training", 0):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def _lock(name: str, wait_s: float) -> Iterator["FileLock"]:
    from filelock import FileLock

    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / name
    with FileLock(path, wait_s) as lock:
        yield lock
    with contextlib.suppress(OSError):  # Windows: another process waits for it
        path.unlink(missing_ok=True)

"""Copy runs to MLflow from a process beside the training, and keep the files that MLflow does not have yet.

Training only writes files: it goes on at its pace, whatever happens to MLflow, the network, or this process. A run
enters the outbox when it begins and leaves it when MLflow has confirmed its end. Its folder there has hard links to the
files of `reports/train`: they remain when DVC clears the work tree for the next training, when the folder of an
experiment is deleted, and when every process of the run is killed.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from ..config import home, load_platform
from ..errors import ProjectError
from ..files import read_json, write_json
from . import mlflow_client, mlflow_sync
from .git import without_credentials
from .run_files import ARTIFACTS, INPUT_FILES, LINEAGE, RUN_DIR, has_manifest, read_facts

log = logging.getLogger(__name__)

INTERVAL_S = 2.0  # between two uploads
MAX_INTERVAL_S = 30.0  # the same, while MLflow does not answer
PATIENCE_S = 15.0  # after the end of the training, without an answer of MLflow
GRACE_S = 5.0  # longer than the patience, for the process to give up by itself
RESTART_S = 5.0  # after the process was killed
LOCK_WAIT_S = 60.0  # for another process that is still sending
TRIES, RETRY_S = 3, 1.0  # to send a whole run; between two of them
STAGE_METRICS = ".metrics"  # the end of the name of a folder beside the run's
DONE, BEHIND = 0, 3  # exit codes: MLflow has the whole run; it does not, and trying again now is useless


def folder() -> Path:
    """Return the outbox, which has a folder for each run; neither Git nor DVC sees it."""
    return home() / ".dvc" / "tmp" / "outbox"


def waiting() -> list[str]:
    """Return the ids of the runs in the outbox."""
    return sorted(path.parents[len(LINEAGE.parts) - 1].name for path in folder().glob(f"*/{LINEAGE.as_posix()}"))


def stage_files(run: str, work: Path = Path()) -> Path:
    """Put what a run has written below `work` so far, unless another run has begun, into its folder in the outbox."""
    entry = folder() / run
    if (work / LINEAGE).exists() and read_facts(work)["run"] == run:
        written = [path.relative_to(work) for path in (work / RUN_DIR).rglob("*") if path.is_file()]
        # The run read the input files as they were at its start: later, another stage may have replaced them.
        inputs = [Path(name) for name in INPUT_FILES if not (entry / name).exists() and has_manifest(work)]
        for name in (*written, *inputs, *(Path(name) for name in ARTIFACTS if name not in INPUT_FILES)):
            with contextlib.suppress(FileNotFoundError):  # not written yet, or a temporary file
                source, target = work / name, entry / name
                new, old = source.stat(), target.stat() if target.exists() else None
                if old and (
                    os.path.samestat(new, old) or (new.st_size, new.st_mtime_ns) == (old.st_size, old.st_mtime_ns)
                ):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                scratch = target.with_name(f"{target.name}.new")
                scratch.unlink(missing_ok=True)
                try:
                    os.link(source.resolve(), scratch)
                except OSError:  # another disk, or one without links
                    shutil.copy2(source, scratch)
                os.replace(scratch, target)
    return entry


def remove(run: str) -> None:
    """Remove a run from the outbox: MLflow has it."""
    shutil.rmtree(folder() / run, ignore_errors=True)


def upload(root: Path = Path()) -> str:
    """Do `mlflow_sync.sync` for the run below `root`, with its files in the outbox, and remove it from there."""
    run = read_facts(root)["run"]
    with upload_lock(run):
        entry = stage_files(run)  # files that were not staged, when all processes were killed
        source = entry if (entry / LINEAGE).exists() else root
        # MLflow's client would repeat a request whose reply was lost, and create two runs: `sync` checks first.
        for _ in range(TRIES - 1):
            with contextlib.suppress(mlflow_client.MlflowError):
                run_id = mlflow_sync.sync(source)
                break
            time.sleep(RETRY_S)
        else:
            run_id = mlflow_sync.sync(source)
        remove(run)
    return run_id


def stage_metrics(run: str, metrics: dict[str, float]) -> None:
    """Put what a stage after the training of a run measured into the outbox."""
    write_json(_stage_metrics(run) / f"{time.time_ns()}.json", metrics)


def waiting_stage_metrics() -> list[str]:
    """Return the ids of the runs to which the metrics of later stages are still to be sent."""
    return sorted(path.name.removesuffix(STAGE_METRICS) for path in folder().glob(f"*{STAGE_METRICS}"))


def upload_stage_metrics(run: str) -> str:
    """Send the metrics of later stages to a run that MLflow has, remove them here, and return MLflow's id of it."""
    with upload_lock(run), mlflow_client.translate_errors(mlflow_client.RETRY):
        client = mlflow_client.client()
        run_id = mlflow_sync.find(client, run, load_platform().project)
        if run_id is None or client.get_run(run_id).info.status not in mlflow_sync.ENDED:
            fix = "when its training has ended: python -m mlops mirror repair"
            raise ProjectError(f"MLflow does not have the end of run {run} yet", fix)
        for path in sorted(_stage_metrics(run).glob("*.json")):  # the oldest first
            mlflow_sync.send_stage_metrics(client, run_id, read_json(path))
            path.unlink()
        remove_stage_metrics(run)
    return run_id


def remove_stage_metrics(run: str) -> None:
    """Remove the metrics of later stages from the outbox."""
    shutil.rmtree(_stage_metrics(run), ignore_errors=True)


def _stage_metrics(run: str) -> Path:
    return folder() / f"{run}{STAGE_METRICS}"


def upload_all() -> list[str]:
    """Upload the runs in the outbox and the one here; return MLflow's ids, or raise the first error at the end."""
    runs, run_ids, problems = waiting(), [], []
    roots = [folder() / run for run in runs]
    if LINEAGE.exists() and read_facts()["run"] not in runs:
        roots.append(Path())
    for root in roots:
        try:
            if is_training(read_facts(root)["run"]):
                log.info("run %s is still training: another process uploads it", root.name)
            else:
                run_ids.append(upload(root))
        except mlflow_sync.RunDeletedError as error:
            if root == Path():
                raise
            log.warning("%s, so it is not sent; %s. To drop it: rm -r %s", error.problem, error.fix, root)
        except ProjectError as error:
            if (root / LINEAGE).exists():  # else another process was still uploading it, and is done
                problems.append(error)
        except Exception as error:  # one damaged run must not hold up the others
            problem = f"the run in {root} can't be read: {type(error).__name__}: {error}"
            fix = f"dvc checkout --force {RUN_DIR}" if root == Path() else f"drop it: rm -r {root}"
            problems.append(ProjectError(problem, f"{fix}; then the same command"))
    for run in waiting_stage_metrics():
        try:
            run_ids.append(upload_stage_metrics(run))
        except mlflow_sync.RunDeletedError as error:
            log.warning("%s, so metrics are not sent. To drop them: rm -r %s", error.problem, _stage_metrics(run))
        except ProjectError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return list(dict.fromkeys(run_ids))


@contextlib.contextmanager
def upload_lock(run: str) -> Iterator[None]:
    """Hold the upload lock of a run; raise ProjectError when another process holds it for too long."""
    try:
        with _lock(f"{run}.sending", LOCK_WAIT_S):
            yield
    except Timeout as error:
        problem = f"another process has been sending run {run} for more than {LOCK_WAIT_S:.0f} s"
        raise ProjectError(problem, "run the same command again when it has ended") from error


def training(run: str) -> AbstractContextManager[None]:
    """Hold the lock that shows other processes that this one trains the run."""
    return _lock(f"{run}.training", LOCK_WAIT_S)  # `is_training` holds it for a moment


def is_training(run: str) -> bool:
    """Return whether a process on this machine is training the run."""
    try:
        with _lock(f"{run}.training", 0):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def _lock(name: str, wait_s: float) -> Iterator[None]:
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / name
    with FileLock(path, wait_s):
        yield
    with contextlib.suppress(OSError):  # Windows: another process waits for it
        path.unlink(missing_ok=True)


class UploadProcess:
    """The process that uploads the run of the working directory; it is started again when something kills it."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._process = self._start()
        threading.Thread(target=self._restart_killed, daemon=True).start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with (folder() / self._run / "mirror.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "mlops", "mirror", "follow", self._run],
                env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_client.tracking_uri()},
                stdin=subprocess.PIPE,  # closed at the end of the training, however it ends
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the training alone
            )

    def _restart_killed(self) -> None:
        while self._process.wait() not in (DONE, BEHIND) and not self._ending.wait(RESTART_S):
            with self._starting:
                if not self._ending.is_set():
                    self._process = self._start()

    def close(self) -> bool:
        """Tell the process that the run ended, and wait a while; return whether MLflow has the whole run."""
        with self._starting:
            self._ending.set()
        try:
            code = self._end()
            if code not in (DONE, BEHIND):
                self._process = self._start()
                code = self._end()
        except (subprocess.TimeoutExpired, KeyboardInterrupt, OSError):
            return False  # it goes on in the background as long as MLflow answers
        return code == DONE

    def _end(self) -> int:
        # A byte too: forked workers, such as a DataLoader's, hold the other end of the pipe open.
        self._process.communicate(b"\n", PATIENCE_S + GRACE_S)
        return self._process.returncode


def follow(run: str) -> int:
    """Upload a run until standard input ends, and then the rest of it; return the exit code of the upload process."""
    # Each request is tried once: `_follow` tries again, and knows what may have arrived.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    if hasattr(os, "nice"):
        os.nice(5)
    work, ended = Path.cwd(), threading.Event()
    os.chdir(home())  # the folder of an experiment may be deleted while this runs

    def await_end() -> None:
        os.read(sys.stdin.fileno(), 1)  # not through Python's buffer, whose lock would still be held at exit
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    with upload_lock(run):
        return _follow(run, work, ended)


def _follow(run: str, work: Path, ended: threading.Event) -> int:
    mirror: mlflow_sync.Mirror | None = None
    interval, failed, answered = INTERVAL_S, False, time.monotonic()
    while True:
        is_last = ended.is_set()  # before the files are read: then all of them are seen
        try:
            root = stage_files(run, work)
            if mirror is None:
                mirror = mlflow_sync.Mirror(root, mlflow_client.client())
                mirror.reopen()
            elif failed:
                mirror.check_not_deleted()
            if is_last:
                mirror.finish()
                remove(run)
                return DONE
            mirror.push()
        except mlflow_sync.RunDeletedError as error:
            log.warning("%s", error.problem)
            return BEHIND
        except Exception as error:  # of MLflow, its database, its artifact store or the network
            log.warning("%s: %s", type(error).__name__, without_credentials(str(error)))
            interval, failed = min(2 * interval, MAX_INTERVAL_S), True
        else:
            interval, failed, answered = INTERVAL_S, False, time.monotonic()
        if is_last and time.monotonic() - answered > PATIENCE_S:
            return BEHIND
        if is_last:
            time.sleep(min(interval, 1))
        elif ended.wait(interval):
            answered = time.monotonic()

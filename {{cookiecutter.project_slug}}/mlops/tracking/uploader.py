"""A process beside the training that copies its run to MLflow while it goes on.

The training only writes files. Whatever happens to MLflow, to its network, or to this process, it goes on at its pace.
"""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..config import home
from . import mlflow_client, mlflow_sync, upload_queue
from .git import without_credentials

log = logging.getLogger(__name__)

INTERVAL_S = 2.0  # between two looks at the files
LONGEST_S = 30.0  # the same, while MLflow is away
PATIENCE_S = 15.0  # after the end of the training, without an answer of MLflow
GRACE_S = 5.0  # longer than the sidecar's patience, to see it give up
RESTART_S = 5.0  # after the sidecar was killed
DONE, BEHIND = 0, 3  # exit codes: MLflow has the whole run; it does not, and more trying now is useless


class Sidecar:
    """The process, started, and started again when something kills it.

    Args:
        run: The id of a run in the outbox whose files are written below the working directory.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._process = self._start()
        threading.Thread(target=self._keep, daemon=True).start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with (upload_queue.folder() / self._run / "mirror.log").open("ab") as told:
            return subprocess.Popen(
                [sys.executable, "-m", "mlops", "mirror", "follow", self._run],
                env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_client.tracking_uri()},
                stdin=subprocess.PIPE,  # its end tells the sidecar that the training ended, however it did
                stdout=told,
                stderr=told,
                start_new_session=True,  # Ctrl-C is for the training alone
            )

    def _keep(self) -> None:
        while not _ended_itself(self._process.wait()) and not self._ending.wait(RESTART_S):
            with self._starting:
                if not self._ending.is_set():
                    self._process = self._start()

    def close(self) -> bool:
        """Tell that the run ended, and give the sidecar some time to send what is left.

        Returns:
            Whether MLflow has the whole run.
        """
        with self._starting:
            self._ending.set()
        try:
            code = self._end()
            if not _ended_itself(code):
                self._process = self._start()
                code = self._end()
        except (subprocess.TimeoutExpired, KeyboardInterrupt, OSError):
            return False  # it goes on in the background as long as MLflow answers
        return code == DONE

    def _end(self) -> int:
        if self._process.stdin:
            # A byte too: forked workers, such as a DataLoader's, hold the other end of the pipe open.
            with contextlib.suppress(OSError, ValueError):  # it is dead, or was told
                self._process.stdin.write(b"\n")
                self._process.stdin.close()
        return self._process.wait(PATIENCE_S + GRACE_S)


def _ended_itself(code: int) -> bool:
    return code in (DONE, BEHIND)


def follow(run: str) -> int:
    """Copy a run to MLflow until standard input ends, and then the rest of it. What the process does.

    Returns:
        `DONE`, or `BEHIND` when MLflow did not answer, or a person deleted the run there.
    """
    # Each request is tried once: this loop is what tries again, and it knows what may have arrived.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    if hasattr(os, "nice"):
        os.nice(5)
    work = Path.cwd()
    os.chdir(home())  # the folder of an experiment is thrown away while we may still be at it
    ended = threading.Event()
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    with upload_queue.upload_lock(run):
        return _Loop(run, work, ended).run()


def _await_end(ended: threading.Event) -> None:
    os.read(sys.stdin.fileno(), 1)  # not through Python's buffer: its lock would be held when the process ends before
    ended.set()


class _Loop:
    def __init__(self, run: str, work: Path, ended: threading.Event) -> None:
        self._name, self._work, self._ended = run, work, ended
        self._mirror: mlflow_sync.Mirror | None = None
        self._failed = False
        self._answered = time.monotonic()

    def run(self) -> int:
        pause = INTERVAL_S
        while True:
            last = self._ended.is_set()  # before the look at the files: then it sees all
            try:
                self._pass(last)
            except mlflow_sync.RunDeletedError as error:
                log.warning("%s", error.problem)
                return BEHIND
            except Exception as error:  # whatever MLflow, its database, its artifact store or the network can say
                log.warning("%s: %s", type(error).__name__, without_credentials(str(error)))
                pause, self._failed = min(2 * pause, LONGEST_S), True
            else:
                if last:
                    upload_queue.remove(self._name)
                    return DONE
                pause, self._failed, self._answered = INTERVAL_S, False, time.monotonic()
            if last and time.monotonic() - self._answered > PATIENCE_S:
                return BEHIND
            if last:
                time.sleep(min(pause, 1))
            elif self._ended.wait(pause):
                self._answered = time.monotonic()

    def _pass(self, last: bool) -> None:
        root = upload_queue.stage_files(self._name, self._work)
        if self._mirror is None:
            self._mirror = mlflow_sync.Mirror(root, mlflow_client.client())
            self._mirror.reopen()
        elif self._failed:
            self._mirror.check_not_deleted()
        if last:
            self._mirror.finish()
        else:
            self._mirror.push()

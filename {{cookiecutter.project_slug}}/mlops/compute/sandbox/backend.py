"""Run jobs on this machine, each in a folder of its own.

Each job has a folder in `.dvc/tmp/jobs`, with working folders that hold the code and no more. A supervisor process
starts the job, waits for it, and records how it ended. It outlives the launcher: a later one finds the job's folder.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ...config import home
from ...errors import ProjectError
from ...files import atomic_write, read_json, write_json
from .. import transfer
from ..backend import CODE, DESCRIPTION, Backend, JobRow, State
from ..spec import job_stem
from ..worker import RESULT
from . import credentials

# In the folder of a job.
LOG, STARTED, ENDED, OUT = "log", "started.json", "ended.json", "out"
SUPERVISED = "supervised"  # a lock that the supervisor holds as long as it lives
SCRATCH = ("work", "home", "tmp", "site")
POLL_S = 0.1


class Sandbox(Backend):
    """Jobs as processes of this machine, each in a folder of its own."""

    NAME = "sandbox"

    def folder(self) -> Path:
        return home() / ".dvc" / "tmp" / "jobs"  # of the real repository, also for a throw-away experiment

    def check(self) -> None:
        if os.name == "nt":
            raise ProjectError("the sandbox needs Linux or macOS", "work in WSL, or run the stage here: RUN_ON=local")

    def out_dir(self, name: str) -> Path:
        return self.folder() / name / OUT

    def state(self, name: str) -> State:
        job = self.folder() / name
        supervised = _is_supervised(job)  # before looking for ENDED, which is written while the supervisor lives
        if (job / ENDED).exists():
            return State(self.ending_of(name)["state"])
        if supervised:
            return State.RUNNING
        if not (job / STARTED).exists():
            return State.PREPARED
        # Its supervisor was killed. RESULT, which a job writes last, is written whole or not at all.
        return State.COMPLETED if (job / OUT / RESULT).exists() else State.FAILED

    def ending_of(self, name: str) -> dict[str, Any]:
        """Return `state` and `reason` of an ended job; unless its supervisor was killed, `seconds` and `peak_bytes`."""
        path = self.folder() / name / ENDED
        killed = {"state": State.FAILED, "reason": "it and its supervisor were killed"}
        return dict(read_json(path)) if path.exists() else killed

    def log_of(self, name: str) -> str:
        path = self.folder() / name / LOG
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def row(self, name: str) -> JobRow:
        state = self.state(name)
        return JobRow(state, self.ending_of(name)["reason"] if state in (State.FAILED, State.STOPPED) else "")

    def prepare(self, name: str, description: dict[str, Any]) -> None:
        with atomic_write(self.folder() / name) as new:  # replaces what a launcher left that was killed before `start`
            (new / OUT).mkdir(parents=True)
            transfer.pack(description["origin"]["commit"], new / CODE)
            write_json(new / DESCRIPTION, description)

    def start(self, name: str) -> None:
        job, description = self.folder() / name, self.describe(name)
        for earlier in self.folder().glob(f"{job_stem(description['stage'])}-*-*"):
            if (earlier / STARTED).exists() and not _is_supervised(earlier):
                self._clean_up(earlier.name)
        if credentials.are_needed(description["remote"]["url"]):
            credentials.find(transfer.remote_options())  # the supervisor finds them again, and can't report as well
        interrupts: list[int] = []
        # Ctrl-C waits until the supervisor is known, so that it can be stopped.
        on_interrupt = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
        try:
            with (job / LOG).open("ab") as log:
                command = [sys.executable, "-m", "mlops", "jobs", "supervise", name]
                # In a session of its own: Ctrl-C reaches the launcher only, which decides what becomes of the job.
                supervisor = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        finally:
            signal.signal(signal.SIGINT, on_interrupt)
        try:
            if interrupts:
                raise KeyboardInterrupt
            while not (job / STARTED).exists():
                if supervisor.poll() is not None:
                    raise ProjectError(f"job {name} did not start", f"python -m mlops jobs logs {name}")
                time.sleep(POLL_S / 5)
        except KeyboardInterrupt:
            supervisor.terminate()  # it stops the job that it may have started
            raise

    def follow(self, name: str) -> None:
        running, stopping = True, False
        with (self.folder() / name / LOG).open("rb") as log:
            while running:
                try:
                    running = self.state(name) is State.RUNNING  # before reading the log: its end is printed too
                    sys.stdout.buffer.write(log.read())
                    sys.stdout.flush()
                    if running:
                        time.sleep(POLL_S)
                except KeyboardInterrupt:
                    if stopping:
                        print(f"\nJob {name} goes on stopping by itself.", flush=True)
                        raise
                    self.stop(name)
                    print(f"\nStopping job {name}; Ctrl-C again leaves it to itself.", flush=True)
                    stopping = True
        if stopping:
            raise KeyboardInterrupt
        if self.state(name) is not State.COMPLETED:
            ending = self.ending_of(name)
            problem = f"job {name} {ending['state'].lower()}: {ending['reason']}"
            fix = ending.get("fix", "correct that, then the same command: it starts a new job")
            raise ProjectError(problem, f"{fix}. What this job left is in {self.folder() / name / 'work'}")

    def stop(self, name: str) -> None:
        if self.state(name) is State.RUNNING:
            with contextlib.suppress(psutil.Error):
                psutil.Process(read_json(self.folder() / name / STARTED)["supervisor"]).terminate()

    def clean(self) -> int:
        ended = [name for name in self.names() if self.state(name) not in (State.RUNNING, State.PREPARED)]
        folders = [self.folder() / name / part for name in ended for part in SCRATCH]
        size = sum(path.lstat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
        for name in ended:
            self._clean_up(name)
        return size

    def _clean_up(self, name: str) -> None:
        """End what is left of a job's processes, keep its run for MLflow, delete its working folders."""
        kill(self.folder() / name / DESCRIPTION)
        transfer.queue_run(self.describe(name)["origin"]["run"], self.folder() / name / "work")
        clear(self.folder() / name)


def kill(description: Path) -> None:
    """End all processes whose `STAGE_JOB` names the job's file, also if their parent was killed or left its session."""
    for _ in range(20):  # a process may start another one in the meantime
        processes = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # another user's, or it has just ended
                if process.environ().get("STAGE_JOB") == str(description) and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):  # it has just ended
                process.kill()
        psutil.wait_procs(processes, timeout=1)


def clear(job: Path) -> None:
    """Delete the working folders of a job."""
    for name in SCRATCH:
        shutil.rmtree(job / name, ignore_errors=True)


def _is_supervised(job: Path) -> bool:
    try:
        with FileLock(job / SUPERVISED, 0):
            return False
    except Timeout:
        return True

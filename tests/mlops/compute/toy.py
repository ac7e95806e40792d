"""A backend with no more than it needs: a job is a subprocess in a temporary folder. Copied into a project."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlops.compute import transfer
from mlops.compute.backend import Backend, JobRow, State
from mlops.config import home
from mlops.errors import ProjectError
from mlops.files import read_json, write_json


class Toy(Backend):
    """Keeps job.json, code.tar.gz, log, pid, exit_code and out/ of a job in one folder."""

    NAME = "toy"

    def folder(self) -> Path:
        """Return the folder of all jobs."""
        return home() / ".dvc" / "tmp" / "toy"

    def check(self) -> None:
        """Accept every system."""

    def state(self, name: str) -> State:
        """Return the state that the files show."""
        job = self.folder() / name
        if (job / "exit_code").exists():
            succeeded = (job / "exit_code").read_text(encoding="utf-8") == "0\n"
            return State.COMPLETED if succeeded else State.FAILED
        return State.RUNNING if (job / "pid").exists() else State.PREPARED

    def prepare(self, name: str, description: dict[str, Any]) -> None:
        """Make the folder of the job."""
        (self.out_dir(name)).mkdir(parents=True)
        transfer.pack(description["origin"]["commit"], self.folder() / name / "code.tar.gz")
        write_json(self.folder() / name / "job.json", description)

    def start(self, name: str) -> None:
        """Start the job, and a shell that records its exit code."""
        job = self.folder() / name
        work = Path(tempfile.mkdtemp())
        transfer.unpack(job / "code.tar.gz", work)
        command = [sys.executable, "-m", "mlops", "jobs", "run", str(job / "job.json"), str(self.out_dir(name))]
        # A session of its own: the signals of a job that stops go to its whole process group.
        script = f'setsid env -C {work} "$@" > log 2>&1 & echo $! > pid; wait $!; echo $? > new; mv new exit_code'
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
        subprocess.Popen(
            ["sh", "-c", script, "sh", *command],
            cwd=job,
            env={**environment, "RUN_ON": "local", "STAGE_JOB": str(job / "job.json")},
        )
        while not (job / "pid").exists():
            time.sleep(0.05)

    def follow(self, name: str) -> None:
        """Wait for the end, and print the log then."""
        while self.state(name) is State.RUNNING:
            time.sleep(0.1)
        print(self.log_of(name))
        if self.state(name) is not State.COMPLETED:
            failure = self.out_dir(name) / "failure.json"
            reason = (
                read_json(failure) if failure.exists() else {"reason": "somebody stopped it", "fix": "run it again"}
            )
            raise ProjectError(f"job {name} {self.state(name).lower()}: {reason['reason']}", reason["fix"])

    def out_dir(self, name: str) -> Path:
        """Return the folder of the results."""
        return self.folder() / name / "out"

    def stop(self, name: str) -> None:
        """Send SIGTERM to a job that runs."""
        if self.state(name) is State.RUNNING:
            os.kill(int((self.folder() / name / "pid").read_text(encoding="utf-8")), signal.SIGTERM)

    def log_of(self, name: str) -> str:
        """Return what the job printed."""
        return (self.folder() / name / "log").read_text(encoding="utf-8")

    def row(self, name: str) -> JobRow:
        """Return its state, and where it is."""
        return JobRow(self.state(name), f"in {self.folder()}")

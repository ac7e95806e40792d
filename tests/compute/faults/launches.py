"""`dvc repro` whose stages run as jobs, and what it leaves in the sandbox: to be killed, stopped and looked at."""

import contextlib
import os
import signal
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ...conftest import BakedProject
from ...projects import read
from ...servers.mlflow import PATIENCE_S, until

DEADLY = Path(__file__).with_name("deadly")
CURVE = "work/reports/train/plots/metrics/val/acc.tsv"  # in the folder of a job


class Launch:
    """A command of DVC's that starts jobs, with a process group of its own.

    Args:
        project: Where.
        command: Arguments of DVC: `repro` and a stage.
        environment: More variables. Jobs run in the sandbox, unless RUN_ON says otherwise.
    """

    def __init__(self, project: BakedProject, *command: str, **environment: str) -> None:
        """Start it."""
        with tempfile.NamedTemporaryFile(dir=project.path.parent, delete=False) as file:
            self._output = Path(file.name)
            self.process = subprocess.Popen(
                ["dvc", *command],
                cwd=project.path,
                env={"RUN_ON": "sandbox", **os.environ, **environment},
                stdout=file,
                stderr=file,
                start_new_session=True,
                # Tests that were started in the background ignore the signal, and so would their children.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def signal(self, number: int) -> None:
        """Send a signal to DVC and to the stage that it runs; not to a job, which is no child of theirs."""
        os.killpg(self.process.pid, number)

    def wait(self) -> str:
        """Wait for the end, and return what was printed."""
        self.process.wait(PATIENCE_S)
        return self.output()

    def output(self) -> str:
        """Return what was printed so far."""
        return self._output.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it as by `kill -9`."""
        self.signal(signal.SIGKILL)
        self.wait()

    def succeed(self) -> str:
        """Wait for a good end, and return what was printed."""
        output = self.wait()
        assert self.process.returncode == 0, output
        return output

    def fail(self) -> str:
        """Wait for a bad end that is told as users are told, and return what was printed."""
        output = self.wait()
        assert self.process.returncode > 0, output
        assert "Traceback" not in output, output
        return output


def repro(project: BakedProject, *targets: str, **environment: str) -> Launch:
    """Start `dvc repro` in a project."""
    return Launch(project, "repro", *targets, **environment)


def die(project: BakedProject, place: str, *targets: str) -> None:
    """Run `dvc repro` until a place in its code, where it is killed with all its processes but jobs.

    Args:
        project: Where.
        place: `<module>:<function>`.
        targets: For DVC.
    """
    launch = repro(project, *targets, DIE_AT=place, PYTHONPATH=str(DEADLY))
    output = launch.wait()
    assert launch.process.returncode == -signal.SIGKILL, output


class Job:
    """The folder of one job."""

    def __init__(self, path: Path) -> None:
        """Take it; the job need not have started."""
        self.path = path

    def has_started(self) -> bool:
        """Return whether its supervisor has started it."""
        return (self.path / "started.json").exists()

    def has_ended(self) -> bool:
        """Return whether its supervisor has written how it ended."""
        return (self.path / "ended.json").exists()

    def is_supervised(self) -> bool:
        """Return whether its supervisor lives."""
        try:
            with FileLock(self.path / "supervised", 0):
                return False
        except Timeout:
            return True

    def read(self, name: str) -> Any:
        """Read a JSON file in it."""
        return read(BakedProject(self.path, ""), name)

    def state(self) -> str:
        """Return how it ended."""
        return str(self.read("ended.json")["state"])

    def log(self) -> str:
        """Return what it printed."""
        return (self.path / "log").read_text(encoding="utf-8")

    def processes(self) -> list[psutil.Process]:
        """Return those that live of the job, each of which is told what it is; without its supervisor."""
        matching = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                matches = process.environ().get("STAGE_JOB") == str(self.path / "job.json")
                if matches and process.status() != psutil.STATUS_ZOMBIE:
                    matching.append(process)
        return matching

    def does(self, words: str) -> list[psutil.Process]:
        """Return those of its processes whose command holds some words."""
        matching = []
        for process in self.processes() if self.has_started() else []:
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    matching.append(process)
        return matching

    def kill(self, supervisor: bool = False) -> None:
        """End its processes as by `kill -9`; with its supervisor first, or without."""
        started = self.read("started.json")
        with contextlib.suppress(psutil.Error):
            if supervisor:
                psutil.Process(started["supervisor"]).kill()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def jobs(project: BakedProject, stage: str = "manifest") -> list[Job]:
    """Return the jobs of a stage, in the order of their names."""
    folders = project.path.glob(f".dvc/tmp/jobs/{project.path.name}-{stage}-*/job.json")
    return [Job(path.parent) for path in sorted(folders)]


def started(project: BakedProject, stage: str = "manifest") -> Job:
    """Wait until a job has started, and return it."""
    return until(lambda: next((job for job in jobs(project, stage) if job.has_started()), None), poll_s=0.02)


def trainings(project: BakedProject) -> list[str]:
    """Return the entries of trainings in the log, the latest first."""
    log = project.run("git", "log", "--first-parent", "--format=%s", "lineage", check=False).stdout
    return [line for line in log.splitlines() if line.startswith("train ")]


def lock(project: BakedProject) -> bytes:
    """Return the content of `dvc.lock`."""
    return (project.path / "dvc.lock").read_bytes()

"""What runs a job in the sandbox, as SageMaker's service runs one: starts it, waits for it, writes how it ended."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ..errors import ProjectError
from ..files import read_json, write_json
from ..settings import PACKAGE, home, load_platform
from ..tracking.git import without_credentials
from . import bundle, credentials, processes, walls
from .job import REASON
from .sandbox import CODE, DESCRIPTION, ENDED, SCRATCH, STARTED, SUPERVISED, folder
from .state import State

WAIT_S = 5.0  # others hold the lock for a moment, to ask
GRACE_S = 30.0  # between asking a job to stop and killing it: SageMaker's is 120
# Of our environment, what is no secret and tells where things are.
PASSED = """
    AWS_CA_BUNDLE AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_REGION
    LANG LC_ALL MLFLOW_S3_ENDPOINT_URL NO_PROXY SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT SSL_CERT_FILE SYSTEMROOT TZ
"""


def supervise(name: str) -> None:
    """Run a job to its end; credentials come through standard input. What the process does."""
    place = folder() / name
    with contextlib.suppress(Timeout), FileLock(place / SUPERVISED, WAIT_S):  # else another one is at it
        if (place / ENDED).exists():
            return
        try:
            ended = _Supervisor(place).run(json.load(sys.stdin))
        except (OSError, ProjectError) as error:
            ended = {"state": State.FAILED, "reason": str(error)}
            write_json(place / STARTED, {"pid": os.getpid(), "at": 0, "supervisor": os.getpid()})
        if ended["state"] is State.COMPLETED:
            for scratch in SCRATCH:
                shutil.rmtree(place / scratch, ignore_errors=True)
        write_json(place / ENDED, ended)


class _Supervisor:
    def __init__(self, place: Path) -> None:
        self._place, self._job = place, read_json(place / DESCRIPTION)
        self._asked = ""
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._asked = "somebody stopped it"

    def run(self, secret: dict[str, str]) -> dict[str, Any]:
        for name in SCRATCH:
            shutil.rmtree(self._place / name, ignore_errors=True)
            (self._place / name).mkdir()
        bundle.unpack(self._place / CODE, self._place / "work")
        begin = time.time()
        process = psutil.Popen(
            self._command(),
            cwd=self._place / "work",
            env=self._environment() | (credentials.serve(secret) if secret else {}),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        started = {"pid": process.pid, "at": process.create_time(), "supervisor": os.getpid()}
        write_json(self._place / STARTED, started)
        peak_bytes = self._wait(process, begin + self._job["spec"]["max_runtime_s"])
        processes.kill(started)
        return {**self._ended(process.returncode), "seconds": round(time.time() - begin, 1), "peak_bytes": peak_bytes}

    def _command(self) -> list[str]:
        work, out = self._place / "work", self._place / "out"
        command = [sys.executable, "-m", PACKAGE, "jobs", "run", str(self._place / DESCRIPTION), str(out)]
        if not walls.can_be_built():
            print("This system lets nobody hide files, so absolute paths are not caught here.", flush=True)
            return command
        url = self._job["remote"]["url"]
        storage = [] if "://" in url else [Path(url)]
        for path in storage:
            path.mkdir(parents=True, exist_ok=True)
        return walls.around(command, [home(), Path.home()], [work, self._place, *storage])

    def _environment(self) -> dict[str, str]:
        folders = {name: str(self._place / name) for name in SCRATCH}
        uri = load_platform().tracking_uri
        return {
            **{name: os.environ[name] for name in PASSED.split() if name in os.environ},
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "HOME": folders["home"],
            "USERPROFILE": folders["home"],
            "TMPDIR": folders["tmp"],
            "TEMP": folders["tmp"],
            "DVC_SITE_CACHE_DIR": folders["site"],
            "DVC_NO_ANALYTICS": "1",
            "GIT_CEILING_DIRECTORIES": str(self._place),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            **({"MLFLOW_TRACKING_URI": without_credentials(uri)} if uri else {}),
            **self._job["spec"]["environment"],
            "RUN_ON": "local",
            "STAGE_JOB": str(self._place / DESCRIPTION),
        }

    def _wait(self, process: psutil.Popen, deadline: float) -> int:
        """Wait for the end, which may have to be made; return the most memory that the job had, bytes."""
        peak, kill_at = 0, float("inf")
        while True:
            try:
                process.wait(0.5)
                return peak
            except psutil.TimeoutExpired:
                peak = max(peak, _memory(process))
            if time.time() > deadline and not self._asked:
                self._asked = f"it ran for more than {self._job['spec']['max_runtime_s']} s (max_runtime_s)"
            if self._asked and kill_at == float("inf"):
                kill_at = time.time() + GRACE_S
                process.terminate()
            if time.time() > kill_at:
                for one in (*process.children(recursive=True), process):
                    one.kill()

    def _ended(self, code: int) -> dict[str, Any]:
        if code == 0:
            return {"state": State.COMPLETED, "reason": ""}
        if self._asked:
            return {"state": State.STOPPED, "reason": self._asked}
        told = self._place / "out" / REASON
        reason = told.read_text(encoding="utf-8") if told.exists() else f"it ended with code {code}"
        return {"state": State.FAILED, "reason": "it was killed" if code == -signal.SIGKILL else reason}


def _memory(process: psutil.Popen) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total

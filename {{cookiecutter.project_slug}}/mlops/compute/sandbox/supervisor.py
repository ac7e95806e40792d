"""What runs a job: starts it, waits for it, writes how it ended.

The job gets a folder, a cache and a home of its own, no secret of our environment, and AWS credentials as SageMaker
gives them.
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

from ...config import home, load_platform
from ...files import read_json, write_json
from ...tracking.git import without_credentials
from .. import archive, remote
from ..state import State
from ..worker import FAILURE
from . import credentials, isolation, processes
from .backend import CODE, DESCRIPTION, ENDED, SCRATCH, STARTED, SUPERVISED, clear, folder, keep_run

WAIT_S = 5.0  # others hold the lock for a moment, to ask
LOOK_S = 0.5  # between two looks at the job
ROOM_BYTES = 1_000_000  # a disk with less is full
GRACE_S = 30.0  # between asking a job to stop and killing it: SageMaker's is 120
ASKS = 2  # the first signal may come to a thread that is not Python's main one, and wait there
# Of our environment, what is no secret and tells where things are.
PASSED = """
    AWS_CA_BUNDLE AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_REGION
    HTTPS_PROXY HTTP_PROXY LANG LC_ALL MLFLOW_S3_ENDPOINT_URL NO_PROXY PATH SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT
    SSL_CERT_FILE TZ
"""


def supervise(name: str) -> None:
    """Run a job to its end. What the process does."""
    place = folder() / name
    with contextlib.suppress(Timeout), FileLock(place / SUPERVISED, WAIT_S):  # else another one is at it
        if (place / ENDED).exists():
            return
        write_json(place / STARTED, {"supervisor": os.getpid()})
        try:
            ended = _Supervisor(place).run()
        except Exception as error:  # whatever it is, those who wait must know
            ended = {"state": State.FAILED, "reason": f"{type(error).__name__}: {error}"}
        processes.kill(place / DESCRIPTION)  # what outlived it
        _end(place, ended)
        if ended["state"] is State.COMPLETED:
            clear(place)


def _end(place: Path, ended: dict[str, Any]) -> None:
    """Write how a job ended; it may be that it filled the disk."""
    full = shutil.disk_usage(place).free < ROOM_BYTES
    if full and ended["state"] is State.FAILED:
        ended = {**ended, "reason": f"the disk of {place} is full. {ended['reason']}"}
    try:
        keep_run(place)
        write_json(place / ENDED, ended)
    except OSError:
        clear(place)
        write_json(place / ENDED, ended)


class _Supervisor:
    def __init__(self, place: Path) -> None:
        self._place, self._job = place, read_json(place / DESCRIPTION)
        self._asked = ""  # why the job is to stop
        signal.signal(signal.SIGTERM, self._hear)
        clear(place)
        for name in SCRATCH:
            (place / name).mkdir()
        archive.unpack(place / CODE, place / "work")
        self._environment = self._public() | self._credentials()
        self._command = self._inside(["jobs", "run", str(place / DESCRIPTION), str(place / "out")])
        os.chdir(home())  # the folder of an experiment may be thrown away meanwhile

    def _hear(self, *_: object) -> None:
        self._asked = "somebody stopped it"

    def run(self) -> dict[str, Any]:
        begin = time.time()
        process = psutil.Popen(
            self._command,
            cwd=self._place / "work",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        peak_bytes = self._wait(process, begin + self._job["spec"]["max_runtime_s"])
        return {**self._ended(process.returncode), "seconds": round(time.time() - begin, 1), "peak_bytes": peak_bytes}

    def _public(self) -> dict[str, str]:
        told = {name: os.environ[name] for name in PASSED.split() if name in os.environ}
        uri = load_platform().tracking_uri
        if uri:
            told["MLFLOW_TRACKING_URI"] = uri
        return {
            **{name: value for name, value in told.items() if without_credentials(value) == value},
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            "HOME": str(self._place / "home"),
            "TMPDIR": str(self._tmp()),
            "DVC_SITE_CACHE_DIR": str(self._place / "site"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CEILING_DIRECTORIES": str(self._place),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            **self._job["spec"]["environment"],
            "RUN_ON": "local",
            "STAGE_JOB": str(self._place / DESCRIPTION),
        }

    def _tmp(self) -> Path:
        return isolation.TMP if isolation.is_supported() else self._place / "tmp"

    def _credentials(self) -> dict[str, str]:
        needed = credentials.are_needed(self._job["remote"]["url"])
        return credentials.serve(credentials.find(remote.options())) if needed else {}

    def _inside(self, arguments: list[str]) -> list[str]:
        command = [sys.executable, "-m", "mlops", *arguments]
        if not isolation.is_supported():
            print("This system has no user namespaces: paths that only this machine has are not caught.", flush=True)
            return command
        storage = remote.folder(self._job["remote"])
        if storage:
            storage.mkdir(parents=True, exist_ok=True)
        hidden = [home(), Path(os.path.expanduser("~"))]
        kept = [self._place, *([storage] if storage else []), *self._checkpoints()]
        return isolation.wrap_command(command, self._place / "work", self._place / "tmp", hidden, kept)

    def _checkpoints(self) -> list[Path]:
        """Return the folder that outlives a job, as SageMaker's S3 does, if the job has one."""
        folder = self._job["spec"]["environment"].get("CHECKPOINT_DIR")
        if not folder:
            return []
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [Path(folder)]

    def _wait(self, process: psutil.Popen, deadline: float) -> int:
        """Wait for the end, which may have to be made; return the most memory that the job had, bytes."""
        peak, asks, ask_at = 0, 0, 0.0
        while True:
            try:
                process.wait(LOOK_S)
                return peak
            except psutil.TimeoutExpired:
                peak = max(peak, processes.memory(process))
            if time.time() > deadline and not self._asked:
                self._asked = f"it ran for more than {self._job['spec']['max_runtime_s']} s (max_runtime_s)"
            if self._asked and time.time() > ask_at:
                if asks < ASKS:
                    process.terminate()
                else:
                    processes.kill(self._place / DESCRIPTION)
                asks, ask_at = asks + 1, time.time() + GRACE_S / ASKS

    def _ended(self, code: int) -> dict[str, Any]:
        if code == 0:
            return {"state": State.COMPLETED, "reason": ""}
        if self._asked:
            return {"state": State.STOPPED, "reason": self._asked}
        path = self._place / "out" / FAILURE
        told = {"reason": "it was killed" if code == -signal.SIGKILL else f"it ended with code {code}"}
        return {"state": State.FAILED, **(read_json(path) if path.exists() else told)}

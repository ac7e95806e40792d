"""The process that runs a job: it starts the job, waits for its end, records how it ended.

The job gets a folder, a cache and a home of its own, no secret of our environment, and AWS credentials as containers
get them.
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
from .. import transfer
from ..backend import State
from ..worker import FAILURE
from . import credentials, isolation
from .backend import CODE, DESCRIPTION, ENDED, OUT, SCRATCH, STARTED, SUPERVISED, Sandbox, clear, kill, queue_run

LOCK_WAIT_S = 5.0  # others hold the lock for a moment, to test it
POLL_S = 0.5
FULL_DISK_BYTES = 1_000_000  # a disk with less free is full
GRACE_S = 30.0  # between asking a job to stop and killing it
SIGNALS = 2  # the first one may reach a thread that is not Python's main one, and wait there
# Of our environment, the variables that hold addresses and no secrets.
PASSED = """
    AWS_CA_BUNDLE AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_REGION
    HTTPS_PROXY HTTP_PROXY LANG LC_ALL MLFLOW_S3_ENDPOINT_URL NO_PROXY PATH SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT
    SSL_CERT_FILE TZ
"""


def supervise(name: str) -> None:
    """Run a prepared job to its end. What the process does."""
    job = Sandbox().folder() / name
    with contextlib.suppress(Timeout), FileLock(job / SUPERVISED, LOCK_WAIT_S):  # Timeout: it has a supervisor already
        if (job / ENDED).exists():
            return
        write_json(job / STARTED, {"supervisor": os.getpid()})
        try:
            ending = _Supervisor(job).run()
        except Exception as error:  # whatever it is, those who wait must learn of it
            ending = {"state": State.FAILED, "reason": f"{type(error).__name__}: {error}"}
        kill(job / DESCRIPTION)  # processes that outlived the job
        _record(job, ending)
        if ending["state"] is State.COMPLETED:
            clear(job)


def _record(job: Path, ending: dict[str, Any]) -> None:
    """Write how a job ended, even if it filled the disk."""
    if shutil.disk_usage(job).free < FULL_DISK_BYTES and ending["state"] is State.FAILED:
        ending = {**ending, "reason": f"the disk of {job} is full. {ending['reason']}"}
    try:
        queue_run(job)
        write_json(job / ENDED, ending)
    except OSError:
        clear(job)
        write_json(job / ENDED, ending)


class _Supervisor:
    def __init__(self, job: Path) -> None:
        self._job, self._description = job, read_json(job / DESCRIPTION)
        self._spec = self._description["spec"]
        self._stop_reason = ""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        clear(job)
        for name in SCRATCH:
            (job / name).mkdir()
        transfer.unpack(job / CODE, job / "work")
        self._environment = self._public_environment()
        if credentials.are_needed(self._description["remote"]["url"]):
            self._environment |= credentials.serve(credentials.find(transfer.remote_options()))
        self._command = self._isolated(["jobs", "run", str(job / DESCRIPTION), str(job / OUT)])
        os.chdir(home())  # the folder of an experiment may be deleted meanwhile

    def _on_sigterm(self, *_: object) -> None:
        self._stop_reason = "somebody stopped it"

    def run(self) -> dict[str, Any]:
        begin = time.time()
        process = psutil.Popen(
            self._command,
            cwd=self._job / "work",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        peak_bytes = self._wait(process, begin + self._spec["max_runtime_s"])
        ending = self._ending(process.returncode)
        return {**ending, "seconds": round(time.time() - begin, 1), "peak_bytes": peak_bytes}

    def _public_environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in PASSED.split() if name in os.environ}
        uri = load_platform().tracking_uri
        if uri:
            passed["MLFLOW_TRACKING_URI"] = uri
        return {
            **{name: value for name, value in passed.items() if without_credentials(value) == value},
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            "HOME": str(self._job / "home"),
            "TMPDIR": str(isolation.TMP if isolation.is_supported() else self._job / "tmp"),
            "DVC_SITE_CACHE_DIR": str(self._job / "site"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CEILING_DIRECTORIES": str(self._job),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            **self._spec["environment"],
            "RUN_ON": "local",
            "STAGE_JOB": str(self._job / DESCRIPTION),
        }

    def _isolated(self, arguments: list[str]) -> list[str]:
        command = [sys.executable, "-m", "mlops", *arguments]
        if not isolation.is_supported():
            print("This system has no user namespaces: paths that only this machine has are not caught.", flush=True)
            return command
        url = self._description["remote"]["url"]
        # Folders that outlive a job, as a bucket does.
        shared = [*([] if "://" in url else [url]), self._spec["environment"].get("CHECKPOINT_DIR")]
        folders = [Path(path) for path in shared if path]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        hidden = [home(), Path(os.path.expanduser("~"))]
        return isolation.wrap_command(command, self._job / "work", self._job / "tmp", hidden, [self._job, *folders])

    def _wait(self, process: psutil.Popen, deadline: float) -> int:
        """Wait for the job, stopping it on request or timeout; return its peak memory in bytes."""
        peak, signals, signal_at = 0, 0, 0.0
        while True:
            try:
                process.wait(POLL_S)
                return peak
            except psutil.TimeoutExpired:
                peak = max(peak, _memory_bytes(process))
            if time.time() > deadline and not self._stop_reason:
                self._stop_reason = f"it ran for more than {self._spec['max_runtime_s']} s (max_runtime_s)"
            if self._stop_reason and time.time() > signal_at:
                if signals < SIGNALS:
                    process.terminate()
                else:
                    kill(self._job / DESCRIPTION)
                signals, signal_at = signals + 1, time.time() + GRACE_S / SIGNALS

    def _ending(self, code: int) -> dict[str, Any]:
        if code == 0:
            return {"state": State.COMPLETED, "reason": ""}
        if self._stop_reason:
            return {"state": State.STOPPED, "reason": self._stop_reason}
        path = self._job / OUT / FAILURE
        by_code = {"reason": "it was killed" if code == -signal.SIGKILL else f"it ended with code {code}"}
        return {"state": State.FAILED, **(read_json(path) if path.exists() else by_code)}


def _memory_bytes(process: psutil.Process) -> int:
    """Return the memory of a process and of all its descendants."""
    total = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total

"""The process that runs a job: it starts the job, waits for its end, records how it ended.

The job gets a folder, a cache and a home of its own, no secret of our environment, and AWS credentials as containers
get them. This machine's files are hidden from it, where the system can do that: else a stage that reads
`/home/me/project/data/extra.csv` would work here and fail in a job that costs money.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ...config import home, load_platform
from ...explain import explain
from ...files import read_json, write_json
from ...tracking.git import without_credentials
from .. import transfer
from ..backend import CODE, DESCRIPTION, State
from ..worker import FAILURE
from . import credentials
from .backend import ENDED, OUT, SCRATCH, STARTED, SUPERVISED, Sandbox, clear, kill

GRACE_S = 30.0  # between asking a job to stop and killing it
SIGNALS = 2  # the first one may reach a thread that is not Python's main one, and wait there
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
STORE = Path("/sys")  # holds for a moment the folders that stay visible; every Linux has it
TMP = Path("/tmp")  # noqa: S108 (the job's own is mounted there)
# What a container image has too. All other folders at the root belong to this machine.
SYSTEM = "bin boot dev etc lib lib32 lib64 libx32 nix opt proc run sbin sys usr var".split()  # noqa: SIM905
# Of our environment, the variables that hold addresses and no secrets.
PASSED = """
    AWS_CA_BUNDLE AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_REGION
    HTTPS_PROXY HTTP_PROXY LANG LC_ALL MLFLOW_S3_ENDPOINT_URL NO_PROXY PATH SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT
    SSL_CERT_FILE TZ
"""


def supervise(name: str) -> None:
    """Run a prepared job to its end. What the process does."""
    sandbox = Sandbox()
    job, description = sandbox.folder() / name, sandbox.describe(name)
    # Others hold the lock for a moment, to test it. Timeout: the job has a supervisor already.
    with contextlib.suppress(Timeout), FileLock(job / SUPERVISED, timeout=5.0):
        if (job / ENDED).exists():
            return
        write_json(job / STARTED, {"supervisor": os.getpid()})
        try:
            ending = _run(job, description)
        except Exception as error:  # whatever it is, those who wait must learn of it
            known, ending = explain(error), {"state": State.FAILED, "reason": f"{type(error).__name__}: {error}"}
            if known:
                ending |= {"reason": known.problem, "fix": known.fix}
        kill(job / DESCRIPTION)  # processes that outlived the job
        if shutil.disk_usage(job).free < 1_000_000 and ending["state"] is State.FAILED:
            ending["reason"] = f"the disk of {job} is full. {ending['reason']}"
        try:
            transfer.queue_run(description["origin"]["run"], job / "work")
            write_json(job / ENDED, ending)
        except OSError:  # the job filled the disk
            clear(job)
            write_json(job / ENDED, ending)
        if ending["state"] is State.COMPLETED:
            clear(job)


def _run(job: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Start a job, wait for its end, and return how it ended."""
    stop_reasons: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: stop_reasons.append("somebody stopped it"))
    spec, url = description["spec"], description["remote"]["url"]
    clear(job)
    for name in SCRATCH:
        (job / name).mkdir()
    transfer.unpack(job / CODE, job / "work")
    environment = _environment(job, spec["environment"])
    if credentials.are_needed(url):
        environment |= credentials.serve(credentials.find(transfer.remote_options()))
    command = [sys.executable, "-m", "mlops", "jobs", "run", str(job / DESCRIPTION), str(job / OUT)]
    if can_isolate():
        # Folders that outlive a job, as a bucket does.
        shared = [Path(path) for path in ("" if "://" in url else url, environment.get("CHECKPOINT_DIR")) if path]
        for folder in shared:
            folder.mkdir(parents=True, exist_ok=True)
        hidden = [home(), Path(os.path.expanduser("~"))]
        command = wrap_command(command, job / "work", job / "tmp", hidden, [job, *shared])
    else:
        print("This system has no user namespaces: paths that only this machine has are not caught.", flush=True)
    os.chdir(home())  # the folder of an experiment may be deleted meanwhile
    begin = time.time()
    process = psutil.Popen(command, cwd=job / "work", env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    peak_bytes = _wait(process, job, spec["max_runtime_s"], stop_reasons)
    ending = {"state": State.COMPLETED, "reason": ""}
    if process.returncode and stop_reasons:
        ending = {"state": State.STOPPED, "reason": stop_reasons[-1]}
    elif process.returncode:
        was_killed, path = process.returncode == -signal.SIGKILL, job / OUT / FAILURE
        by_code = {"reason": "it was killed" if was_killed else f"it ended with code {process.returncode}"}
        ending = {"state": State.FAILED, **(read_json(path) if path.exists() else by_code)}
    return {**ending, "seconds": round(time.time() - begin, 1), "peak_bytes": peak_bytes}


def _environment(job: Path, of_spec: dict[str, str]) -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED.split() if name in os.environ}
    if uri := load_platform().tracking_uri:
        passed["MLFLOW_TRACKING_URI"] = uri
    return {
        **{name: value for name, value in passed.items() if without_credentials(value) == value},
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "HOME": str(job / "home"),
        "TMPDIR": str(TMP if can_isolate() else job / "tmp"),
        "DVC_SITE_CACHE_DIR": str(job / "site"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CEILING_DIRECTORIES": str(job),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        **of_spec,
        "RUN_ON": "local",
        "STAGE_JOB": str(job / DESCRIPTION),
    }


def _wait(process: psutil.Popen, job: Path, max_runtime_s: float, stop_reasons: list[str]) -> int:
    """Wait for the job, stopping it on request or timeout; return its peak memory in bytes."""
    deadline, peak, signals, signal_at = time.time() + max_runtime_s, 0, 0, 0.0
    while True:
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=0.5)
            return peak
        memory = 0  # of the process and all its descendants
        with contextlib.suppress(psutil.Error):  # it has just ended
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    memory += member.memory_info().rss
        peak = max(peak, memory)
        if time.time() > deadline and not stop_reasons:
            stop_reasons.append(f"it ran for more than {max_runtime_s} s (max_runtime_s)")
        if stop_reasons and time.time() > signal_at:
            if signals < SIGNALS:
                process.terminate()
            else:
                kill(job / DESCRIPTION)
            signals, signal_at = signals + 1, time.time() + GRACE_S / SIGNALS


@cache
def can_isolate() -> bool:
    """Return whether this system lets files be hidden from a job: Linux with user namespaces."""
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", str(STORE)]
    return shutil.which(UNSHARE[0]) is not None and subprocess.run(probe, capture_output=True).returncode == 0


def wrap_command(command: list[str], work: Path, tmp: Path, hidden: list[Path], visible: list[Path]) -> list[str]:
    """Return a command that runs `command` in the folder `work`, where this machine's files can't be seen.

    It sees `tmp` as `/tmp`, the folders in `hidden` as empty, wherever they are, and those in `visible` all the same.
    """
    top = [path for path in Path("/").iterdir() if path.name not in SYSTEM and path.is_dir() and not path.is_symlink()]
    veiled = _outermost(path for path in (*top, *hidden) if path.parent != path)  # a home may be /
    # The job needs Python and its packages too, and the folders that Python's links lead through.
    project = Path(__file__).resolve().parents[3]
    packages = [path for path in map(Path, sys.path) if path.is_dir() and path.resolve() != project]
    visible = [work, *visible, Path(sys.prefix), Path(sys.base_prefix), *packages]
    link = Path(sys.executable)
    while link.is_symlink():
        link = link.parent / os.readlink(link)
        visible.append(link.parent)
    shown = [path for path in _outermost(visible) if any(map(path.is_relative_to, veiled))]
    lines = ["set -e", f"mount -t tmpfs none {STORE}"]
    for number, path in enumerate((tmp, *shown)):
        lines += [f"mkdir {STORE}/{number}", f"mount --rbind {shlex.quote(str(path))} {STORE}/{number}"]
    lines += [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in veiled]
    for number, target in enumerate(shlex.quote(str(path)) for path in (TMP, *shown)):
        lines += [f"mkdir -p {target}", f"mount --rbind {STORE}/{number} {target}"]
    lines += [f"umount --recursive --lazy {STORE}", f"cd {shlex.quote(str(work))}", 'exec "$@"']
    return [*UNSHARE, shutil.which("sh") or "/bin/sh", "-c", "\n".join(lines), "isolation", *command]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths, and what links resolve them to, without those that lie in another one."""
    resolved = {path for given in paths for path in (Path(os.path.abspath(given)), given.resolve())}
    outermost: list[Path] = []
    for path in sorted(resolved, key=lambda path: (len(path.parts), path)):
        if not any(map(path.is_relative_to, outermost)):
            outermost.append(path)
    return outermost

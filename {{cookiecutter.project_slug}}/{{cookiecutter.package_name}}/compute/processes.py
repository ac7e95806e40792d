"""The processes of a job in the sandbox, also those whose parent was killed: they go on without it."""

import contextlib
import os
from typing import Any

import psutil


def kill(started: dict[str, Any]) -> None:
    """End them.

    Args:
        started: `pid` of the job's first process, which leads a session, and `at`, when that began, seconds since 1970.
    """
    for process in _of_job(started["pid"], started["at"]):
        with contextlib.suppress(psutil.Error):  # it has just ended
            process.kill()


def _of_job(pid: int, at: float) -> set[psutil.Process]:
    found = set()
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        if abs(first.create_time() - at) >= 1:  # the number was given to another process: no session has it any more
            return set()
        found = {first, *first.children(recursive=True)}
    if os.name == "posix":
        found |= {process for process in psutil.process_iter() if _session(process.pid) == pid}
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # it has just ended
        return 0

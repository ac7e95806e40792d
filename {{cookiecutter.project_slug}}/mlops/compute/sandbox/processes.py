"""The processes of a job, also those whose parent was killed or that left its session: they go on without it."""

from pathlib import Path

import psutil

TRIES = 20  # a process may start another one while we look


def kill(description: Path) -> None:
    """End all processes of a job.

    Args:
        description: Its file, which each of its processes is told of in `STAGE_JOB`.
    """
    for _ in range(TRIES):
        found = [process for process in psutil.process_iter() if _is_told_of(process, description)]
        if not found:
            return
        for process in found:
            try:
                process.kill()
            except psutil.Error:  # it has just ended
                continue
        psutil.wait_procs(found, timeout=1)


def memory(process: psutil.Process) -> int:
    """Return the memory of a process and of all that it started, bytes."""
    total = 0
    try:
        family = (process, *process.children(recursive=True))
    except psutil.Error:
        return 0
    for one in family:
        try:
            total += one.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def _is_told_of(process: psutil.Process, description: Path) -> bool:
    try:
        told: str = process.environ().get("STAGE_JOB", "")
    except (psutil.Error, OSError):  # another person's, or it has just ended
        return False
    return told == str(description) and process.status() != psutil.STATUS_ZOMBIE

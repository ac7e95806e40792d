"""Hide this machine's files from a job in the sandbox, as they are not where a real job runs.

Without that, a stage that reads `/home/me/project/data/extra.csv` would work here and fail in a job that costs money.
"""

import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

STORES = ("/mnt", "/media", "/srv", "/opt")  # one of them is empty for the job, and meanwhile keeps what it shows
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


@cache
def can_be_built() -> bool:
    """Return whether this system lets us: Linux, where nobody forbids user namespaces."""
    try:
        return subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def around(command: list[str], hidden: list[Path], kept: list[Path]) -> list[str]:
    """Return a command that runs `command` where `hidden` folders look empty but for the `kept` ones.

    Args:
        command: With its arguments.
        hidden: Folders to hide.
        kept: Folders to show all the same: those that lie in hidden ones.
    """
    hidden = _outermost([path.resolve() for path in hidden if path.parent != path])  # a home may be /
    interpreter = [Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)]
    project = Path(__file__).resolve().parents[2]
    tools = [path for path in map(Path.resolve, interpreter) if path.is_dir() and path != project]
    shown = _outermost([path for path in (*map(Path.resolve, kept), *tools) if _lies_in(path, hidden)])
    store = next(place for place in STORES if not _lies_in(Path(place), hidden) and not _holds(place, shown))
    lines = ["set -e", f"mount -t tmpfs none {store}"]
    for number, path in enumerate(shown):
        lines += [f"mkdir {store}/{number}", f"mount --rbind {shlex.quote(str(path))} {store}/{number}"]
    lines += [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in hidden]
    for number, path in enumerate(shown):
        there = shlex.quote(str(path))
        lines += [f"mkdir -p {there}", f"mount --rbind {store}/{number} {there}"]
    lines += [f"umount --recursive --lazy {store}", f"cd {shlex.quote(str(kept[0]))}", 'exec "$@"']
    return [*UNSHARE, shutil.which("sh") or "/bin/sh", "-c", "\n".join(lines), "walls", *command]


def _outermost(paths: list[Path]) -> list[Path]:
    """Leave out what lies in another one."""
    found: list[Path] = []
    for path in sorted(set(paths), key=lambda one: len(one.parts)):
        if not _lies_in(path, found):
            found.append(path)
    return found


def _holds(folder: str, paths: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for path in paths)


def _lies_in(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)

"""Hide this machine's files from a job, as they are not where a real job runs.

Without that, a stage that reads `/home/me/project/data/extra.csv` would work here and fail in a job that costs money.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
STORE = Path("/sys")  # keeps for a moment what is to be shown; every Linux has it
TMP = Path("/tmp")  # noqa: S108 (the job's own lies there)
# What an image has too. All other folders at the root are of this machine.
SYSTEM = "bin boot dev etc lib lib32 lib64 libx32 nix opt proc run sbin sys usr var".split()  # noqa: SIM905


@cache
def is_supported() -> bool:
    """Return whether this system lets us: Linux, where nobody forbids user namespaces."""
    try:
        return subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", STORE], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def wrap_command(command: list[str], work: Path, tmp: Path, hidden: list[Path], kept: list[Path]) -> list[str]:
    """Return a command that runs `command` in a place without this machine's files.

    Args:
        command: With its arguments.
        work: Its working directory.
        tmp: What it sees as `/tmp`.
        hidden: More folders that look empty, wherever they are.
        kept: Folders that it sees all the same.
    """
    top = [path for path in Path("/").iterdir() if path.name not in SYSTEM and path.is_dir() and not path.is_symlink()]
    veiled = _outermost(_and_resolved([path for path in (*top, *hidden) if path.parent != path]))  # a home may be /
    shown = [path for path in _outermost(_and_resolved([work, *kept, *_interpreter()])) if _lies_in(path, veiled)]
    lines = ["set -e", f"mount -t tmpfs none {STORE}"]
    for number, path in enumerate((tmp, *shown)):
        lines += [f"mkdir {STORE}/{number}", f"mount --rbind {shlex.quote(str(path))} {STORE}/{number}"]
    lines += [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in veiled]
    for number, path in enumerate((TMP, *shown)):
        there = shlex.quote(str(path))
        lines += [f"mkdir -p {there}", f"mount --rbind {STORE}/{number} {there}"]
    lines += [f"umount --recursive --lazy {STORE}", f"cd {shlex.quote(str(work))}", 'exec "$@"']
    return [*UNSHARE, shutil.which("sh") or "/bin/sh", "-c", "\n".join(lines), "walls", *command]


def _interpreter() -> list[Path]:
    """Return the folders of Python and its packages, and those that its links lead through."""
    found = [Path(sys.prefix), Path(sys.base_prefix)]
    project = Path(__file__).resolve().parents[3]
    found += [path for path in map(Path, sys.path) if path.is_dir() and path.resolve() != project]
    hop = Path(sys.executable)
    while hop.is_symlink():
        hop = hop.parent / os.readlink(hop)
        found.append(hop.parent)
    return found


def _and_resolved(paths: Iterable[Path]) -> list[Path]:
    return [path for one in paths for path in (Path(os.path.abspath(one)), one.resolve())]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Leave out what lies in another one."""
    found: list[Path] = []
    for path in sorted(set(paths), key=lambda one: (len(one.parts), one)):
        if not _lies_in(path, found):
            found.append(path)
    return found


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)

"""Hide this machine's files from a job: a real job's machine has none of them.

Else a stage that reads `/home/me/project/data/extra.csv` would work here and fail in a job that costs money.
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
STORE = Path("/sys")  # holds for a moment the folders that stay visible; every Linux has it
TMP = Path("/tmp")  # noqa: S108 (the job's own is mounted there)
# What a container image has too. All other folders at the root belong to this machine.
SYSTEM = "bin boot dev etc lib lib32 lib64 libx32 nix opt proc run sbin sys usr var".split()  # noqa: SIM905


@cache
def is_supported() -> bool:
    """Return whether this system allows it: Linux with user namespaces."""
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", str(STORE)]
    return shutil.which(UNSHARE[0]) is not None and subprocess.run(probe, capture_output=True).returncode == 0


def wrap_command(command: list[str], work: Path, tmp: Path, hidden: list[Path], visible: list[Path]) -> list[str]:
    """Return a command that runs `command` in the folder `work`, where this machine's files can't be seen.

    It sees `tmp` as `/tmp`, the folders in `hidden` as empty, wherever they are, and those in `visible` all the same.
    """
    top = [path for path in Path("/").iterdir() if path.name not in SYSTEM and path.is_dir() and not path.is_symlink()]
    veiled = _outermost(path for path in (*top, *hidden) if path.parent != path)  # a home may be /
    shown = [path for path in _outermost([work, *visible, *_interpreter()]) if any(map(path.is_relative_to, veiled))]
    lines = ["set -e", f"mount -t tmpfs none {STORE}"]
    for number, path in enumerate((tmp, *shown)):
        lines += [f"mkdir {STORE}/{number}", f"mount --rbind {shlex.quote(str(path))} {STORE}/{number}"]
    lines += [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in veiled]
    for number, target in enumerate(shlex.quote(str(path)) for path in (TMP, *shown)):
        lines += [f"mkdir -p {target}", f"mount --rbind {STORE}/{number} {target}"]
    lines += [f"umount --recursive --lazy {STORE}", f"cd {shlex.quote(str(work))}", 'exec "$@"']
    return [*UNSHARE, shutil.which("sh") or "/bin/sh", "-c", "\n".join(lines), "isolation", *command]


def _interpreter() -> list[Path]:
    """Return the folders of Python and its packages, and those that its links lead through."""
    project = Path(__file__).resolve().parents[3]
    packages = [path for path in map(Path, sys.path) if path.is_dir() and path.resolve() != project]
    folders = [Path(sys.prefix), Path(sys.base_prefix), *packages]
    link = Path(sys.executable)
    while link.is_symlink():
        link = link.parent / os.readlink(link)
        folders.append(link.parent)
    return folders


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths, and what links resolve them to, without those that lie in another one."""
    resolved = {path for given in paths for path in (Path(os.path.abspath(given)), given.resolve())}
    outermost: list[Path] = []
    for path in sorted(resolved, key=lambda path: (len(path.parts), path)):
        if not any(map(path.is_relative_to, outermost)):
            outermost.append(path)
    return outermost

"""A container on this machine: a process that sees `/opt/ml` and its image, and not whose machine it is.

The image is a Python of this machine, put first on PATH, with what a Linux has in `/usr` and its like. Home, projects,
temporary files and other processes are hidden. The rest can't be written to but for `/opt/ml` and the image's folders,
and what is written to those of the image is gone when the container ends.
"""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STORE = Path("/sys")  # keeps for a moment what is to be shown; every Linux has it
ML = Path("/opt/ml")
# What an image has too. All other folders at the root are of this machine.
SYSTEM = frozenset("bin boot dev etc lib lib32 lib64 libx32 nix proc sbin sys usr var".split())  # noqa: SIM905
RESOLVER = Path("/run/systemd/resolve")  # where names of hosts are looked up, on many a Linux
KILLED = "sigprocmask unblock failed"  # says unshare, and exits with 1, when what it started was killed
ASK_PYTHON = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"


@dataclass(frozen=True)
class Image:
    """What stands for a container image.

    Args:
        python: Path of the Python that is first on its PATH.
        environment: Variables that the image sets.
    """

    python: Path
    environment: dict[str, str]

    def folders(self) -> list[Path]:
        """Return the folders that its Python needs."""
        return _folders(self.python)


@functools.cache
def _folders(python: Path) -> list[Path]:
    printed = subprocess.run([python, "-I", "-c", ASK_PYTHON], capture_output=True, text=True, check=True).stdout
    folders = [path for path in map(Path, json.loads(printed)) if path.is_dir()]
    hop = python
    while hop.is_symlink():
        hop = hop.parent / os.readlink(hop)
        folders.append(hop.parent)
    return folders


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Container:
    """A process in a place of its own.

    Args:
        image: Its image.
        command: With its arguments.
        environment: All variables that it sees, but PATH and HOME.
        ml: The folder that it sees as `/opt/ml`.
        tmp: That it sees as `/tmp`.
        hidden: More folders of this machine that it does not see.
        cut_off: Whether it has no network.
    """

    def __init__(
        self,
        image: Image,
        command: list[str],
        environment: dict[str, str],
        ml: Path,
        tmp: Path,
        hidden: list[Path],
        cut_off: bool = False,
    ) -> None:
        """Start it."""
        path = f"{image.python.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        bound = {ML: ml, Path("/tmp"): tmp, **({RESOLVER: RESOLVER} if RESOLVER.is_dir() else {})}  # noqa: S108
        entrance = _entrance(bound, image.folders(), hidden)
        apart = [*_unshare(), *(["--net"] if cut_off else [])]
        self._process = subprocess.Popen(
            [
                "env",
                "--default-signal",  # a shell can't trap what is ignored when it starts, such as Ctrl-C by `… &`
                "setpriv",
                "--pdeathsig",
                "KILL",
                *apart,
                "/bin/sh",
                "-c",
                entrance,
                "container",
                *command,
            ],
            env={"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", **image.environment, **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # of unshare; what it starts prints to stdout
            start_new_session=True,  # Ctrl-C is not for it
        )
        assert self._process.stdout
        self.output = self._process.stdout
        self._complaint = ""

    @property
    def exit_code(self) -> int | None:
        """Return its exit code, as a shell would: 137 when it was killed; None while it runs.

        Raises:
            RuntimeError: It could not be made.
        """
        code = self._process.poll()
        if code is None:
            return None
        if not self._complaint:
            assert self._process.stderr
            self._complaint = self._process.stderr.read().decode()
        if KILLED in self._complaint:
            return 128 + signal.SIGKILL
        if self._complaint:
            raise RuntimeError(f"no container: {self._complaint.strip()}")
        return 128 - code if code < 0 else code

    def signal(self, number: int) -> None:
        """Send a signal to its first process."""
        for pid in self._first():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """End it and all that it started."""
        self.signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it came."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _first(self) -> list[int]:
        """Return the process that is number 1 inside: the one child of `unshare`."""
        pid = self._process.pid
        try:
            return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []


@functools.cache
def problem() -> str:
    """Return why there can be no containers here; "" when there can."""
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return "Linux is needed, with util-linux"
    with tempfile.TemporaryDirectory() as folder:
        tried = Container(Image(Path(sys.executable), {}), ["true"], {}, Path(folder), Path(folder), [])
        output = tried.output.read().decode().strip()
        tried.wait(60)
        try:
            return output if tried.exit_code else ""
        except RuntimeError as error:
            return str(error)


def _entrance(bound: dict[Path, Path], image: list[Path], hidden: list[Path]) -> str:
    """Return the shell script that makes the place and becomes the container's command.

    Args:
        bound: Path inside: folder of this machine.
        image: Folders that look as here; what is written there is kept apart, and gone at the end.
        hidden: Folders that look empty inside.
    """
    top = [path for path in Path("/").iterdir() if path.name not in SYSTEM and path.is_dir() and not path.is_symlink()]
    veiled = _outermost(path for path in _and_resolved([*top, *hidden]) if path.parent != path)
    lines = ["exec 2>&1", "set -e", f"mount -t tmpfs none {STORE}"]
    places = [*bound, *_outermost(_and_resolved(image))]
    for number, path in enumerate(places):
        lines += _bind(bound[path], number) if path in bound else _layer(path, number)
    lines += [f"mount -t tmpfs none {shlex.quote(str(path))}" for path in (*veiled, Path("/var/tmp"))]  # noqa: S108
    for number, path in enumerate(places):
        target = shlex.quote(str(path))
        lines += [f"mkdir -p {target}", f"mount --rbind {STORE}/{number} {target}"]
    lines += [f"umount --recursive --lazy {STORE}", "mkdir -p /root", "mount -o remount,bind,ro /", "cd /", 'exec "$@"']
    return "\n".join(lines)


def _bind(folder: Path, number: int) -> list[str]:
    return [f"mkdir {STORE}/{number}", f"mount --rbind {shlex.quote(str(folder))} {STORE}/{number}"]


def _layer(folder: Path, number: int) -> list[str]:
    """Return how to lay a folder that takes what is written over one that is kept as it is."""
    place = f"{STORE}/{number}"
    lower = re.sub(r"([\\\\,:])", r"\\\1", str(folder))
    options = [f"lowerdir={lower}", f"upperdir={place}.new", f"workdir={place}.work"]
    options += [] if os.geteuid() == 0 else ["userxattr"]
    mount = f"mount -t overlay overlay -o {shlex.quote(','.join(options))} {place}"
    return [f"mkdir {place} {place}.new {place}.work", mount]


def _and_resolved(paths: Iterable[Path]) -> list[Path]:
    return [path for given in paths for path in (Path(os.path.abspath(given)), given.resolve())]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Leave out what lies in another one."""
    outer: list[Path] = []
    for path in sorted(set(paths), key=lambda path: (len(path.parts), path)):
        if not _lies_in(path, outer):
            outer.append(path)
    return outer


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)

"""Run a command as in a container: its own `/opt/ml`, process numbers and environment."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

MOUNT = Path("/opt/ml")
ENTER = 'mount --bind "$0" /opt/ml && mount -t proc proc /proc && {hide}cd / && exec "$@"'
KILLED = 128 + signal.SIGKILL


class Container:
    """A command that runs.

    Args:
        command: Program and arguments.
        ml: The folder that is its `/opt/ml`.
        environment: All that it has.
        hidden: Folders of this machine that it finds empty.
    """

    def __init__(self, command: list[str], ml: Path, environment: dict[str, str], hidden: list[Path]) -> None:
        """Start it."""
        self._killed = False
        MOUNT.mkdir(parents=True, exist_ok=True)  # where the mount goes; the mount itself only this container sees
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        if os.geteuid():
            unshare += ["--user", "--map-root-user"]
        hide = "".join(f"mount -t tmpfs none '{path}' && " for path in hidden)
        self.process = subprocess.Popen(
            [*unshare, "/bin/sh", "-c", ENTER.format(hide=hide), str(ml), *command],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        """Send a signal to its first process, and to no other: as container engines do."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            for pid in children.read_text(encoding="utf-8").split():
                os.kill(int(pid), number)

    def kill(self) -> None:
        """End it as a machine that has no memory left does."""
        self._killed = True
        self.signal(signal.SIGKILL)

    @property
    def code(self) -> int | None:
        """Return its exit code as container engines tell it; None while it runs."""
        code = self.process.poll()
        return KILLED if code is not None and self._killed else code

"""A real `mlflow server`, to be killed, frozen, and started again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

POLL_S = 0.3
PATIENCE_S = 300  # far longer than anything takes, on a machine that has much else to do: only a failure waits so long


def until(condition: Callable[[], Found | None], poll_s: float = POLL_S) -> Found:
    """Wait until a condition holds.

    Returns:
        What it gave at last.

    Raises:
        AssertionError: It does not hold in time.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not in {PATIENCE_S} s: {condition}"
        time.sleep(poll_s)
    return result


def free_ports(number: int) -> list[int]:
    """Return TCP ports of this machine on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


class MlflowServer:
    """A real `mlflow server` with one worker.

    Args:
        folder: For its log, and for its database and artifacts where nothing else is given.
        store: Address of its database.
        artifact_root: Where clients write artifacts themselves; "" means that they go through the server.
        password: Of the user `admin`; "" means that anyone may do anything.
        within: A command that is put before the server's own, and runs it.
    """

    def __init__(
        self, folder: Path, store: str = "", artifact_root: str = "", password: str = "", within: tuple[str, ...] = ()
    ) -> None:
        """Start it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        store = store or f"sqlite:///{folder / 'mlflow.db'}"
        artifacts: tuple[str, ...] = ("--artifacts-destination", str(folder / "artifacts"))
        if artifact_root:
            artifacts = ("--no-serve-artifacts", "--default-artifact-root", artifact_root)
        mlflow = (sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self._port))
        auth = ("--app-name", "basic-auth") if password else ()
        self._command = (*within, *mlflow, "--backend-store-uri", store, *artifacts, *auth)
        # The workers for jobs serve features that nobody uses here, and take seconds to start.
        self._environment = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if password:
            self._environment |= self._auth(password)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _auth(self, password: str) -> dict[str, str]:
        config = self.folder / "auth.ini"
        settings = {
            "default_permission": "READ",
            "database_uri": f"sqlite:///{self.folder / 'users.db'}",
            "admin_username": "admin",
            "auth_cache_ttl_seconds": 60,  # else each request waits for the hash of the password
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        config.write_text(f"[mlflow]\n{lines}", encoding="utf-8")
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
        }

    def start(self) -> None:
        """Start it, again on the same port, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that a signal reaches all its processes, and no other
            )
        until(self._is_up)

    def _is_up(self) -> bool:
        assert self.process and self.process.poll() is None, (self.folder / "server.log").read_text(encoding="utf-8")
        return _answers(f"{self.url}/health")

    def _signal(self, number: int) -> None:
        assert self.process
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End all its processes at once, as a crash of the machine would."""
        assert self.process
        self._signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        """Let it take connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a freeze."""
        self._signal(signal.SIGCONT)

    def restore(self) -> None:
        """Let it answer again, whatever was done to it."""
        assert self.process
        if self.process.poll() is None:
            self.resume()
        else:
            self.start()

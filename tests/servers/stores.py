"""Where an MLflow server keeps things: PostgreSQL, and a disk that gets full."""

import contextlib
import glob
import os
import pwd
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import sql

from .mlflow import MlflowServer


class PostgreSQL:
    """A PostgreSQL cluster behind a Unix socket; its tables are gone when the session ends."""

    def __init__(self) -> None:
        """Make and start it."""
        self._pg_ctl = _program("pg_ctl")
        # Not pytest's folder, which only its owner may enter: PostgreSQL refuses to run as root.
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        self._data = str(self._folder / "data")
        initdb = (_program("initdb"), "--auth=trust", "--username=mlflow", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._run(*initdb, "-D", self._data)
        options = f"-F -c listen_addresses='' -c unix_socket_directories='{self._folder}'"
        self._run(self._pg_ctl, "start", "-w", "-D", self._data, "-l", str(self._folder / "log"), "-o", options)

    def _run(self, *command: str) -> None:
        # To no pipe: the server inherits it, and nobody would see its end.
        with (self._folder / "commands.log").open("ab") as log:
            done = subprocess.run(command, cwd=self._folder, stdout=log, stderr=log, **self._user)
        assert done.returncode == 0, (self._folder / "commands.log").read_text(encoding="utf-8")

    def database(self, name: str) -> str:
        """Make an empty database, and return its address for SQLAlchemy."""
        connection = psycopg2.connect(host=str(self._folder), user="mlflow", dbname="postgres")
        connection.autocommit = True  # CREATE DATABASE is no part of a transaction
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg2://mlflow@/{name}?host={self._folder}"

    def close(self) -> None:
        """Stop it, and delete its data."""
        self._run(self._pg_ctl, "stop", "-m", "immediate", "-D", self._data)
        shutil.rmtree(self._folder)


def _program(name: str) -> str:
    """Find a program of PostgreSQL; Debian keeps those of the server off PATH.

    Raises:
        FileNotFoundError: It is not installed.
    """
    path = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    if not path:
        raise FileNotFoundError(f"{name} is not installed, and the tests need it: apt-get install postgresql")
    return path


class SmallDisk:
    """A disk of a few megabytes that one server writes to, and that really gets full.

    It is a tmpfs that only the server's processes see, so nothing stays mounted when the tests are killed. Where the
    machine forbids that, as containers do, the kernel refuses the server's writes by a limit on the size of files.
    """

    SIZE_BYTES = 8_000_000

    def __init__(self, folder: Path) -> None:
        """Choose the folder; the server mounts the disk there when it starts."""
        folder.mkdir()
        self.folder = folder
        maps = () if os.geteuid() == 0 else ("--map-root-user",)
        mount = f'mount -t tmpfs -o size={self.SIZE_BYTES} tmpfs "$0" && exec "$@"'
        self.within: tuple[str, ...] = ("unshare", "--mount", *maps, "sh", "-c", mount, str(folder))
        if not shutil.which("unshare") or subprocess.run((*self.within, "true"), capture_output=True).returncode:
            self.within = ()

    def fill(self, server: MlflowServer) -> None:
        """Let every write fail."""
        if not self.within:
            _limit_files(server, 0)
            return
        with contextlib.suppress(OSError), self._filler(server).open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def clear(self, server: MlflowServer) -> None:
        """Give the space back."""
        if self.within:
            self._filler(server).unlink()
        else:
            _limit_files(server, resource.RLIM_INFINITY)

    def _filler(self, server: MlflowServer) -> Path:
        assert server.process
        return Path(f"/proc/{server.process.pid}/root{self.folder}/filler")  # the server's view of the file system


def _limit_files(server: MlflowServer, size_bytes: int) -> None:
    assert server.process
    first = psutil.Process(server.process.pid)
    for process in (first, *first.children(recursive=True)):
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

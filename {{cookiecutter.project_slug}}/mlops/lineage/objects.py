"""The files that DVC keeps, by their hashes: in its cache and in its remote, read without DVC.

A record outlives the tool that wrote it: this needs DVC's configuration and its layout of files only. A remote is a
folder or an S3 bucket; of other kinds, only the cache is read.

Source: https://doc.dvc.org/user-guide/project-structure/internal-files
"""

import configparser
import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..explain import explain
from ..tracking.git import without_credentials

CHUNK = 2**20  # bytes
REQUESTS = 16  # to a bucket at once
FILES = "files/md5"  # where a cache or a remote has them
PUSH = "in a clone that has it: dvc push --all-commits; then here: dvc fetch --all-commits"


class LostError(ProjectError):
    """No copy of a file is left, neither in the cache nor in the remote."""


class DamagedError(ProjectError):
    """A file has not the bytes that its hash stands for."""


class UnreachableError(ProjectError):
    """The remote can't be asked now."""


@dataclass(frozen=True)
class Folder:
    """A cache, or a remote that is a folder.

    Args:
        path: The folder.
        name: cache or remote, for people.
        is_near: Whether its files can be read at no cost.
    """

    path: Path
    name: str
    is_near: bool = True

    def sizes(self, hashes: Iterable[str]) -> dict[str, int]:
        """Return the bytes of each file that is there; raise UnreachableError if the folder of a remote is not."""
        if not self.path.is_dir():
            if self.name == "cache":
                return {}
            raise UnreachableError(f"the {self.name} {self.path} is not there", "mount it; or: dvc remote modify")
        paths = {md5: self._path(md5) for md5 in hashes}
        return {md5: path.stat().st_size for md5, path in paths.items() if path.is_file()}

    def chunks(self, md5: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        with self._path(md5).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def location(self, md5: str) -> str:
        """Return the path of a file."""
        return self._path(md5).as_posix()

    def _path(self, md5: str) -> Path:
        return self.path / FILES / md5[:2] / md5[2:]


@dataclass(frozen=True)
class Bucket:
    """A remote in S3, or in what speaks its protocol."""

    url: str
    options: dict[str, str] = field(repr=False)
    name: str = "remote"
    is_near: bool = False

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        keys = {"access_key_id": "aws_access_key_id", "secret_access_key": "aws_secret_access_key"}
        keys |= {"session_token": "aws_session_token", "region": "region_name", "profile": "profile_name"}
        session = boto3.Session(**{name: self.options[key] for key, name in keys.items() if key in self.options})
        limits = Config(connect_timeout=10, retries={"total_max_attempts": 3}, max_pool_connections=REQUESTS)
        return session.client("s3", endpoint_url=self.options.get("endpointurl"), config=limits)

    def sizes(self, hashes: Iterable[str]) -> dict[str, int]:
        """Return the bytes of each object that is there; raise UnreachableError if the bucket can't be asked."""
        wanted = list(hashes)
        try:
            self._client  # noqa: B018 (made once, before the threads)
            with ThreadPoolExecutor(REQUESTS) as pool:
                return {md5: size for md5, size in zip(wanted, pool.map(self._size, wanted), strict=True) if size >= 0}
        except Exception as error:
            known = explain(error)
            if known is None:
                raise
            problem = f"the remote {without_credentials(self.url)} can't be read: {known.problem}"
            raise UnreachableError(problem, known.fix) from error

    def _size(self, md5: str) -> int:
        from botocore.exceptions import ClientError

        bucket, key = self._key(md5)
        try:
            return int(self._client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return -1
            raise

    def chunks(self, md5: str) -> Iterator[bytes]:
        """Yield the content of an object."""
        bucket, key = self._key(md5)
        yield from self._client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(CHUNK)

    def location(self, md5: str) -> str:
        """Return the address of an object."""
        return "s3://{}/{}".format(*self._key(md5))

    def _key(self, md5: str) -> tuple[str, str]:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return bucket, "/".join(filter(None, (prefix.strip("/"), FILES, md5[:2], md5[2:])))


@dataclass(frozen=True)
class Unread:
    """A remote of another kind, or none."""

    problem: str
    fix: str
    name: str = "remote"
    is_near: bool = False

    def sizes(self, hashes: Iterable[str]) -> dict[str, int]:
        """Raise UnreachableError."""
        raise UnreachableError(self.problem, self.fix)

    def chunks(self, md5: str) -> Iterator[bytes]:
        """Yield nothing: `sizes` is asked first, and refuses."""
        return iter(())

    def location(self, md5: str) -> str:
        """Return what is known of it."""
        return self.problem


Store = Folder | Bucket | Unread


class Objects:
    """The files of a project's cache and default remote.

    Attributes:
        cache: The files on this machine.
        remote: The files that others get.
    """

    def __init__(self, root: Path = Path()) -> None:
        config = read_config(root)
        folder = config.get("cache", {}).get("dir") or str((root / ".dvc/cache").absolute())
        self.cache: Store = Folder(Path(folder), "cache")
        self.remote = _remote(config)

    def read(self, md5: str) -> bytes:
        """Return the content of a file, from the cache or, where that lacks it, from the remote.

        Raises:
            LostError: Neither has it.
            DamagedError: It has other bytes than its hash stands for.
            UnreachableError: The cache lacks it, and the remote can't be asked.
        """
        for store in (self.cache, self.remote):
            if store.sizes([md5]):
                content = b"".join(store.chunks(md5))
                if (actual := _md5(content)) != md5.removesuffix(".dir"):
                    raise self.damaged(store, md5, actual)
                return content
        raise LostError(f"the file {md5} is neither in DVC's cache nor in its remote", PUSH)

    @contextlib.contextmanager
    def file(self, md5: str) -> Iterator[Path]:
        """Give a path at which the content of a file can be read meanwhile; it raises what `read` raises.

        Arrow reads Parquet from a path: of a Python object, its threads may free a part when Python has ended, which
        aborts the process.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "content")
            path.write_bytes(self.read(md5))
            yield path

    def damaged(self, store: Store, md5: str, actual: str) -> DamagedError:
        """Return the error of a file with other bytes than its hash stands for."""
        where, again = store.location(md5), "dvc fetch --all-commits" if store.name == "cache" else self.push_command
        remove = f"aws s3 rm {where}" if where.startswith("s3://") else f"rm -f {where}"
        problem = f"{where} has the md5 {actual}, not {md5.removesuffix('.dir')}"
        return DamagedError(problem, f"where the other copy is right: {remove} && {again}")

    @property
    def push_command(self) -> str:
        """Return what brings files of the cache to the remote: `dvc push` leaves out those of a folder that is there.

        It asks for the list of a folder, and takes its files for granted (3.67).
        """
        if isinstance(self.cache, Folder) and isinstance(self.remote, Folder):
            return f"cp -Rn {self.cache.path}/files {self.remote.path}/"
        if isinstance(self.cache, Folder) and isinstance(self.remote, Bucket):
            return f"aws s3 sync {self.cache.path}/files {self.remote.url.rstrip('/')}/files"
        return "dvc push --all-commits"

    def listing(self, md5: str) -> dict[str, str]:
        """Return the files of a folder by their paths in it, each with its hash; a file alone is `{"": md5}`.

        It raises what `read` raises.
        """
        if not md5.endswith(".dir"):
            return {"": md5}
        return {entry["relpath"]: entry["md5"] for entry in json.loads(self.read(md5))}


def read_config(root: Path) -> dict[str, dict[str, str]]:
    """Return DVC's configuration of a project, by section: the user's, then the project's, then that of this clone.

    Addresses that are relative paths become absolute: they start at the file that has them.
    """
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "dvc/config")
    sections: dict[str, dict[str, str]] = {}
    for path in (user, root / ".dvc/config", root / ".dvc/config.local"):
        if not path.exists():
            continue
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(path.read_text(encoding="utf-8"))
        for header in parser.sections():
            values = {key: value.strip("'\"") for key, value in parser[header].items()}
            for key in {"url", "dir"} & values.keys():
                if not re.match(r"\w[\w+]+://", values[key]):
                    values[key] = os.path.normpath(path.parent.absolute() / values[key])
            sections.setdefault(header.strip("'"), {}).update(values)
    return sections


def _remote(config: dict[str, dict[str, str]]) -> Store:
    """Return the default remote of a configuration."""
    name = config.get("core", {}).get("remote", "")
    options = config.get(f'remote "{name}"', {})
    url = options.get("url", "")
    fix = "ask where the files are: a folder, or a bucket of S3; then: dvc remote add -d -f storage <address>"
    if base := re.match(r"remote://([^/]+)(/?.*)", url):  # below another remote
        outer = config.get(f'remote "{base[1]}"', {})
        options, url = {**outer, **options}, outer.get("url", "") + base[2]
    if not url:
        return Unread(
            "no DVC remote is set", "python -m mlops setup (a local folder), or: dvc remote add -d storage s3://…"
        )
    if {options.get(key, "").lower() for key in ("version_aware", "worktree")} & {"true", "yes", "on", "1"}:
        return Unread(f"the remote {without_credentials(url)} keeps files by their names, not by their hashes", fix)
    if url.startswith("s3://"):
        return Bucket(url, options)
    if "://" in url:
        return Unread(f"the remote {without_credentials(url)} is read by DVC alone", fix)
    return Folder(Path(url), "remote")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

"""What SageMaker copies between S3 and a machine."""

import contextlib
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import JobError


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class Transfer:
    """Copies.

    Args:
        client: boto3's, of S3.
    """

    def __init__(self, client: Any) -> None:
        """Have copied nothing yet."""
        self._client = client
        self._put: dict[Path, tuple[int, int]] = {}  # time and size

    def fetch(self, uri: str, folder: Path) -> int:
        """Copy the objects whose names begin with a prefix into a folder; return how many."""
        bucket, prefix = split(uri)
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for key in (entry["Key"] for entry in page.get("Contents", []) if not entry["Key"].endswith("/")):
                path = folder / _below(key, prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._client.download_file(bucket, key, str(path))
                number += 1
        return number

    def fetch_input(self, uri: str, folder: Path) -> None:
        """Copy an input of a job.

        Raises:
            JobError: There is none.
        """
        if not self.fetch(uri, folder):
            raise JobError(
                f"ClientError: Data download failed:No S3 objects found under S3 URL '{uri}' given in input data "
                "source. Please ensure that the bucket exists in the selected region and that objects exist under "
                "that S3 prefix"
            )

    def put_folder(self, folder: Path, uri: str) -> None:
        """Copy the files of a folder below an address, but those that were and have not changed.

        Links are not followed. Whoever writes the folder may go on.
        """
        bucket, prefix = split(uri)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
            with contextlib.suppress(FileNotFoundError):  # it is gone by now
                state = path.stat().st_mtime_ns, path.stat().st_size
                if self._put.get(path) != state:
                    key = str(PurePosixPath(prefix, path.relative_to(folder).as_posix()))
                    self._client.upload_file(str(path), bucket, key)
                    self._put[path] = state

    def put_packed(self, folder: Path, uri: str) -> bool:
        """Copy a folder as one packed file, unless there is nothing in it; return whether there was."""
        inside = sorted(folder.iterdir())
        if inside:
            with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
                with tarfile.open(fileobj=file, mode="w:gz") as packed:
                    for path in inside:
                        packed.add(path, path.name)
                file.flush()
                self._client.upload_file(file.name, *split(uri))
        return bool(inside)


def _below(key: str, prefix: str) -> str:
    """Return the path of an object in a folder made of a prefix: that of its name after the prefix's last folder."""
    if key.startswith(prefix.rstrip("/") + "/"):
        return key.removeprefix(prefix.rstrip("/") + "/") if prefix else key
    return key.removeprefix(prefix.rpartition("/")[0]).lstrip("/")

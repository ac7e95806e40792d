"""What SageMaker copies from and to S3."""

import io
import tarfile
from pathlib import Path
from typing import Any

S3 = "s3://"


class Missing(Exception):
    """There is nothing at an address."""


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an address."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key


def fetch(s3: Any, uri: str, folder: Path) -> None:
    """Copy what begins with an address into a folder.

    Raises:
        Missing: There is nothing.
    """
    bucket, prefix = split(uri)
    folder.mkdir(parents=True, exist_ok=True)
    found = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            name = one["Key"].removeprefix(prefix).lstrip("/") or Path(one["Key"]).name
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, one["Key"], str(path))
            found += 1
    if not found:
        raise Missing(f"No S3 objects found under S3 URL {uri!r} given in input data source")


def put_folder(s3: Any, folder: Path, uri: str) -> None:
    """Copy the files of a folder below an address."""
    bucket, prefix = split(uri)
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        s3.upload_file(str(path), bucket, f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}")


def put_tar(s3: Any, folder: Path, uri: str) -> None:
    """Copy a folder to an address as one .tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    bucket, key = split(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=packed.getvalue())

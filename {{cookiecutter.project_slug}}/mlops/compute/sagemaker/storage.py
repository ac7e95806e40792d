"""What goes to a job and comes from it through S3: code, description, results."""

import functools
import hashlib
from pathlib import Path

from ...config import load_platform
from ...errors import ProjectError
from .. import remote
from . import client

EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")


@functools.cache
def jobs_uri() -> str:
    """Return where all of that is: `platform.yaml:jobs_uri`, or beside the DVC remote.

    Raises:
        ProjectError: The DVC remote is not in S3.
    """
    uri = load_platform().jobs_uri
    if uri:
        return uri.rstrip("/")
    return f"{in_s3(remote.public()).rstrip('/')}-jobs"


def in_s3(told: dict[str, str]) -> str:
    """Return the address of a DVC remote.

    Args:
        told: What a job may know of it.

    Raises:
        ProjectError: It is not in S3.
    """
    if not told["url"].startswith(remote.S3):
        raise ProjectError(
            f"SageMaker's jobs have no way to the DVC remote {told['url']}, a folder of this machine",
            "make aws-setup, or dvc remote add -d -f storage s3://…; then dvc push",
        )
    return told["url"]


def put(path: Path, uri: str, kms_key: str | None) -> None:
    """Copy a file to S3, unless there is an object of this name: names are made of contents, or used once.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    secret = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    with client.translate_errors(), path.open("rb") as file:
        try:
            client.client("s3").put_object(Bucket=bucket, Key=key, Body=file, IfNoneMatch="*", **secret)
        except ClientError as error:
            if error.response["Error"]["Code"] not in EXISTS:
                raise


def get(uri: str, folder: Path) -> list[Path]:
    """Copy the objects below an address into a folder, each whole or not at all; return them.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    bucket, prefix = split(uri)
    copied = []
    with client.translate_errors():
        for page in client.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                path = folder / found["Key"].removeprefix(prefix).lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                client.client("s3").download_file(bucket, found["Key"], str(path))
                copied.append(path)
    return copied


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an address."""
    bucket, _, key = uri.removeprefix(remote.S3).partition("/")
    return bucket, key


def sha256(path: Path) -> str:
    """Return the hash of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

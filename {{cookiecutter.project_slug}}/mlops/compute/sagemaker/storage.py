"""What goes to a job and comes from it through S3: code, description, results.

A function that calls AWS raises what `client` says.
"""

import functools
from pathlib import Path

from ...config import load_platform
from ...errors import ProjectError
from ..transfer import S3, public_remote
from . import client


@functools.cache
def jobs_uri() -> str:
    """Return where the files of jobs are: `platform.yaml:jobs_uri`, or beside the DVC remote.

    Raises:
        ProjectError: The DVC remote is not in S3.
    """
    return (load_platform().jobs_uri or f"{s3_url(public_remote()).rstrip('/')}-jobs").rstrip("/")


def s3_url(options: dict[str, str]) -> str:
    """Return the address of a DVC remote.

    Args:
        options: Of the remote, those that a job may know.

    Raises:
        ProjectError: It is not in S3.
    """
    if not options["url"].startswith(S3):
        raise ProjectError(
            f"SageMaker's jobs can't read the DVC remote {options['url']}, a folder of this machine",
            "make aws-setup, or dvc remote add -d -f storage s3://…; then dvc push",
        )
    return options["url"]


def upload(path: Path, uri: str, kms_key: str | None) -> None:
    """Copy a file to S3, unless the object exists: an object's name is made of its content, or used once."""
    bucket, key = split(uri)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    with path.open("rb") as file:
        target = {"Bucket": bucket, "Key": key, "Body": file, "IfNoneMatch": "*", **encryption}
        client.call(client.client("s3").put_object, "(PreconditionFailed|ConditionalRequestConflict):", **target)


def download(uri: str, folder: Path) -> bool:
    """Copy the objects below an address into a folder, each whole or not at all; return whether there were any."""
    bucket, prefix = split(uri)
    s3, keys = client.client("s3"), []
    with client.translate_errors():
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            keys += [entry["Key"] for entry in page.get("Contents", [])]
        for key in keys:
            path = folder / key.removeprefix(prefix).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, key, str(path))
    return bool(keys)


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an address."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key

"""Where data and jobs' files are: the DVC remote, the buckets, the keys."""

import logging
import os
import uuid
from collections import Counter

from ....config import load_platform
from ... import remote
from .. import storage
from .project import specs
from .result import Findings, boto_client, code_of, mend, ok, unasked

PROBE = "python -m mlops jobs doctor writes this, reads it, and deletes it.\n"
UNENCRYPTED = "ServerSideEncryptionConfigurationNotFoundError"


def places() -> Findings:
    """See that the DVC remote, and with it jobs' files, are in S3."""
    told = remote.public()
    url = storage.in_s3(told)
    elsewhere = f", at {told['endpointurl']}, where jobs ask too" if "endpointurl" in told else ""
    yield ok(f"data in {url}{elsewhere}; jobs' code and results in {storage.jobs_uri()}")


def buckets() -> Findings:
    """See that the buckets are there, and tell how they are set."""
    for bucket in dict.fromkeys(storage.split(uri)[0] for uri in _in_aws()):
        yield from _bucket(bucket)


def _in_aws() -> list[str]:
    """Return the addresses that are asked for at AWS itself."""
    told = remote.public()
    return [storage.jobs_uri()] if "endpointurl" in told else [told["url"], storage.jobs_uri()]


def _bucket(name: str) -> Findings:
    from botocore.exceptions import ClientError

    region = load_platform().region
    try:
        told = boto_client("s3").head_bucket(Bucket=name)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            yield mend(f"there is no bucket {name}", f"make aws-setup, or aws s3 mb s3://{name} --region {region}")
        elif status == 403:  # also of who may list only what is below a prefix
            yield unasked(
                f"bucket {name} does not tell us where it is and how it is set",
                "ask somebody who may list all of it; whether jobs can start, the probe tells",
            )
        else:
            raise
        return
    where = told.get("BucketRegion") or told["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or region
    far = "" if where == region else f", not in {region} as the jobs: slower, and traffic between regions is paid for"
    yield ok(f"{name} in {where}{far}; {_versioning(name)}, {_encryption(name)}")


def _versioning(bucket: str) -> str:
    from botocore.exceptions import ClientError

    try:
        status = boto_client("s3").get_bucket_versioning(Bucket=bucket).get("Status", "off")
    except ClientError as error:
        return f"versioning unknown ({code_of(error)})"
    return "older versions are kept" if status == "Enabled" else "what is overwritten or deleted is gone for good"


def _encryption(bucket: str) -> str:
    from botocore.exceptions import ClientError

    try:
        told = boto_client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    except ClientError as error:
        return "not encrypted" if code_of(error) == UNENCRYPTED else f"encryption unknown ({code_of(error)})"
    used = told.get("ApplyServerSideEncryptionByDefault", {})
    return f"encrypted with {used.get('KMSMasterKeyID') or used.get('SSEAlgorithm')}"


def probe() -> Findings:
    """Do what starting a job does: list, write and read, with each key that jobs use."""
    from botocore.exceptions import ClientError

    for key in sorted({spec.kms_key or "" for spec in specs().values()}):
        step = "list"
        try:
            for uri in _in_aws():
                bucket, prefix = storage.split(uri)
                boto_client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/", MaxKeys=1)
            step = "write"
            name = _write(key)
            step = "read"
            boto_client("s3").get_object(**name)["Body"].read()
        except ClientError as error:
            yield mend(
                f"we can't {step} below {storage.jobs_uri()}{f' with {key}' if key else ''}: {error}",
                f"make aws-setup; or allow us to {step} there, in our IAM policies, the bucket's and the key's",
            )
            continue
        with_key = f", encrypted with {key}" if key else ""
        yield ok(f"we can write and read below {storage.jobs_uri()}{with_key}{_tidied(name)}")


def _write(key: str) -> dict[str, str]:
    """Put an object below `jobs_uri`, and return bucket and key of it."""
    bucket, prefix = storage.split(storage.jobs_uri())
    name = {"Bucket": bucket, "Key": f"{prefix}/doctor/{uuid.uuid4().hex}"}
    secret = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
    boto_client("s3").put_object(**name, Body=PROBE.encode(), **secret)
    return name


def _tidied(name: dict[str, str]) -> str:
    from botocore.exceptions import ClientError

    try:
        boto_client("s3").delete_object(**name)
    except ClientError as error:
        return f", but not delete ({code_of(error)}), which jobs never do: s3://{name['Bucket']}/{name['Key']} stays"
    return ""


def keys() -> Findings:
    """See that the keys of jobs are there and in use."""
    from botocore.exceptions import ClientError

    for key in sorted({spec.kms_key for spec in specs().values() if spec.kms_key}):
        try:
            told = boto_client("kms").describe_key(KeyId=key)["KeyMetadata"]
        except ClientError as error:
            if code_of(error) not in ("NotFoundException", "InvalidArnException"):
                raise
            yield mend(f"there is no key {key}", "platform.yaml:job.kms_key: a key's ARN; or null for AWS's own keys")
            continue
        if told["KeyState"] == "Enabled":
            yield ok(f"{told['Arn']} is enabled")
        else:
            yield mend(f"the key {key} is {told['KeyState']}", f"aws kms enable-key --key-id {key}")


def pushed() -> Findings:
    """Tell what the DVC remote lacks of what `dvc.lock` and `.dvc` files name: the next job pushes what it needs."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of stages that did not run yet
    try:
        with Repo(os.getcwd()) as repo:
            states: dict[str, str] = repo.status(cloud=True)
    except (DvcException, OSError) as error:
        yield unasked(f"the DVC remote was not asked what it has: {error.__cause__ or error}", "dvc status --cloud")
        return
    many = Counter(states.values())
    told = [
        *([f"{many['new']} object(s) are not there yet, and are pushed when a job reads them"] if many["new"] else []),
        *([f"{many['missing']} are neither there nor here: their stage runs again"] if many["missing"] else []),
    ]
    yield ok("; ".join(told) or "the DVC remote has all that is here")

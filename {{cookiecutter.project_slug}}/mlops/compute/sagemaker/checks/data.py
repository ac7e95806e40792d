"""Checks of where data and jobs' files are: the DVC remote, the buckets, the keys."""

import logging
import os
import uuid
from collections import Counter

from ....config import load_platform
from ...transfer import public_remote
from .. import storage
from ..client import error_code
from .project import Results, ask, boto_client, broken, ok, specs, unknown

PROBE = "python -m mlops jobs doctor writes this, reads it, and deletes it.\n"


def places() -> Results:
    """Check that the DVC remote, and with it jobs' files, are in S3."""
    remote = public_remote()
    endpoint = f", at {remote['endpointurl']}, which jobs use too" if "endpointurl" in remote else ""
    yield ok(f"data in {storage.s3_url(remote)}{endpoint}; jobs' code and results in {storage.jobs_uri()}")


def _uris_in_aws() -> list[str]:
    """Return the addresses that are AWS's own, and not another store's."""
    remote = public_remote()
    return [storage.jobs_uri()] if "endpointurl" in remote else [remote["url"], storage.jobs_uri()]


def buckets() -> Results:
    """Check that the buckets exist, and report their settings."""
    region = load_platform().region
    for name in dict.fromkeys(storage.split(uri)[0] for uri in _uris_in_aws()):
        head, error = ask("s3", "head_bucket", "40[34]:", Bucket=name)
        if error.startswith("404"):
            yield broken(f"there is no bucket {name}", f"make aws-setup, or aws s3 mb s3://{name} --region {region}")
        elif error:  # also for who may list only what is below a prefix
            yield unknown(
                f"bucket {name} does not tell us its region and settings",
                "ask somebody who may list all of it; the probe tells whether jobs can start",
            )
        else:
            place = head.get("BucketRegion") or head["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
            is_near = place in (None, region)
            far = "" if is_near else f", not in {region} as the jobs: slower, and traffic between regions costs money"
            yield ok(f"{name} in {place or region}{far}; {_versioning(name)}, {_encryption(name)}")


def _versioning(bucket: str) -> str:
    response, error = ask("s3", "get_bucket_versioning", ".", Bucket=bucket)
    if error:
        return f"versioning unknown ({error.partition(':')[0]})"
    is_on = response.get("Status") == "Enabled"
    return "older versions are kept" if is_on else "what is overwritten or deleted is gone for good"


def _encryption(bucket: str) -> str:
    response, error = ask("s3", "get_bucket_encryption", ".", Bucket=bucket)
    code = error.partition(":")[0]
    if code == "ServerSideEncryptionConfigurationNotFoundError":
        return "not encrypted"
    if code:
        return f"encryption unknown ({code})"
    rule = response["ServerSideEncryptionConfiguration"]["Rules"][0].get("ApplyServerSideEncryptionByDefault", {})
    return f"encrypted with {rule.get('KMSMasterKeyID') or rule.get('SSEAlgorithm')}"


def probe() -> Results:
    """Do what starting a job does: list, write and read, with each key that jobs use."""
    from botocore.exceptions import ClientError

    s3, (jobs_bucket, jobs_prefix) = boto_client("s3"), storage.split(storage.jobs_uri())
    for key in sorted({spec.kms_key or "" for spec in specs().values()}):
        target = {"Bucket": jobs_bucket, "Key": f"{jobs_prefix}/doctor/{uuid.uuid4().hex}"}
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        step = "list"
        try:
            for bucket, prefix in map(storage.split, _uris_in_aws()):
                s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/", MaxKeys=1)
            step = "write"
            s3.put_object(**target, Body=PROBE.encode(), **encryption)
            step = "read"
            s3.get_object(**target)["Body"].read()
        except ClientError as error:
            yield broken(
                f"we can't {step} below {storage.jobs_uri()}{f' with {key}' if key else ''}: {error}",
                f"make aws-setup; or allow us to {step} there, in our IAM policies, the bucket's and the key's",
            )
            continue
        with_key, left = f", encrypted with {key}" if key else "", ""
        try:
            s3.delete_object(**target)
        except ClientError as error:
            uri = f"s3://{target['Bucket']}/{target['Key']}"
            left = f", but not delete ({error_code(error)}), which jobs never do: {uri} stays"
        yield ok(f"we can write and read below {storage.jobs_uri()}{with_key}{left}")


def keys() -> Results:
    """Check that the keys of jobs exist and are enabled."""
    for key in sorted({spec.kms_key for spec in specs().values() if spec.kms_key}):
        response, error = ask("kms", "describe_key", "(NotFoundException|InvalidArnException):", KeyId=key)
        if error:
            yield broken(f"there is no key {key}", "platform.yaml:job.kms_key: a key's ARN; or null for AWS's own keys")
        elif response["KeyMetadata"]["KeyState"] == "Enabled":
            yield ok(f"{response['KeyMetadata']['Arn']} is enabled")
        else:
            state = response["KeyMetadata"]["KeyState"]
            yield broken(f"the key {key} is {state}", f"aws kms enable-key --key-id {key}")


def pushed() -> Results:
    """Report what the DVC remote lacks of what `dvc.lock` and `.dvc` files name: the next job pushes what it needs."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of stages that did not run yet
    try:
        with Repo(os.getcwd()) as repo:
            states: dict[str, str] = repo.status(cloud=True)
    except (DvcException, OSError) as error:
        yield unknown(f"the DVC remote does not tell what it has: {error.__cause__ or error}", "dvc status --cloud")
        return
    counts = Counter(states.values())
    lines = {
        "new": "object(s) are not there yet, and are pushed when a job reads them",
        "missing": "are neither there nor here: their stage runs again",
    }
    report = "; ".join(f"{counts[state]} {text}" for state, text in lines.items() if counts[state])
    yield ok(report or "the DVC remote has all that is here")

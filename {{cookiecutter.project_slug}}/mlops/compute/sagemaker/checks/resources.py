"""Checks of what jobs use in the account: buckets, keys, images, machines, network."""

import logging
import os
import re
import uuid
from collections import Counter
from typing import Any

from ....config import load_platform
from ...spec import JobSpec
from ...transfer import public_remote
from ..client import client, split_uri
from ..image import image_of
from ..request import jobs_uri, s3_url
from .project import CheckResult, Results, ask, broken, ok, specs, unknown

PROBE = "python -m mlops jobs doctor writes this, reads it, and deletes it.\n"
STEPS = {"ListObjectsV2": "list", "PutObject": "write", "GetObject": "read"}  # of the probe
# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
REGISTRY = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def places() -> Results:
    """Check that the DVC remote, and with it jobs' files, are in S3."""
    remote = public_remote()
    endpoint = f", at {remote['endpointurl']}, which jobs use too" if "endpointurl" in remote else ""
    yield ok(f"data in {s3_url(remote)}{endpoint}; jobs' code and results in {jobs_uri()}")


def _aws_uris() -> list[str]:
    """Return the addresses that are AWS's own, and not another store's."""
    remote = public_remote()
    return [jobs_uri()] if "endpointurl" in remote else [remote["url"], jobs_uri()]


def buckets() -> Results:
    """Check that the buckets exist, and report their settings."""
    region = load_platform().region
    for name in dict.fromkeys(split_uri(uri)[0] for uri in _aws_uris()):
        head, error = ask("s3", "head_bucket", "40[34]:", Bucket=name)
        if error.startswith("404"):
            yield broken(f"there is no bucket {name}", f"make aws-setup, or aws s3 mb s3://{name} --region {region}")
        elif error:  # also for who may list only what is below a prefix
            fix = "ask somebody who may list all of it; the probe tells whether jobs can start"
            yield unknown(f"bucket {name} does not tell us its region and settings", fix)
        else:
            place = head.get("BucketRegion") or region
            far = f", not in {region} as the jobs: slower, and traffic between regions costs money"
            yield ok(f"{name} in {place}{far if place != region else ''}; {_settings(name)}")


def _settings(bucket: str) -> str:
    """Return whether a bucket keeps older versions, and how it encrypts."""
    versioning, error = ask("s3", "get_bucket_versioning", ".", Bucket=bucket)
    is_on = versioning.get("Status") == "Enabled"
    versions = "older versions are kept" if is_on else "what is overwritten or deleted is gone for good"
    if error:
        versions = f"versioning unknown ({error.partition(':')[0]})"
    response, error = ask("s3", "get_bucket_encryption", ".", Bucket=bucket)
    if error.startswith("ServerSideEncryptionConfigurationNotFoundError:"):
        return f"{versions}, not encrypted"
    if error:
        return f"{versions}, encryption unknown ({error.partition(':')[0]})"
    rule = response["ServerSideEncryptionConfiguration"]["Rules"][0].get("ApplyServerSideEncryptionByDefault", {})
    return f"{versions}, encrypted with {rule.get('KMSMasterKeyID') or rule.get('SSEAlgorithm')}"


def probe() -> Results:
    """Do what starting a job does: list, write and read, with each key that jobs use."""
    from botocore.exceptions import ClientError

    s3, (jobs_bucket, jobs_prefix) = client("s3", 2), split_uri(jobs_uri())
    for key in sorted({spec.kms_key or "" for spec in specs()}):
        target = {"Bucket": jobs_bucket, "Key": f"{jobs_prefix}/doctor/{uuid.uuid4().hex}"}
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        try:
            for bucket, prefix in map(split_uri, _aws_uris()):
                s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/", MaxKeys=1)
            s3.put_object(**target, Body=PROBE.encode(), **encryption)
            s3.get_object(**target)["Body"].read()
        except ClientError as error:
            step = STEPS[error.operation_name]
            fix = f"make aws-setup; or allow us to {step} there, in our IAM policies, the bucket's and the key's"
            yield broken(f"we can't {step} below {jobs_uri()}{f' with {key}' if key else ''}: {error}", fix)
            continue
        with_key, leftover = f", encrypted with {key}" if key else "", ""
        try:
            s3.delete_object(**target)
        except ClientError as error:
            code, uri = error.response["Error"]["Code"], f"s3://{target['Bucket']}/{target['Key']}"
            leftover = f", but not delete ({code}), which jobs never do: {uri} stays"
        yield ok(f"we can write and read below {jobs_uri()}{with_key}{leftover}")


def keys() -> Results:
    """Check that the keys of jobs exist and are enabled."""
    for key in sorted({spec.kms_key for spec in specs() if spec.kms_key}):
        response, error = ask("kms", "describe_key", "(NotFoundException|InvalidArnException):", KeyId=key)
        if error:
            yield broken(f"there is no key {key}", "platform.yaml:job.kms_key: a key's ARN; or null for AWS's own keys")
        elif (state := response["KeyMetadata"]["KeyState"]) != "Enabled":
            yield broken(f"the key {key} is {state}", f"aws kms enable-key --key-id {key}")
        else:
            yield ok(f"{response['KeyMetadata']['Arn']} is enabled")


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
    texts = {
        "new": "object(s) are not there yet, and are pushed when a job reads them",
        "missing": "are neither there nor here: their stage runs again",
    }
    report = "; ".join(f"{counts[state]} {text}" for state, text in texts.items() if counts[state])
    yield ok(report or "the DVC remote has all that is here")


def images() -> Results:
    """Check that the images exist."""
    for uri, is_own in sorted({(image_of(spec), bool(spec.image)) for spec in specs()}):
        yield _own_image(uri) if is_own else ok(f"the framework's: {uri}")


def _own_image(uri: str) -> CheckResult:
    parts, region = REGISTRY.fullmatch(uri), load_platform().region
    if not parts:
        return unknown(f"{uri} is not in ECR, from where SageMaker pulls images", "make image puts one there")
    if parts["region"] != region:
        return broken(f"{uri} is in another region than the jobs, {region}", "make image")
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
    place: dict[str, Any] = {"registryId": parts["account"], "repositoryName": parts["repository"]}
    response, error = ask("ecr", "describe_images", "(Repository|Image)NotFound", **place, imageIds=[wanted])
    if error:
        return broken(f"there is no image {uri}: {error.partition(':')[0]}", "make image")
    digest = response["imageDetails"][0]["imageDigest"]
    return ok(uri if parts["digest"] else f"{uri}; the tag may move, so pin it: {uri}@{digest}")


def quotas() -> Results:
    """Check that the account's quotas allow the machines."""
    needed: Counter[str] = Counter()
    for spec in specs():
        needed |= Counter(dict.fromkeys(quota_names(spec), spec.instance_count))  # of each name, the larger count
    console = f"https://{load_platform().region}.console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas"
    listed = ask("service-quotas", "list_service_quotas", ServiceCode="sagemaker")[0]["Quotas"]
    account = {quota["QuotaName"]: quota for quota in listed}
    for name, count in needed.items():
        if not (quota := account.get(name)):
            yield unknown(f"AWS has no quota {name!r}", f"check that this machine type exists: {console}/")
        elif quota["Value"] < count:
            fix = f"ask for more at {console}/{quota['QuotaCode']}, or another instance_type in meta.job"
            yield broken(f"{name}: {quota['Value']:g}, and {count} are needed", fix)
        else:
            yield ok(f"{name}: {quota['Value']:g}")


def quota_names(spec: JobSpec) -> list[str]:
    """Return AWS's names of the quotas that a job uses."""
    uses = [f"{'spot ' if spec.spot else ''}{spec.kind} job", *(["training warm pool"] if spec.keep_alive_s else [])]
    return [f"{spec.instance_type} for {use} usage" for use in uses]


def networks() -> Results:
    """Check that subnets and security groups exist, in one VPC."""
    settings = "platform.yaml:job.subnets and job.security_groups"
    used = {(tuple(spec.subnets), tuple(spec.security_groups)) for spec in specs() if spec.subnets}
    if not used:
        yield ok("SageMaker's own: no subnets are set")
    for subnets, groups in sorted(used):
        vpc_subnets, error = ask("ec2", "describe_subnets", "Invalid", SubnetIds=list(subnets))
        vpc_groups, group_error = ask("ec2", "describe_security_groups", "Invalid", GroupIds=list(groups))
        if error or group_error:
            yield broken(error or group_error, f"{settings}: those of a VPC in the region")
            continue
        vpcs = sorted({part["VpcId"] for part in (*vpc_subnets["Subnets"], *vpc_groups["SecurityGroups"])})
        if len(vpcs) == 1:
            yield ok(f"{', '.join((*subnets, *groups))} in {vpcs[0]}")
        else:
            problem = f"subnets and security groups are of several VPCs: {', '.join(vpcs)}"
            yield broken(problem, f"{settings}: of one VPC")

"""Checks of what the account has for jobs, and of what it allows: to jobs in their role, and to us to start them.

IAM's simulation reads the policies of a role or a user. It does not see those of buckets and keys: the probe does.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ....config import load_platform
from ....explain import explain
from ...spec import JobSpec, job_prefix
from ...transfer import public_remote
from ..client import client, log_group, noun, split_uri
from ..image import image_of
from ..machines import gpu_count
from ..request import jobs_uri
from .project import SERVICE, Results, ask, broken, caller, ok, specs, unknown

# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
REGISTRY = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
WRITE_LOG = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
READ_LOG = ("logs:DescribeLogStreams", "logs:GetLogEvents")
INTERFACES = tuple(f"ec2:{verb}NetworkInterface{part}" for verb in ("Create", "Delete") for part in ("", "Permission"))
VPC = tuple(f"ec2:Describe{part}" for part in ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs"))
SERVER = tuple(
    f"sagemaker-mlflow:{verb}"
    for verb in ("GetExperimentByName", "CreateRun", "GetRun", "SearchRuns", "UpdateRun", "LogBatch", "LogInputs")
)
TYPES = {"true": "boolean", "false": "boolean"}  # of values for conditions; all others are strings


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
            text = b"python -m mlops jobs doctor writes this, reads it, and deletes it.\n"
            s3.put_object(**target, Body=text, **encryption)
            s3.get_object(**target)["Body"].read()
        except ClientError as error:
            reason = known.problem if (known := explain(error)) else error
            step = {"ListObjectsV2": "list", "PutObject": "write", "GetObject": "read"}[error.operation_name]
            fix = f"make aws-setup; or allow us to {step} there, in our IAM policies, the bucket's and the key's"
            yield broken(f"we can't {step} below {jobs_uri()}{f' with {key}' if key else ''}: {reason}", fix)
            continue
        with_key = f", encrypted with {key}" if key else ""
        _, refusal = ask("s3", "delete_object", ".", Bucket=target["Bucket"], Key=target["Key"])
        stays = f"s3://{target['Bucket']}/{target['Key']} stays"
        leftover = f", but not delete ({refusal.partition(':')[0]}), which jobs never do: {stays}" if refusal else ""
        yield ok(f"we can write and read below {jobs_uri()}{with_key}{leftover}")


def keys() -> Results:
    """Check that the keys of jobs exist and are enabled."""
    for key in sorted({spec.kms_key for spec in specs() if spec.kms_key}):
        response, error = ask("kms", "describe_key", "(NotFoundException|InvalidArnException):", KeyId=key)
        if error:
            yield broken(f"there is no key {key}", "platform.yaml:job.kms_key: a key's ARN; or null for AWS's own keys")
        elif (state := response["KeyMetadata"]["KeyState"]) != "Enabled":
            yield broken(
                f"the key {key} is {state}", f"aws kms enable-key --key-id {key} --region {load_platform().region}"
            )
        else:
            yield ok(f"{response['KeyMetadata']['Arn']} is enabled")


def images() -> Results:
    """Check that the images exist."""
    region = load_platform().region
    for uri, is_own in sorted({(image_of(spec), bool(spec.image)) for spec in specs()}):
        if not is_own:
            yield ok(f"the framework's: {uri}")
        elif not (parts := REGISTRY.fullmatch(uri)):
            yield unknown(f"{uri} is not in ECR, from where SageMaker pulls images", "make image puts one there")
        elif parts["region"] != region:
            yield broken(f"{uri} is in another region than the jobs, {region}", "make image")
        else:
            wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
            place: dict[str, Any] = {"registryId": parts["account"], "repositoryName": parts["repository"]}
            response, error = ask("ecr", "describe_images", "(Repository|Image)NotFound", **place, imageIds=[wanted])
            if error:
                yield broken(f"there is no image {uri}: {error.partition(':')[0]}", "make image")
            else:
                digest, tags = (response["imageDetails"][0].get(name) for name in ("imageDigest", "imageTags"))
                with_gpus = [s.instance_type for s in specs() if s.image == uri and gpu_count(s.instance_type) != 0]
                if with_gpus and tags and all(tag.startswith("cpu-") for tag in tags):  # as `make_image` names them
                    yield broken(
                        f"the torch in {uri} is for CPUs, and {with_gpus[0]} has GPUs", "make image ARGS=--gpu"
                    )
                yield ok(uri if parts["digest"] else f"{uri}; the tag may move, so pin it: {uri}@{digest}")


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
            yield broken((error or group_error).partition(": ")[2], f"{settings}: those of a VPC in the region")
            continue
        vpcs = sorted({part["VpcId"] for part in (*vpc_subnets["Subnets"], *vpc_groups["SecurityGroups"])})
        if len(vpcs) == 1:
            yield ok(f"{', '.join((*subnets, *groups))} in {vpcs[0]}")
        else:
            problem = f"subnets and security groups are of several VPCs: {', '.join(vpcs)}"
            yield broken(problem, f"{settings}: of one VPC")


@dataclass(frozen=True)
class Permission:
    """Actions that a principal needs."""

    actions: tuple[str, ...]  # IAM's names
    resource: str  # ARN, or "*" for actions that know no resources
    context: dict[str, str] = field(default_factory=dict)  # values for the conditions of policies


def principal(arn: str) -> str:
    """Return the user or role whose policies hold for a caller's ARN."""
    session = re.fullmatch(r"arn:(?P<partition>[a-z-]+):sts::(?P<account>\d{12}):assumed-role/(?P<name>[^/]+)/.+", arn)
    if not session:
        return arn
    response, error = ask("iam", "get_role", ".", RoleName=session["name"])
    if error:  # a guess: the session does not tell the path that a role's ARN may have
        return f"arn:{session['partition']}:iam::{session['account']}:role/{session['name']}"
    return str(response["Role"]["Arn"])


def _arn(service: str, resource: str, place: str = "") -> str:
    """Return an ARN; its place is `<region>:<account>`, by default those of the jobs."""
    place = place or f"{load_platform().region}:{caller()['Account']}"
    return f"arn:{caller()['Arn'].split(':')[1]}:{service}:{place}:{resource}"


def _keys() -> Iterator[str]:
    """Give the ARNs of the keys in use; policies do not name aliases."""
    for key in sorted({spec.kms_key for spec in specs() if spec.kms_key}):
        if "alias/" in key:
            yield str(ask("kms", "describe_key", KeyId=key)[0]["KeyMetadata"]["Arn"])
        else:
            yield key if key.startswith("arn:") else _arn("kms", f"key/{key}")


def _for_data() -> list[Permission]:
    """Return what jobs and launchers need: the data, and the keys that encrypt them."""
    permissions = []
    for uri in (public_remote()["url"], jobs_uri()):
        bucket, prefix = split_uri(uri.rstrip("/"))
        arn = _arn("s3", bucket, ":")  # which names neither
        permissions.append(Permission(("s3:ListBucket",), arn, {"s3:prefix": f"{prefix}/"}))
        permissions.append(Permission(("s3:GetObject", "s3:PutObject"), f"{arn}/{prefix}/*"))
    via = {"kms:ViaService": f"s3.{load_platform().region}.amazonaws.com"}
    return permissions + [Permission(("kms:Decrypt", "kms:GenerateDataKey"), key, via) for key in _keys()]


def of_role() -> Results:
    """Check that jobs may do what they need to."""
    platform, permissions = load_platform(), _for_data()
    for kind in sorted({spec.kind for spec in specs()}):
        permissions.append(Permission(WRITE_LOG, _arn("logs", f"log-group:{log_group(kind)}:log-stream:*")))
    for key in _keys():
        permissions.append(Permission(("kms:CreateGrant",), key, {"kms:GrantIsForAWSResource": "true"}))
    images = [image for spec in specs() if (image := REGISTRY.fullmatch(spec.image or ""))]
    for region, account, repository in sorted({image.group("region", "account", "repository") for image in images}):
        permissions.append(Permission(("ecr:GetAuthorizationToken",), "*"))
        permissions.append(Permission(PULL, _arn("ecr", f"repository/{repository}", f"{region}:{account}")))
    if any(spec.subnets for spec in specs()):
        permissions += [Permission(INTERFACES, _arn("ec2", "network-interface/*")), Permission(VPC, "*")]
    if (uri := platform.tracking_uri or "").startswith("arn:"):
        is_app = ":mlflow-app/" in uri
        permissions.append(Permission(("sagemaker:CallMlflowAppApi",) if is_app else SERVER, uri))
    yield from simulate(platform.role_arn or "", "the role", permissions)


def of_caller() -> Results:
    """Check that we may start, watch and stop jobs, and pass them their role."""
    if caller()["Arn"].endswith(":root"):
        yield ok("we are the account's root user, who may do everything: a user or role of less power is safer")
        return
    platform, permissions = load_platform(), _for_data()
    for kind in sorted({spec.kind for spec in specs()}):
        verbs = (f"sagemaker:{verb}{noun(kind)}" for verb in ("Create", "Describe", "Stop"))
        jobs = _arn("sagemaker", f"{kind}-job/{job_prefix()}-*")
        permissions.append(Permission((*verbs, "sagemaker:AddTags"), jobs))
        permissions.append(Permission((f"sagemaker:List{noun(kind)}s",), "*"))
        permissions.append(Permission(READ_LOG, _arn("logs", f"log-group:{log_group(kind)}:log-stream:*")))
    if platform.role_arn:
        permissions.append(Permission(("iam:PassRole",), platform.role_arn, {"iam:PassedToService": SERVICE}))
    yield from simulate(principal(caller()["Arn"]), "we", permissions)


def simulate(principal: str, who: str, permissions: list[Permission]) -> Results:
    """Report what IAM would refuse to a user or role: `principal` is its ARN, `who` is how a person calls it."""
    is_allowed = True
    for permission in permissions:
        entries = [
            {"ContextKeyName": key, "ContextKeyType": TYPES.get(value, "string"), "ContextKeyValues": [value]}
            for key, value in permission.context.items()
        ]
        request: dict[str, Any] = {"PolicySourceArn": principal, "ContextEntries": entries}
        request |= {"ActionNames": list(permission.actions), "ResourceArns": [permission.resource]}
        results = ask("iam", "simulate_principal_policy", **request)[0]["EvaluationResults"]
        refused = [result for result in results if result["EvalDecision"] != "allowed"]
        is_allowed &= not refused
        denied = [result["EvalActionName"] for result in refused if not result.get("MissingContextValues")]
        if denied:
            fix = f"make aws-setup; or allow that in the IAM policies of {principal}"
            yield broken(f"{who} may not {', '.join(denied)} on {permission.resource}", fix)
        for result in refused:
            if missing := result.get("MissingContextValues"):
                problem = f"{who} may {result['EvalActionName']} on {permission.resource} only where a condition holds"
                yield unknown(problem, f"see {', '.join(missing)} in the IAM policies of {principal}")
    if is_allowed:
        count = sum(len(permission.actions) for permission in permissions)
        yield ok(f"{who} may do all {count} things that were asked ({principal})")

"""What jobs may do in their role, and what we may do to start them, as IAM would decide it.

The simulation reads the policies of a role or a user. Those of buckets and keys it does not see: the probe does.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ....config import load_platform
from ... import remote
from .. import client, storage
from .account import SERVICE, Caller, caller
from .instances import REGISTRY
from .project import specs
from .result import CheckResult, Findings, boto_client, mend, ok, unasked

ASSUMED = re.compile(r"arn:(?P<partition>[a-z-]+):sts::(?P<account>\d{12}):assumed-role/(?P<name>[^/]+)/.+")
# What DVC, and SageMaker for a job, do with objects.
OBJECTS = ("s3:GetObject", "s3:PutObject")
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
WRITE_LOG = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
READ_LOG = ("logs:DescribeLogStreams", "logs:GetLogEvents")
INTERFACES = tuple(f"ec2:{verb}NetworkInterface{of}" for verb in ("Create", "Delete") for of in ("", "Permission"))
LOOK_AT_VPC = tuple(
    f"ec2:Describe{one}" for one in ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
)
SERVER = tuple(
    f"sagemaker-mlflow:{one}"
    for one in ("GetExperimentByName", "CreateRun", "GetRun", "SearchRuns", "UpdateRun", "LogBatch", "LogInputs")
)


@dataclass(frozen=True)
class Permission:
    """What somebody is to be allowed.

    Args:
        actions: IAM's names.
        resource: ARN, or "*" for actions that know no resources.
        context: What conditions may ask for.
    """

    actions: tuple[str, ...]
    resource: str
    context: dict[str, str] = field(default_factory=dict)


def of_role() -> Findings:
    """See that jobs may do what they need to."""
    role = load_platform().role_arn or ""
    yield from simulated(role, "the role", [*_data(caller()), *_for_jobs(caller())])


def of_caller() -> Findings:
    """See that we may start, watch and stop jobs, and give them their role."""
    if caller().arn.endswith(":root"):
        yield ok("we are the account's root user, who may do everything: a user or role of less power is safer")
        return
    yield from simulated(principal(caller().arn), "we", [*_data(caller()), *_to_start_jobs(caller())])


def principal(arn: str) -> str:
    """Return the user or role whose policies hold for a caller's ARN."""
    from botocore.exceptions import ClientError

    session = ASSUMED.fullmatch(arn)
    if not session:
        return arn
    try:
        return str(boto_client("iam").get_role(RoleName=session["name"])["Role"]["Arn"])
    except ClientError:  # then a guess: the session does not tell the path that a role's ARN may have
        return f"arn:{session['partition']}:iam::{session['account']}:role/{session['name']}"


def _data(me: Caller) -> Iterator[Permission]:
    """Give what both need: the data, and the keys that encrypt them."""
    for uri in (remote.public()["url"], storage.jobs_uri()):
        bucket, prefix = storage.split(uri.rstrip("/"))
        yield Permission(("s3:ListBucket",), f"arn:{me.partition}:s3:::{bucket}", {"s3:prefix": f"{prefix}/"})
        yield Permission(OBJECTS, f"arn:{me.partition}:s3:::{bucket}/{prefix}/*")
    for key in _keys(me):
        via = f"s3.{load_platform().region}.amazonaws.com"
        yield Permission(("kms:Decrypt", "kms:GenerateDataKey"), key, {"kms:ViaService": via})


def _keys(me: Caller) -> list[str]:
    """Return the ARNs of the keys in use."""
    return [_arn(key, me) for key in sorted({spec.kms_key for spec in specs().values() if spec.kms_key})]


def _arn(key: str, me: Caller) -> str:
    if "alias/" in key:  # of which policies do not speak
        return str(boto_client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"])
    return key if key.startswith("arn:") else f"arn:{me.partition}:kms:{load_platform().region}:{me.account}:key/{key}"


def _for_jobs(me: Caller) -> Iterator[Permission]:
    """Give what a job needs besides."""
    place = f"{load_platform().region}:{me.account}"
    for kind in _kinds():
        group = client.KINDS[kind].log_group
        yield Permission(WRITE_LOG, f"arn:{me.partition}:logs:{place}:log-group:{group}:log-stream:*")
    for key in _keys(me):
        yield Permission(("kms:CreateGrant",), key, {"kms:GrantIsForAWSResource": "true"})
    own = [found for spec in specs().values() if (found := REGISTRY.fullmatch(spec.image or ""))]
    for repository in sorted({f"{one['region']}:{one['account']}:repository/{one['repository']}" for one in own}):
        yield Permission(("ecr:GetAuthorizationToken",), "*")
        yield Permission(PULL, f"arn:{me.partition}:ecr:{repository}")
    if any(spec.subnets for spec in specs().values()):
        yield Permission(INTERFACES, f"arn:{me.partition}:ec2:{place}:network-interface/*")
        yield Permission(LOOK_AT_VPC, "*")
    uri = load_platform().tracking_uri or ""
    if uri.startswith("arn:"):
        yield Permission(("sagemaker:CallMlflowAppApi",) if ":mlflow-app/" in uri else SERVER, uri)


def _to_start_jobs(me: Caller) -> Iterator[Permission]:
    """Give what whoever starts jobs needs besides."""
    platform, place = load_platform(), f"{load_platform().region}:{me.account}"
    for kind in _kinds():
        noun, group = client.KINDS[kind].noun, client.KINDS[kind].log_group
        own = f"arn:{me.partition}:sagemaker:{place}:{kind}-job/{platform.project}-*"
        yield Permission(
            (*(f"sagemaker:{verb}{noun}" for verb in ("Create", "Describe", "Stop")), "sagemaker:AddTags"), own
        )
        yield Permission((f"sagemaker:List{noun}s",), "*")
        yield Permission(READ_LOG, f"arn:{me.partition}:logs:{place}:log-group:{group}:log-stream:*")
    if platform.role_arn:
        yield Permission(("iam:PassRole",), platform.role_arn, {"iam:PassedToService": SERVICE})


def _kinds() -> list[str]:
    return sorted({spec.kind for spec in specs().values()})


def simulated(principal: str, who: str, rights: list[Permission]) -> Findings:
    """See what IAM would decide.

    Args:
        principal: ARN of a user or role.
        who: The same, for people.
        rights: What is needed.
    """
    found = [finding for right in rights for finding in _one(principal, who, right)]
    yield from found
    if not found:
        yield ok(f"{who} may do all {sum(len(right.actions) for right in rights)} things that were asked ({principal})")


def _one(principal: str, who: str, right: Permission) -> Iterator[CheckResult]:
    """Give what is wrong with one right, if anything is."""
    pages = boto_client("iam").get_paginator("simulate_principal_policy")
    entries = [_entry(key, value) for key, value in right.context.items()]
    asked = {"ActionNames": list(right.actions), "ResourceArns": [right.resource], "ContextEntries": entries}
    results = [one for page in pages.paginate(PolicySourceArn=principal, **asked) for one in page["EvaluationResults"]]
    refused = [one for one in results if one["EvalDecision"] != "allowed"]
    unsure = [one for one in refused if one.get("MissingContextValues")]
    denied = [one["EvalActionName"] for one in refused if one not in unsure]
    if denied:
        yield mend(
            f"{who} may not {', '.join(denied)} on {right.resource}",
            f"make aws-setup; or allow that in the IAM policies of {principal}",
        )
    for one in unsure:
        yield unasked(
            f"{who} may {one['EvalActionName']} on {right.resource} only where a condition holds",
            f"see {', '.join(one['MissingContextValues'])} in the IAM policies of {principal}",
        )


def _entry(key: str, value: str) -> dict[str, Any]:
    kind = "boolean" if value in ("true", "false") else "string"
    return {"ContextKeyName": key, "ContextKeyType": kind, "ContextKeyValues": [value]}

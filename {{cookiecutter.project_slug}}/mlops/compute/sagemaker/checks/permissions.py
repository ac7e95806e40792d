"""Checks of what jobs may do in their role, and of what we may do to start them, as IAM would decide it.

The simulation reads the policies of a role or a user. It does not see those of buckets and keys: the probe does.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ....config import load_platform
from ...transfer import public_remote
from ..client import log_group, noun, split_uri
from ..request import jobs_uri
from .project import SERVICE, Results, ask, broken, caller, ok, specs, unknown
from .resources import REGISTRY

ASSUMED = re.compile(r"arn:(?P<partition>[a-z-]+):sts::(?P<account>\d{12}):assumed-role/(?P<name>[^/]+)/.+")
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


@dataclass(frozen=True)
class Permission:
    """Actions that a principal needs."""

    actions: tuple[str, ...]  # IAM's names
    resource: str  # ARN, or "*" for actions that know no resources
    context: dict[str, str] = field(default_factory=dict)  # values for the conditions of policies


def of_role() -> Results:
    """Check that jobs may do what they need to."""
    yield from simulate(load_platform().role_arn or "", "the role", [*_data(), *_for_jobs()])


def of_caller() -> Results:
    """Check that we may start, watch and stop jobs, and pass them their role."""
    if caller()["Arn"].endswith(":root"):
        yield ok("we are the account's root user, who may do everything: a user or role of less power is safer")
    else:
        yield from simulate(principal(caller()["Arn"]), "we", [*_data(), *_to_start_jobs()])


def principal(arn: str) -> str:
    """Return the user or role whose policies hold for a caller's ARN."""
    session = ASSUMED.fullmatch(arn)
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


def _data() -> Iterator[Permission]:
    """Give what jobs and launchers need: the data, and the keys that encrypt them."""
    for uri in (public_remote()["url"], jobs_uri()):
        bucket, prefix = split_uri(uri.rstrip("/"))
        arn = _arn("s3", bucket, ":")  # which names neither
        yield Permission(("s3:ListBucket",), arn, {"s3:prefix": f"{prefix}/"})
        yield Permission(("s3:GetObject", "s3:PutObject"), f"{arn}/{prefix}/*")  # by DVC, and by SageMaker for a job
    for key in _keys():
        via = f"s3.{load_platform().region}.amazonaws.com"
        yield Permission(("kms:Decrypt", "kms:GenerateDataKey"), key, {"kms:ViaService": via})


def _keys() -> Iterator[str]:
    """Give the ARNs of the keys in use; policies do not name aliases."""
    for key in sorted({spec.kms_key for spec in specs() if spec.kms_key}):
        if "alias/" in key:
            yield str(ask("kms", "describe_key", KeyId=key)[0]["KeyMetadata"]["Arn"])
        else:
            yield key if key.startswith("arn:") else _arn("kms", f"key/{key}")


def _for_jobs() -> Iterator[Permission]:
    """Give what a job needs besides data."""
    for kind in sorted({spec.kind for spec in specs()}):
        yield Permission(WRITE_LOG, _arn("logs", f"log-group:{log_group(kind)}:log-stream:*"))
    for key in _keys():
        yield Permission(("kms:CreateGrant",), key, {"kms:GrantIsForAWSResource": "true"})
    images = [image for spec in specs() if (image := REGISTRY.fullmatch(spec.image or ""))]
    for region, account, repository in sorted({image.group("region", "account", "repository") for image in images}):
        yield Permission(("ecr:GetAuthorizationToken",), "*")
        yield Permission(PULL, _arn("ecr", f"repository/{repository}", f"{region}:{account}"))
    if any(spec.subnets for spec in specs()):
        yield Permission(INTERFACES, _arn("ec2", "network-interface/*"))
        yield Permission(VPC, "*")
    uri = load_platform().tracking_uri or ""
    if uri.startswith("arn:"):
        yield Permission(("sagemaker:CallMlflowAppApi",) if ":mlflow-app/" in uri else SERVER, uri)


def _to_start_jobs() -> Iterator[Permission]:
    """Give what whoever starts jobs needs besides data."""
    platform = load_platform()
    for kind in sorted({spec.kind for spec in specs()}):
        verbs = (f"sagemaker:{verb}{noun(kind)}" for verb in ("Create", "Describe", "Stop"))
        yield Permission((*verbs, "sagemaker:AddTags"), _arn("sagemaker", f"{kind}-job/{platform.project}-*"))
        yield Permission((f"sagemaker:List{noun(kind)}s",), "*")
        yield Permission(READ_LOG, _arn("logs", f"log-group:{log_group(kind)}:log-stream:*"))
    if platform.role_arn:
        yield Permission(("iam:PassRole",), platform.role_arn, {"iam:PassedToService": SERVICE})


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

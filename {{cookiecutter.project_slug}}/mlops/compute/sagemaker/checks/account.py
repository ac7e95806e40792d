"""Who we are for AWS, where, and the role that jobs get."""

import difflib
import functools
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ....config import load_platform
from ....errors import ProjectError
from .. import client
from .result import Findings, boto_client, code_of, mend, ok

SERVICE = "sagemaker.amazonaws.com"
ROLE = re.compile(r"arn:[a-z-]+:iam::(?P<account>\d{12}):role/(?:.+/)?(?P<name>[^/]+)")
LOG_IN = "aws configure, AWS_PROFILE=<a profile>, or aws sso login; aws sts get-caller-identity tells who you are"
SET_ROLE = "make aws-setup, or platform.yaml:role_arn: the ARN of a role"


@dataclass(frozen=True)
class Caller:
    """Who asks AWS, as AWS sees it.

    Args:
        arn: Of the user, or of the session in a role.
        account: Twelve digits.
    """

    arn: str
    account: str

    @property
    def partition(self) -> str:
        """Return the part of AWS, such as aws or aws-cn, with which ARNs begin."""
        return self.arn.split(":")[1]


@functools.cache
def caller() -> Caller:
    """Ask AWS who we are."""
    told = boto_client("sts").get_caller_identity()
    return Caller(told["Arn"], told["Account"])


def region() -> Findings:
    """See that the region is one where SageMaker is."""
    import boto3

    name, session = load_platform().region, boto3.Session()
    if not name:
        yield mend("no region is set", "platform.yaml:region: such as us-east-1")
        return
    partitions = session.get_available_partitions()
    known = [one for partition in partitions for one in session.get_available_regions("sagemaker", partition)]
    if name in known:
        yield ok(name)
    else:
        nearest = difflib.get_close_matches(name, known, n=1)
        yield mend(f"SageMaker is in no region {name!r}", f"platform.yaml:region: such as {(nearest or known)[0]}")


def credentials() -> Findings:
    """See that AWS knows us."""
    try:
        with client.translate_errors():
            me = caller()
    except client.AwsUnavailableError as error:
        yield mend(error.problem, error.fix)
    except ProjectError as error:
        yield mend(error.problem, LOG_IN)
    else:
        yield ok(f"{me.arn}, account {me.account}{_end()}")


def _end() -> str:
    """Return until when the credentials are good, as far as that is known."""
    import boto3

    found = boto3.Session().get_credentials()
    end = getattr(found, "_expiry_time", None)  # of those that boto3 renews by itself
    if end:
        return f"; until {end:%Y-%m-%d %H:%M %Z}, then renewed while the login lasts"
    return "; temporary, and nobody tells until when" if found and found.token else ""


def role() -> Findings:
    """See that the role of jobs is there, and that SageMaker may take it on."""
    from botocore.exceptions import ClientError

    arn = load_platform().role_arn
    if not arn:
        yield mend("no role is set for SageMaker's jobs", SET_ROLE)
        return
    parts = ROLE.fullmatch(arn)
    if not parts:
        yield mend(f"{arn!r} is not the ARN of a role", SET_ROLE)
        return
    if parts["account"] != caller().account:
        yield mend(f"{arn} is a role of another account than ours, {caller().account}", SET_ROLE)
        return
    try:
        told = boto_client("iam").get_role(RoleName=parts["name"])["Role"]
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        yield mend(f"there is no role {arn}", SET_ROLE)
        return
    if told["Arn"] != arn:
        yield mend(f"there is no role {arn}, but {told['Arn']}", f"platform.yaml:role_arn: {told['Arn']}")
    elif trusts(told["AssumeRolePolicyDocument"]):
        yield ok(f"{arn}, which SageMaker may take on")
    else:
        yield mend(
            f"SageMaker may not take on {arn}",
            f"make aws-setup; or in its trust policy: Allow, Principal: {{Service: {SERVICE}}}, Action: sts:AssumeRole",
        )


def trusts(policy: dict[str, Any]) -> bool:
    """Return whether a trust policy lets SageMaker take on its role; the conditions of what it allows are not tried."""
    about = [one for one in _listed(policy["Statement"]) if _is_about(one)]
    denied = any(one["Effect"] == "Deny" and not one.get("Condition") for one in about)
    return not denied and any(one["Effect"] == "Allow" for one in about)


def _is_about(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = ["*"] if principal == "*" else _listed(principal.get("Service", []))
    actions = _listed(statement.get("Action", []))
    return bool({"*", SERVICE} & set(services)) and any(
        fnmatchcase("sts:assumerole", action.lower()) for action in actions
    )


def _listed(value: Any) -> list[Any]:
    """Return a value of a policy as the list that it may also be."""
    return value if isinstance(value, list) else [value]

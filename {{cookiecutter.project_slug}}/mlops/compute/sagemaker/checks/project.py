"""What a check returns; checks of job settings, commit, data, credentials, role and MLflow."""

import difflib
import functools
import ipaddress
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ....config import load_platform
from ....errors import ProjectError
from ....explain import explain
from ....tracking import mlflow_check, mlflow_client
from ....tracking.git import git, head, without_credentials
from ....tracking.run_context import check_inputs, snapshot
from ... import fingerprint
from ...spec import JobSpec, job_stages, needs_mlflow, spec_of
from ...transfer import public_remote
from .. import client
from ..machines import gpu_count, mismatches
from ..request import jobs_uri, s3_url

SERVICE = "sagemaker.amazonaws.com"
ROLE = re.compile(r"arn:[a-z-]+:iam::(?P<account>\d{12}):role/(?:.+/)?(?P<name>[^/]+)")
SET_ROLE = "make aws-setup, or platform.yaml:role_arn: the ARN of a role"


class CheckStatus(StrEnum):
    """Outcome of one check."""

    OK = "ok"
    BROKEN = "to be mended"  # a job would fail, or pay for what it does not use
    UNKNOWN = "could not be asked"
    SKIPPED = "skipped"  # because a check that it depends on failed


class CheckResult(NamedTuple):
    """One result of a check."""

    status: CheckStatus
    message: str  # what was seen, with values
    fix: str = ""  # "" where nothing is to be done


Results = Iterator[CheckResult]

ok = functools.partial(CheckResult, CheckStatus.OK)
broken = functools.partial(CheckResult, CheckStatus.BROKEN)
unknown = functools.partial(CheckResult, CheckStatus.UNKNOWN)

ask = functools.partial(client.attempt, tries=2)  # a person waits, so a call is tried twice only


@functools.cache
def specs() -> list[JobSpec]:
    """Return the job settings of each stage that has a job, or raise what `spec_of` does."""
    return [spec_of(stage) for stage in job_stages()]


@functools.cache
def caller() -> dict[str, str]:
    """Ask AWS whose credentials these are: the `Arn` of a user, or of a session in a role, and its `Account`."""
    return dict(ask("sts", "get_caller_identity")[0])


def jobs() -> Results:
    """Validate the job settings of every stage."""
    if not (stages := job_stages()):
        yield broken("no stage has a meta.job", "dvc.yaml:stages.train.meta.job: {kind: training}")
    for stage in stages:
        try:
            spec = spec_of(stage)
            yield ok(f"{stage}: {spec.kind} on {spec.instance_count} x {spec.instance_type}{' spot' * spec.spot}")
        except ProjectError as error:
            yield broken(error.problem, error.fix)


def gpus() -> Results:
    """Compare the GPUs of the machines with what the stages use."""
    used = []
    for stage, spec in zip(job_stages(), specs(), strict=True):
        problems = [broken(problem, fix) for problem, fix in mismatches(stage, spec)]
        count = gpu_count(spec.instance_type)
        yield from problems
        if count is None:
            fix = f"compare train.processes with what `aws ec2 describe-instance-types` says of {spec.instance_type}"
            yield unknown(f"how many GPUs {spec.instance_type} has is not known", fix)
        elif count and not problems:
            used.append(f"{stage} uses {count * spec.instance_count} of {spec.instance_count} x {spec.instance_type}")
    if used:
        yield ok("; ".join(used))
    elif not any(gpu_count(spec.instance_type) != 0 for spec in specs()):
        yield ok("no machine has any")


def commit() -> Results:
    """Check that Git has all that the stages need."""
    from dvc.repo import Repo

    parent, stages = head(), job_stages()
    snapshot(stages[-1])  # refuses files that Git does not track, and what others can't get
    check_inputs(stages[0])  # of the stages that follow, too
    with Repo(os.getcwd()) as repo:
        for stage in stages:
            fingerprint.check_in_project(repo, repo.stage.load_one(name=stage))
    changes = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
    yield ok(parent[:10] + (f", and {changes} change(s) of the work tree, which go along" if changes else ""))


def places() -> Results:
    """Check that the DVC remote, and with it jobs' files, are in S3."""
    remote = public_remote()
    endpoint = f", at {remote['endpointurl']}, which jobs use too" if "endpointurl" in remote else ""
    yield ok(f"data in {s3_url(remote)}{endpoint}; jobs' code and results in {jobs_uri()}")


def pushed() -> Results:
    """Report what the DVC remote lacks of what `dvc.lock` and `.dvc` files name: the next job pushes what it needs."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of stages that did not run yet
    try:
        with Repo(os.getcwd()) as repo:
            states: dict[str, str] = repo.status(cloud=True)
    except Exception as error:
        if not (known := explain(error)):
            raise
        yield unknown(f"the DVC remote does not tell what it has: {known.problem}", known.fix)
        return
    counts = Counter(states.values())
    texts = {
        "new": "object(s) are not there yet, and are pushed when a job reads them",
        "missing": "are neither there nor here: their stage runs again",
    }
    report = "; ".join(f"{counts[state]} {text}" for state, text in texts.items() if counts[state])
    yield ok(report or "the DVC remote has all that is here")


def region() -> Results:
    """Check that SageMaker exists in the region."""
    import boto3

    name, aws = client.region(), boto3.Session()
    partitions = aws.get_available_partitions()
    regions = [region for partition in partitions for region in aws.get_available_regions("sagemaker", partition)]
    if name not in regions:
        nearest = difflib.get_close_matches(name, regions, n=1) or regions
        raise ProjectError(f"SageMaker is in no region {name!r}", f"platform.yaml:region: such as {nearest[0]}")
    yield ok(name)


def credentials() -> Results:
    """Check that AWS accepts the credentials."""
    import boto3

    try:
        with client.translate_errors():
            me = caller()
    except ProjectError as error:
        yield broken(error.problem, error.fix)
        return
    keys = boto3.Session().get_credentials()
    end = "; temporary, until an unknown time" if keys and keys.token else ""
    if expiry := getattr(keys, "_expiry_time", None):  # of those that boto3 renews by itself
        end = f"; until {expiry:%Y-%m-%d %H:%M %Z}, then renewed while the login lasts"
    yield ok(f"{me['Arn']}, account {me['Account']}{end}")


def role() -> Results:
    """Check that the role of jobs exists, and that SageMaker may assume it."""
    if not (arn := load_platform().role_arn):
        yield broken("no role is set for SageMaker's jobs", SET_ROLE)
        return
    parts = ROLE.fullmatch(arn)
    if not parts or parts["account"] != caller()["Account"]:
        problem = f"{arn} is a role of another account than ours, {caller()['Account']}"
        yield broken(problem if parts else f"{arn!r} is not the ARN of a role", SET_ROLE)
        return
    response, error = ask("iam", "get_role", "NoSuchEntity:", RoleName=parts["name"])
    if error:
        yield broken(f"there is no role {arn}", SET_ROLE)
    elif (actual := response["Role"]["Arn"]) != arn:
        yield broken(f"there is no role {arn}, but {actual}", f"platform.yaml:role_arn: {actual}")
    elif trusts(response["Role"]["AssumeRolePolicyDocument"]):
        yield ok(f"{arn}, which SageMaker may assume")
    else:
        statement = f"Allow, Principal: {{Service: {SERVICE}}}, Action: sts:AssumeRole"
        yield broken(f"SageMaker may not assume {arn}", f"make aws-setup; or in its trust policy: {statement}")


def trusts(policy: dict[str, Any]) -> bool:
    """Return whether a trust policy lets SageMaker assume its role; conditions of an Allow are not evaluated."""
    is_allowed = False
    for statement in _as_list(policy["Statement"]):
        principal = statement.get("Principal", {})
        services = ["*"] if principal == "*" else _as_list(principal.get("Service", []))
        actions = [action.lower() for action in _as_list(statement.get("Action", []))]
        if {"*", SERVICE} & set(services) and any(fnmatchcase("sts:assumerole", action) for action in actions):
            if statement["Effect"] == "Deny" and not statement.get("Condition"):
                return False
            is_allowed |= statement["Effect"] == "Allow"
    return is_allowed


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tracking() -> Results:
    """Check that MLflow can be used, and whether jobs can reach it."""
    uri, region = load_platform().tracking_uri, load_platform().region
    mlflow_check.check_usable()
    if not uri or not mlflow_client.is_remote(uri):
        yield ok("a file of this machine: runs are in MLflow when their job has ended")
        return
    if uri.startswith("http"):
        yield from reach(uri)
    else:
        is_far = "arn:" in uri and uri.split(":")[3] != region
        yield ok(f"{uri} answers{f', in another region than the jobs, {region}' if is_far else ''}")


def reach(uri: str) -> Results:
    """Check that the URL of an MLflow server is reachable from inside a job (not localhost)."""
    shown, host = without_credentials(uri), urlsplit(uri).hostname or ""
    try:
        kind = kind_of([str(info[4][0]) for info in socket.getaddrinfo(host, None)])
    except OSError as error:  # a proxy may resolve names that this machine does not
        yield unknown(
            f"{shown} answers here, but this machine can't resolve it: {error.strerror}", "check that jobs reach it"
        )
        return
    if kind == "public" or (kind == "private" and all(spec.subnets for spec in specs())):
        yield ok(f"{shown} answers here; its address is {kind}")
        return
    unreachable = f"{shown} answers here, but its address is {kind}: SageMaker's jobs can't reach it"
    if any(needs_mlflow(stage) for stage in job_stages()):
        yield broken(unreachable, "platform.yaml:tracking_uri: an address for jobs too; or platform.yaml:job.subnets")
    else:
        yield ok(f"{unreachable}. Runs are in MLflow when their job has ended")


def kind_of(addresses: list[str]) -> str:
    """Return from where a server's addresses can be reached: "public", "private" or "this machine's own"."""
    parsed = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    if any(address.is_loopback for address in parsed):
        return "this machine's own"
    return "private" if any(address.is_private for address in parsed) else "public"

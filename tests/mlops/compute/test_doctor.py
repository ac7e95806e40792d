"""What `jobs doctor` reads out of AWS's answers, and what it says when there is none."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber
from dvc.repo import Repo
from mlops.compute.sagemaker import client, doctor
from mlops.compute.sagemaker.checks import account, project
from mlops.compute.sagemaker.checks.account import REGISTRY, Permission, quota_names
from mlops.compute.sagemaker.checks.project import CheckResult, CheckStatus, broken, kind_of, ok, reach, specs, unknown
from mlops.compute.spec import JobSpec
from mlops.errors import ProjectError, UnavailableError
from ruamel.yaml import YAML

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/teams/ml/jobs"
SAGEMAKER = {"Service": "sagemaker.amazonaws.com"}

Stubs = Callable[[str], Stubber]


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    """Give a function that returns what a service is to be asked and to answer, in a project with a role."""
    monkeypatch.chdir(tmp_path)
    platform = {
        "project": "demo",
        "tracking_uri": None,
        "run_on": "local",
        "allow_other_environment": False,
        "region": "us-east-1",
        "role_arn": ROLE,
    }
    with Path("platform.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(platform, file)
    made: dict[str, Stubber] = {}

    def of(service: str) -> Stubber:
        if service not in made:
            keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "a secret"}
            made[service] = Stubber(boto3.client(service, region_name="us-east-1", **keys))
            made[service].activate()
        return made[service]

    monkeypatch.setattr(client, "client", lambda service, attempts=8: of(service).client)
    project.caller.cache_clear()
    of("sts").add_response("get_caller_identity", {"Arn": f"arn:aws:iam::{ACCOUNT}:user/me", "Account": ACCOUNT})
    return of


def role(arn: str) -> dict[str, Any]:
    """Return what IAM tells of a role."""
    name = arn.rpartition("/")[2]
    details = {"Path": "/", "RoleName": name, "RoleId": "AROA0123456789012", "Arn": arn, "CreateDate": "2026-01-01"}
    return {"Role": {**details, "AssumeRolePolicyDocument": "{}"}}


@pytest.mark.parametrize(
    ("principal", "action", "trusted"),
    [
        (SAGEMAKER, "sts:AssumeRole", True),
        (SAGEMAKER, ["sts:TagSession", "sts:AssumeRole"], True),
        (SAGEMAKER, "STS:Assume*", True),
        ({"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}, "*", True),
        ({"Service": "ec2.amazonaws.com"}, "sts:AssumeRole", False),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "sts:AssumeRole", False),
        (SAGEMAKER, "sts:TagSession", False),
    ],
    ids=str,
)
def test_trusts_reads_the_policy_of_a_role(principal: Any, action: Any, trusted: bool) -> None:
    statement = {"Effect": "Allow", "Principal": principal, "Action": action}
    assert project.trusts({"Statement": statement}) is trusted
    assert project.trusts({"Statement": [statement]}) is trusted
    denied = {"Effect": "Deny", "Principal": "*", "Action": "sts:*"}
    assert not project.trusts({"Statement": [statement, denied]})
    assert project.trusts({"Statement": [statement, {**denied, "Condition": {"Bool": {}}}]}) is trusted


def test_role_with_another_path_is_named(aws: Stubs) -> None:
    aws("iam").add_response("get_role", role(f"arn:aws:iam::{ACCOUNT}:role/jobs"), {"RoleName": "jobs"})
    (result,) = project.role()
    assert result == broken(
        f"there is no role {ROLE}, but arn:aws:iam::{ACCOUNT}:role/jobs",
        f"platform.yaml:role_arn: arn:aws:iam::{ACCOUNT}:role/jobs",
    )


def test_role_of_another_account_is_refused(aws: Stubs) -> None:
    other = ROLE.replace(ACCOUNT, "210987654321")
    path = Path("platform.yaml")
    path.write_text(path.read_text(encoding="utf-8").replace(ROLE, other), encoding="utf-8")
    (result,) = project.role()
    assert result == broken(f"{other} is a role of another account than ours, {ACCOUNT}", project.SET_ROLE)


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        (f"arn:aws:iam::{ACCOUNT}:user/teams/me", f"arn:aws:iam::{ACCOUNT}:user/teams/me"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/me", f"arn:aws:sts::{ACCOUNT}:federated-user/me"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/jobs/me@example.org", ROLE),
    ],
    ids=["user", "federated", "role"],
)
def test_principal_is_whose_policies_hold(aws: Stubs, arn: str, principal: str) -> None:
    aws("iam").add_response("get_role", role(ROLE), {"RoleName": "jobs"})
    assert account.principal(arn) == principal


def test_principal_without_a_way_to_ask_is_the_role_without_its_path(aws: Stubs) -> None:
    aws("iam").add_client_error("get_role", "AccessDenied", http_status_code=403)
    arn = f"arn:aws-cn:sts::{ACCOUNT}:assumed-role/jobs/me"
    assert account.principal(arn) == f"arn:aws-cn:iam::{ACCOUNT}:role/jobs"


def test_simulate_tells_a_denial_from_a_condition(aws: Stubs) -> None:
    results: list[dict[str, Any]] = [
        {"EvalActionName": "s3:GetObject", "EvalDecision": "allowed"},
        {"EvalActionName": "s3:PutObject", "EvalDecision": "explicitDeny"},
        {"EvalActionName": "s3:ListBucket", "EvalDecision": "implicitDeny", "MissingContextValues": ["aws:SourceVpce"]},
    ]
    permission = Permission(
        tuple(result["EvalActionName"] for result in results), "arn:aws:s3:::data", {"aws:SecureTransport": "true"}
    )
    context = {"ContextKeyName": "aws:SecureTransport", "ContextKeyType": "boolean", "ContextKeyValues": ["true"]}
    request = {
        "PolicySourceArn": ROLE,
        "ActionNames": list(permission.actions),
        "ResourceArns": [permission.resource],
        "ContextEntries": [context],
    }
    aws("iam").add_response("simulate_principal_policy", {"EvaluationResults": results, "IsTruncated": False}, request)
    denied, unsure = account.simulate(ROLE, "the role", [permission])
    assert (denied.status, denied.message) == (CheckStatus.BROKEN, "the role may not s3:PutObject on arn:aws:s3:::data")
    assert (unsure.status, unsure.fix) == (CheckStatus.UNKNOWN, f"see aws:SourceVpce in the IAM policies of {ROLE}")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"kind": "processing"}, ["ml.m5.xlarge for processing job usage"]),
        ({"kind": "training"}, ["ml.m5.xlarge for training job usage"]),
        ({"kind": "training", "spot": True}, ["ml.m5.xlarge for spot training job usage"]),
        (
            {"kind": "training", "keep_alive_s": 60},
            ["ml.m5.xlarge for training job usage", "ml.m5.xlarge for training warm pool usage"],
        ),
    ],
    ids=["processing", "training", "spot", "warm"],
)
def test_quota_names_are_those_of_aws(settings: dict[str, Any], names: list[str]) -> None:
    assert quota_names(JobSpec(**settings)) == names


@pytest.mark.parametrize(
    ("rest", "parts"),
    [
        ("/team/own:1.2", ("team/own", "1.2", None)),
        (f"/own@sha256:{'a' * 64}", ("own", None, f"sha256:{'a' * 64}")),
        (f".cn/own:1@sha256:{'a' * 64}", ("own", "1", f"sha256:{'a' * 64}")),
        ("/own", ("own", None, None)),
    ],
    ids=["tag", "digest", "both", "neither"],
)
def test_registry_reads_the_address_of_an_image(rest: str, parts: tuple[str | None, ...]) -> None:
    match = REGISTRY.fullmatch(f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com{rest}")
    assert match is not None
    assert match.group("account", "region") == (ACCOUNT, "eu-west-1")
    assert match.group("repository", "tag", "digest") == parts


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (["127.0.0.1", "::1"], "this machine's own"),
        (["10.1.2.3"], "private"),
        (["fe80::1%eth0"], "private"),
        (["8.8.8.8"], "public"),
    ],
    ids=["loopback", "vpc", "link", "internet"],
)
def test_kind_of_says_how_far_an_address_is_known(addresses: list[str], kind: str) -> None:
    assert kind_of(addresses) == kind


@pytest.mark.parametrize(
    ("host", "stage", "network", "expected"),
    [
        ("127.0.0.1", "train", {}, "ok: .*this machine's own: .*can't reach it. Runs are in MLflow when"),
        ("127.0.0.1", "register", {}, "to be mended: .*this machine's own: .*tracking_uri: an address for jobs too"),
        ("10.1.2.3", "register", {}, "to be mended: .*private: .*platform.yaml:job.subnets"),
        ("10.1.2.3", "register", {"subnets": ["subnet-1"], "security_groups": ["sg-1"]}, "ok: .*address is private$"),
        ("8.8.8.8", "register", {}, "ok: .*its address is public$"),
    ],
    ids=["own", "own-needed", "private", "vpc", "public"],
)
def test_reach_of_a_server_that_a_job_needs(
    aws: Stubs, host: str, stage: str, network: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://{host}:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    stages: dict[str, Any] = {name: {"cmd": "true"} for name in ("prepare", "manifest", "train", "register")}
    stages["train"]["outs"], stages["register"]["outs"] = ["reports/run.json"], ["reports/register.json"]
    stages[stage]["meta"] = {"job": {"kind": "training", **network}}
    for name, content in (("dvc.yaml", {"stages": stages}), ("params.yaml", {"train": {}})):
        with Path(name).open("w", encoding="utf-8") as file:
            YAML().dump(content, file)
    Repo.init(no_scm=True).close()
    specs.cache_clear()
    (result,) = reach(uri)
    assert re.match(expected, f"{result.status}: {result.message}{result.fix}")


def check(*results: CheckResult | Exception) -> doctor.Check:
    """Return a check with these results, or one that is interrupted by an error."""

    def run() -> Any:
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result

    return doctor.Check("first", run)


@pytest.mark.parametrize(
    ("first", "statuses"),
    [
        (check(ok("fine")), ["ok", "ok", "ok"]),
        (check(unknown("?", "ask")), ["could not be asked", "ok", "ok"]),
        (check(ok("one"), broken("two", "do")), ["ok", "to be mended", "skipped", "skipped"]),
        (check(ok("one"), ProjectError("two", "do")), ["ok", "to be mended", "skipped", "skipped"]),
        (check(UnavailableError("busy", "later")), ["could not be asked", "ok", "ok"]),
        (check(EndpointConnectionError(endpoint_url="x")), ["could not be asked", "ok", "ok"]),
    ],
    ids=["ok", "unasked", "mend", "error", "away", "network"],
)
def test_examine_skips_only_what_needs_a_thing_that_is_broken(
    monkeypatch: pytest.MonkeyPatch, first: doctor.Check, statuses: list[str]
) -> None:
    second = doctor.Check("second", check(ok("fine")).run, ("first",))
    third = doctor.Check("third", check(ok("fine")).run, ("second",))
    monkeypatch.setattr(doctor, "CHECKS", (first, second, third))
    report = doctor.examine()
    assert [result.status for _, result in report.rows] == statuses
    assert report.is_broken is ("to be mended" in statuses)


def test_table_shows_a_fix_below_what_it_is_for() -> None:
    report = doctor.DoctorReport([("git", ok("fine")), ("role", broken("none", "set one"))])
    assert report.table().splitlines() == [
        "ok            git   fine",
        "to be mended  role  none",
        "                    Fix: set one",
        "",
        "1 ok, 1 to be mended",
    ]

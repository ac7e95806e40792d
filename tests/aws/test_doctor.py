"""`jobs doctor` on an account that is as it should be, and on each thing that is not."""

import json
import re
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ..conftest import BakedProject, isolate, new_project
from ..projects import edit
from ..servers.mlflow import MlflowServer
from ..servers.proxies import HOP, Proxy, Reply, Request

ACCOUNT, REGION = "123456789012", "us-east-1"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
DENIED = {  # part of a user's or role's ARN: what it may not do
    "role/poor": {"s3:PutObject", "logs:PutLogEvents"},
    "user/intern": {"sagemaker:CreateTrainingJob", "iam:PassRole"},
}
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
QUOTAS = {
    "ml.m5.xlarge for training job usage": 4,
    "ml.m5.xlarge for processing job usage": 1,
    "ml.g5.xlarge for training job usage": 0,
    "ml.g5.xlarge for training warm pool usage": 0,
}


class Aws(Proxy):
    """The door of an AWS whose services are moto's.

    Here is what moto does not know: what policies allow, quotas, and a bucket that refuses deletes.
    """

    hop = HOP - {"host"}  # a part of the signature

    def handle(self, request: Request) -> Reply | None:
        """Answer, or let moto do it."""
        form = urllib.parse.parse_qs(request.body.decode("latin-1"))
        if form.get("Action") == ["SimulatePrincipalPolicy"]:
            return _simulated(form)
        if request.headers.get("X-Amz-Target", "").endswith(".ListServiceQuotas"):
            return _quotas(json.loads(request.body))
        if request.method == "DELETE" and request.target.startswith("/keeps/"):
            return _xml(403, "<Error><Code>AccessDenied</Code><Message>nobody deletes</Message></Error>")
        return self.forward(request)


def _xml(status: int, body: str) -> Reply:
    return Reply(status, [("Content-Type", "text/xml")], body.encode())


def _simulated(form: Mapping[str, list[str]]) -> Reply:
    """Answer in two pages."""
    principal, resource = form["PolicySourceArn"][0], form["ResourceArns.member.1"][0]
    if principal.endswith("user/blind"):
        return _xml(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>")
    actions = [value[0] for key, value in form.items() if key.startswith("ActionNames.")]
    first, rest = actions[:1], actions[1:]
    more = bool(rest) and "Marker" not in form
    denied = next((names for part, names in DENIED.items() if part in principal), set())
    results = "".join(
        f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>"
        f"<EvalDecision>{'implicitDeny' if action in denied else 'allowed'}</EvalDecision></member>"
        for action in (first if "Marker" not in form else rest)
    )
    page = f"<IsTruncated>{str(more).lower()}</IsTruncated>{'<Marker>rest</Marker>' if more else ''}"
    body = f"<EvaluationResults>{results}</EvaluationResults>{page}"
    name = "SimulatePrincipalPolicy"
    return _xml(200, f"<{name}Response><{name}Result>{body}</{name}Result></{name}Response>")


def _quotas(content: dict[str, Any]) -> Reply:
    """Answer with one quota in a page."""
    number = int(content.get("NextToken", 0))
    name = list(QUOTAS)[number]
    more = {"NextToken": str(number + 1)} if number + 1 < len(QUOTAS) else {}
    quota = {"QuotaName": name, "QuotaCode": f"L-{number}", "Value": float(QUOTAS[name])}
    return Reply(
        200,
        [("Content-Type", "application/x-amz-json-1.1")],
        json.dumps({"Quotas": [quota], **more}).encode(),
    )


@dataclass(frozen=True)
class Account:
    """An account, and a project that is made for it.

    Args:
        project: To copy.
        variables: By which it is found, without credentials.
        users: Access keys.
        names: What AWS gave names to: the image's digest, a subnet and a security group of one VPC, one of another.
    """

    project: BakedProject
    variables: dict[str, str]
    users: dict[str, dict[str, str]]
    names: dict[str, str]


@pytest.fixture(scope="module")
def moto_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account in which much is as it should be, and the rest is not."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        server.start()
        aws = Aws("http://{}:{}".format(*server.get_host_and_port()))
        variables = {"AWS_ENDPOINT_URL": aws.url, "AWS_EC2_METADATA_DISABLED": "true"}
        for name, value in {**variables, **_key("AKIAADMIN", "of the administrator")}.items():
            monkeypatch.setenv(name, value)
        users, names = _made()
        project = new_project(tmp_path_factory.mktemp("account"), s3_bucket="data", sagemaker_role_arn=_role("jobs"))
        edit(project, "platform.yaml", "image: null", f"image: {REGISTRY}/own@{names['digest']}")
    yield Account(project, variables, users, names)
    aws.close()
    server.stop()


def _key(name: str, secret: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}


def _role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def _made() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Fill an account; return its users' keys, and names."""
    session = boto3.Session(region_name=REGION)
    s3, iam, ecr, ec2, kms = (session.client(name) for name in ("s3", "iam", "ecr", "ec2", "kms"))
    for bucket in ("data", "keeps"):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
    far = {"LocationConstraint": "eu-west-1"}
    session.client("s3", region_name="eu-west-1").create_bucket(Bucket="far", CreateBucketConfiguration=far)
    for role, service in (("jobs", "sagemaker"), ("poor", "sagemaker"), ("machines", "ec2")):
        allowed = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps({"Statement": [allowed]}))
    users = {}
    for user in ("owner", "intern", "blind"):
        iam.create_user(UserName=user)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        users[user] = _key(made["AccessKeyId"], made["SecretAccessKey"])
    ecr.create_repository(repositoryName="own")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "config": {"digest": f"sha256:{'0' * 64}"}}
    pushed = ecr.put_image(repositoryName="own", imageManifest=json.dumps(manifest), imageTag="1")["image"]
    off = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=off)
    subnet = ec2.describe_subnets()["Subnets"][0]
    vpcs = {"group": subnet["VpcId"], "stranger": ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]}
    groups = {
        name: ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        for name, vpc in vpcs.items()
    }
    names = {"digest": pushed["imageId"]["imageDigest"], "off": off, "subnet": subnet["SubnetId"], **groups}
    return users, names


@dataclass(frozen=True)
class Laptop:
    """A copy of the project, on the machine of somebody."""

    project: BakedProject
    names: dict[str, str]

    def change(self, name: str, old: str, new: str) -> None:
        """Replace text in a file; `$subnet` and the like are names of the account."""
        edit(self.project, name, old, Template(new).substitute(self.names))

    def doctor(self) -> tuple[int, list[dict[str, str]]]:
        """Ask it; return its exit code and what it found."""
        done = self.project.run("python", "-m", "mlops", "jobs", "doctor", "--json", check=False)
        assert not done.stderr, done.stderr
        results: list[dict[str, str]] = json.loads(done.stdout)
        return done.returncode, results


@pytest.fixture
def laptop(moto_account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    """One of somebody who may do all."""
    path = tmp_path / moto_account.project.path.name
    shutil.copytree(moto_account.project.path, path)
    _enter(monkeypatch, moto_account, "owner")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))  # what DVC remembers of a remote
    return Laptop(BakedProject(path, moto_account.project.package), moto_account.names)


def _enter(monkeypatch: pytest.MonkeyPatch, account: Account, user: str) -> None:
    for name, value in {**account.variables, **account.users[user]}.items():
        monkeypatch.setenv(name, value)


def has(results: list[dict[str, str]], check: str, standing: str, message: str, fix: str = "") -> bool:
    """Return whether a check found something in these words."""
    return any(
        result["check"] == check
        and result["standing"] == standing
        and re.search(message, result["found"]) is not None
        and re.search(fix, result["fix"]) is not None
        for result in results
    )


def test_doctor_of_a_good_account_finds_all_ok_and_leaves_nothing(laptop: Laptop) -> None:
    code, results = laptop.doctor()
    assert (code, [result["standing"] for result in results]) == (0, ["ok"] * 19)
    messages = {result["check"]: result["found"] for result in results}
    assert messages["credentials"] == f"arn:aws:iam::{ACCOUNT}:user/owner, account {ACCOUNT}"
    assert messages["buckets"] == f"data in {REGION}; older versions are kept, not encrypted"
    assert messages["role"] == f"{_role('jobs')}, which SageMaker may assume"
    assert "1 change(s) of the work tree, which go along" in messages["git"]
    assert boto3.client("s3").list_objects_v2(Bucket="data")["KeyCount"] == 0


def test_doctor_without_credentials_says_how_to_get_them(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _key("", ""):
        monkeypatch.delenv(name)
    code, results = laptop.doctor()
    assert code == 1
    assert has(results, "credentials", "to be mended", "there are no AWS credentials", "aws configure, or AWS_PROFILE=")
    skipped = {result["check"] for result in results if result["found"] == "because of credentials"}
    assert skipped == {"buckets", "keys", "role", "own rights", "image", "quotas", "network"}
    assert has(results, "role's rights", "skipped", "because of role")


BROKEN = {  # what is changed: in which file, and what for what; what is said, and its fix
    "nothing-set": (
        [
            ("platform.yaml", f'role_arn: "{_role("jobs")}"', "role_arn: null"),
            (".dvc/config", "url = s3://data/digit-classifier", "url = /tmp/data"),
            (".dvc/config", f"    region = {REGION}\n", ""),
            ("dvc.yaml", "{kind: training}", "{kind: batch}"),
        ],
        [
            ("role", "no role is set", "make aws-setup, or platform.yaml:role_arn"),
            ("places", r"can't read the DVC remote /tmp/\S+, a folder", r"make aws-setup; or dvc remote add .* s3://"),
            ("jobs", "meta.job.kind is 'batch'", "change dvc.yaml:stages.train.meta.job.kind"),
        ],
    ),
    "wrong-words": (
        [("platform.yaml", f"region: {REGION}", "region: us-est-1"), (".dvc/config", "region =", "regoin =")],
        [
            ("region", "SageMaker is in no region 'us-est-1'", "platform.yaml:region: such as us-(ea|we)st-1"),
            ("places", "DVC can't read its configuration: .*regoin", "correct .dvc/config"),
            ("jobs", "DVC can't read its configuration: .*regoin", "correct .dvc/config"),
        ],
    ),
    "not-there": (
        [
            ("platform.yaml", "role/jobs", "role/nobody"),
            (".dvc/config", "s3://data", "s3://nowhere"),
            ("platform.yaml", "own@", "other@"),
            ("platform.yaml", "subnets: []", "subnets: [subnet-0123]"),
            ("platform.yaml", "security_groups: []", "security_groups: [$group]"),
            ("platform.yaml", "kms_key: null", "kms_key: 00000000-0000-0000-0000-000000000000"),
            ("platform.yaml", "tracking_uri: null", "tracking_uri: http://127.0.0.1:9"),
            ("dvc.yaml", "{kind: training}", "{kind: training, instance_type: ml.g5.xlarge}"),
        ],
        [
            ("role", "there is no role .*role/nobody", "make aws-setup, or platform.yaml:role_arn"),
            ("buckets", "there is no bucket nowhere", f"aws s3 mb s3://nowhere --region {REGION}"),
            ("image", "there is no image .*/other@.*RepositoryNotFound", "make image"),
            ("network", "subnet-0123.* does not exist", "platform.yaml:job.subnets and job.security_groups"),
            ("keys", "there is no key 0000", "platform.yaml:job.kms_key"),
            (
                "MLflow",
                "MLflow at http://127.0.0.1:9 can't be reached: no server answers",
                "platform.yaml:tracking_uri",
            ),
            (
                "quotas",
                "ml.g5.xlarge for training job usage: 0, and 1 are needed",
                r"quotas/L-2, or another instance_type",
            ),
        ],
    ),
    "not-fitting": (
        [
            ("platform.yaml", "role/jobs", "role/machines"),
            ("platform.yaml", "own@", "own:2@"),
            ("platform.yaml", f".ecr.{REGION}.", ".ecr.eu-west-1."),
            ("platform.yaml", "subnets: []", "subnets: [$subnet]"),
            ("platform.yaml", "security_groups: []", "security_groups: [$stranger]"),
            ("platform.yaml", "kms_key: null", "kms_key: $off"),
            ("dvc.yaml", "{kind: training}", "{kind: training, keep_alive_s: 60, instance_type: ml.g5.xlarge}"),
        ],
        [
            ("role", "SageMaker may not assume .*role/machines", "sagemaker.amazonaws.com}, Action: sts:AssumeRole"),
            ("image", "is in another region than the jobs, us-east-1", "make image"),
            ("network", "are of several VPCs: vpc-.*, vpc-", "platform.yaml:job.subnets and job.security_groups"),
            ("keys", "is Disabled", "aws kms enable-key --key-id"),
            ("quotas", "ml.g5.xlarge for training warm pool usage: 0, and 1 are needed", "quotas/L-3"),
        ],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BROKEN.values(), ids=BROKEN)
def test_doctor_of_what_is_broken_tells_the_fix(
    laptop: Laptop, changes: list[tuple[str, str, str]], expected: list[tuple[str, str, str]]
) -> None:
    for name, old, new in changes:
        laptop.change(name, old, new)
    code, results = laptop.doctor()
    assert code == 1
    for check, message, fix in expected:
        assert has(results, check, "to be mended", message, fix), (check, results)
    assert {result["check"] for result in results if result["standing"] == "to be mended"} == {
        check for check, _, _ in expected
    }


def test_doctor_of_who_may_not_enough_tells_what_is_lacking(
    laptop: Laptop, moto_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    _enter(monkeypatch, moto_account, "intern")
    laptop.change("platform.yaml", "role/jobs", "role/poor")
    laptop.change("platform.yaml", f"image: {REGISTRY}/own@{laptop.names['digest']}", "image: null")
    new = Path(laptop.project.package, "stages", "new.py")
    (laptop.project.path / new).write_text("", encoding="utf-8")
    code, results = laptop.doctor()
    assert code == 1
    policies = "allow that in the IAM policies of arn:aws:iam::123456789012"
    data = "arn:aws:s3:::data/digit-classifier"
    assert has(results, "role's rights", "to be mended", rf"the role may not s3:PutObject on {data}/\*$", policies)
    assert has(results, "role's rights", "to be mended", rf"the role may not s3:PutObject on {data}-jobs/\*$", policies)
    assert has(
        results, "role's rights", "to be mended", r"logs:PutLogEvents on \S+/TrainingJobs:", f"{policies}:role/poor"
    )
    assert has(
        results, "own rights", "to be mended", "we may not sagemaker:CreateTrainingJob on", f"{policies}:user/intern"
    )
    assert has(results, "own rights", "to be mended", r"we may not iam:PassRole on \S+role/poor", policies)
    assert not has(results, "own rights", "to be mended", "Processing")
    assert has(results, "image", "to be mended", "framework's image has torch .* environment.json pins", "make image")
    assert has(results, "git", "to be mended", "1 file.* that Git does not track", f"git add {new.as_posix()}")


def test_doctor_that_can_not_ask_says_so_and_is_content(
    laptop: Laptop, moto_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    _enter(monkeypatch, moto_account, "blind")
    laptop.change(".dvc/config", "s3://data", "s3://far")
    laptop.change("platform.yaml", "jobs_uri: null", "jobs_uri: s3://keeps/jobs")
    laptop.change("platform.yaml", f"own@{laptop.names['digest']}", "own:1")
    laptop.change("platform.yaml", "volume_gb: 30", "volume_gb: 30\n  instance_type: ml.x9.large")
    laptop.change("platform.yaml", "  instance_type: ml.m5.xlarge\n", "")
    code, results = laptop.doctor()
    assert code == 0
    denied = "AWS refuses SimulatePrincipalPolicy"
    assert has(results, "own rights", "could not be asked", denied, "somebody who may do SimulatePrincipalPolicy")
    assert has(results, "role's rights", "ok", "the role may do all")
    assert has(results, "quotas", "could not be asked", "no quota 'ml.x9.large for training job usage'", "console.aws")
    assert has(results, "buckets", "ok", f"far in eu-west-1, not in {REGION} as the jobs: slower")
    assert has(results, "probe", "ok", r"but not delete \(AccessDenied\).*s3://keeps/jobs/doctor/\w+ stays")
    assert has(results, "image", "ok", f"the tag may move, so pin it: .*own:1@{laptop.names['digest']}")


@pytest.mark.slow
def test_doctor_of_an_mlflow_that_jobs_need_and_can_not_see(laptop: Laptop, tmp_path: Path) -> None:
    laptop.change("dvc.yaml", "  register:\n", "  register:\n    meta: {job: {kind: processing}}\n")
    server = MlflowServer(tmp_path / "mlflow")
    try:
        laptop.change("platform.yaml", "tracking_uri: null", f"tracking_uri: {server.url}")
        code, results = laptop.doctor()
    finally:
        server.kill()
    assert code == 1
    message = f"{server.url} answers here, but its address is this machine's own: SageMaker's jobs can't reach it"
    assert has(results, "MLflow", "to be mended", message, "platform.yaml:tracking_uri: an address for jobs too")

"""`make aws-setup`: the stack in an account, and the configuration that comes of it. The account is moto's."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.cloudformation.models import CloudFormationBackend, cloudformation_backends
from ruamel.yaml import YAML

from ..conftest import Bake, BakedProject
from .cloudformation import ACCOUNT, serving

STACK = "digit-classifier-sagemaker"
BUCKET = f"digit-classifier-{ACCOUNT}-us-east-1"
ERASER = f"arn:aws:iam::{ACCOUNT}:role/Eraser"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in an empty account, with credentials."""
    with serving(monkeypatch):
        yield


def aws(service: str) -> Any:
    """Return a client of the account."""
    return boto3.client(service, region_name="us-east-1")


def setup(project: BakedProject, *options: str) -> "subprocess.CompletedProcess[str]":
    """Type the verb."""
    return project.run("python", "-m", "mlops", "aws", "setup", *options, check=False)


def platform(project: BakedProject) -> Any:
    """Read `platform.yaml`."""
    return YAML(typ="safe").load((project.path / "platform.yaml").read_text(encoding="utf-8"))


def outputs() -> dict[str, str]:
    """Return the stack's outputs."""
    (stack,) = aws("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def test_setup_new_account_makes_the_stack_and_writes_where_things_are(bake: Bake) -> None:
    project = bake()
    before = (project.path / "platform.yaml").read_text(encoding="utf-8")
    done = setup(project, "--yes")
    assert done.returncode == 0, done.stderr
    assert "Add      AWS::S3::Bucket              Bucket" in done.stdout
    stack_outputs = outputs()
    settings = platform(project)
    assert (settings["region"], settings["role_arn"], settings["job"]["kms_key"], settings["tracking_uri"]) == (
        "us-east-1",
        stack_outputs["JobRoleArn"],
        stack_outputs["KeyArn"],
        None,
    )
    url = f"s3://{BUCKET}/digit-classifier"
    assert project.run("dvc", "remote", "list").stdout.split()[:2] == ["storage", url]
    for level in ("--project", "--local"):
        assert url in project.run("dvc", "config", level, "--list").stdout
    after = (project.path / "platform.yaml").read_text(encoding="utf-8").splitlines()
    changed = [new.partition(":")[0].strip() for old, new in zip(before.splitlines(), after, strict=True) if old != new]
    assert changed == ["role_arn", "kms_key"]
    assert all("#" in line for line in after if line.startswith(("role_arn", "  kms_key"))), "comments stay"
    rule = aws("s3").get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == stack_outputs["KeyArn"]


def test_setup_again_changes_nothing(bake: Bake) -> None:
    project = bake()
    setup(project, "--yes")
    state = project.run("git", "diff").stdout
    again = setup(project, "--yes")
    assert (again.returncode, again.stdout) == (0, "The configuration has it all already\n"), again.stderr
    assert project.run("git", "diff").stdout == state


def test_setup_existing_stack_takes_the_erasure_role_and_keeps_the_rest(bake: Bake) -> None:
    project = bake()
    setup(project, "--yes")
    changed = setup(project, "--yes", "--erasure-role", ERASER)
    assert changed.returncode == 0, changed.stderr
    (stack,) = aws("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    values = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]}
    assert (values["ErasureRoleArn"], values["Prefix"], values["Mlflow"]) == (ERASER, "digit-classifier", "no")
    assert setup(project, "--yes").stdout == "The configuration has it all already\n"


def test_setup_with_mlflow_makes_it_the_tracking_uri(bake: Bake) -> None:
    project = bake()
    done = setup(project, "--yes", "--mlflow")
    assert done.returncode == 0, done.stderr
    assert platform(project)["tracking_uri"] == outputs()["MlflowAppArn"]


def test_setup_with_mlflow_leaves_another_server_where_it_is(bake: Bake) -> None:
    project = bake(mlflow_tracking_uri="https://mlflow.example.com")
    done = setup(project, "--yes", "--mlflow")
    assert platform(project)["tracking_uri"] == "https://mlflow.example.com"
    assert "tracking_uri stays https://mlflow.example.com" in done.stdout


def test_setup_declined_leaves_nothing(bake: Bake) -> None:
    project = bake()
    done = subprocess.run(
        ["python", "-m", "mlops", "aws", "setup"], cwd=project.path, input="n\n", text=True, capture_output=True
    )
    assert done.returncode == 1
    assert "Change the stack digit-classifier-sagemaker so?" in done.stdout
    assert aws("cloudformation").list_stacks()["StackSummaries"][0]["StackStatus"] == "DELETE_COMPLETE"
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_setup_local_remote_says_how_the_data_get_there(bake: Bake) -> None:
    project = bake()
    project.run("dvc", "remote", "add", "--local", "storage", str(project.path / "dvc-storage"))
    assert "Next: dvc push -A, which brings there what was in" in setup(project, "--yes").stdout


@pytest.mark.parametrize("exists", [True, False], ids=["existing", "new"])
def test_setup_remote_in_s3_keeps_its_bucket(bake: Bake, exists: bool) -> None:
    if exists:
        aws("s3").create_bucket(Bucket="my-team-ml")
    done = setup(bake(s3_bucket="my-team-ml"), "--yes")
    assert done.returncode == 0, done.stderr
    assert outputs()["DvcRemoteUrl"] == "s3://my-team-ml/digit-classifier"
    policy = aws("iam").get_policy(PolicyArn=outputs()["DataPolicyArn"])["Policy"]
    version = aws("iam").get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    assert "arn:aws:s3:::my-team-ml/digit-classifier/*" in json.dumps(version["PolicyVersion"]["Document"])


def test_setup_vpc_is_that_of_the_subnets(bake: Bake) -> None:
    project = bake()
    subnet = aws("ec2").describe_subnets()["Subnets"][0]
    path = project.path / "platform.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("subnets: []", f"subnets: [{subnet['SubnetId']}]"))
    done = setup(project, "--yes")
    assert done.returncode == 0, done.stderr
    role = outputs()["JobRoleArn"].rpartition("/")[2]
    document = aws("iam").get_role_policy(RoleName=role, PolicyName="network")["PolicyDocument"]
    assert subnet["VpcId"] in json.dumps(document)


def test_setup_failure_tells_the_reason_and_how_to_go_on(bake: Bake) -> None:
    project = bake()
    aws("s3").create_bucket(Bucket=BUCKET)
    for _ in range(2):  # the second finds the stack that could not be made
        failed = setup(project, "--yes")
        assert failed.returncode == 2
        assert "is in ROLLBACK_COMPLETE" in failed.stderr
        assert "BucketAlreadyExists" in failed.stderr
        delete = f"aws cloudformation delete-stack --stack-name {STACK} --region us-east-1; make aws-setup"
        assert delete in failed.stderr
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_setup_without_credentials_says_how_to_get_some(bake: Bake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    failed = setup(bake(), "--yes")
    assert failed.returncode == 2
    assert "Fix: aws configure" in failed.stderr


def fix_of(failed: "subprocess.CompletedProcess[str]", problem: str) -> str:
    """Return the fix of a verb that failed with a problem."""
    assert (failed.returncode, problem in failed.stderr) == (2, True), failed.stderr
    return failed.stderr.partition("Fix: ")[2].strip()


def test_setup_whole_bucket_as_remote_is_refused_and_the_fix_gives_it_a_folder(bake: Bake) -> None:
    project = bake(s3_bucket="my-team-ml")
    project.run("dvc", "remote", "modify", "storage", "url", "s3://my-team-ml")
    fix = fix_of(setup(project, "--yes"), "the DVC remote is the whole bucket my-team-ml")
    subprocess.run(["sh", "-c", fix], cwd=project.path, check=True)
    done = setup(project, "--yes")
    assert done.returncode == 0, done.stderr
    assert outputs()["DvcRemoteUrl"] == "s3://my-team-ml/digit-classifier"


def test_setup_of_a_stack_for_another_remote_is_refused_and_the_fix_goes_back(bake: Bake) -> None:
    project = bake()
    setup(project, "--yes")
    for level in ("--project", "--local"):
        project.run("dvc", "remote", "modify", level, "storage", "url", "s3://elsewhere/data")
    fix = fix_of(setup(project, "--yes"), "the DVC remote is s3://elsewhere/data, and the stack")
    subprocess.run(["sh", "-c", fix], cwd=project.path, check=True)
    assert setup(project, "--yes").returncode == 0


def test_setup_subnets_of_two_vpcs_are_refused(bake: Bake) -> None:
    project, ec2 = bake(), aws("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    other = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    ours = next(subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"] if subnet["VpcId"] != vpc)
    path = project.path / "platform.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("subnets: []", f"subnets: [{ours}, {other}]"))
    fix = fix_of(setup(project, "--yes"), "the subnets of platform.yaml:job are of several VPCs")
    assert fix == "platform.yaml:job.subnets: of one VPC"
    path.write_text(text.replace("subnets: []", f"subnets: [{ours}]"))
    assert setup(project, "--yes").returncode == 0


def test_setup_erasure_role_of_a_bucket_that_existed_is_refused(bake: Bake) -> None:
    aws("s3").create_bucket(Bucket="my-team-ml")
    project = bake(s3_bucket="my-team-ml")
    fix = fix_of(setup(project, "--yes", "--erasure-role", ERASER), "the bucket my-team-ml existed before")
    assert fix.startswith("leave --erasure-role out")
    assert setup(project, "--yes").returncode == 0


def test_setup_while_the_stack_is_being_changed_says_to_wait(bake: Bake) -> None:
    project = bake()
    setup(project, "--yes")
    (stack,) = cloudformation_backends[ACCOUNT]["us-east-1"].stacks.values()
    stack.status = "UPDATE_IN_PROGRESS"
    fix = fix_of(setup(project, "--yes"), f"the stack {STACK} is being changed: UPDATE_IN_PROGRESS")
    assert fix == "wait for that, then make aws-setup"
    stack.status = "UPDATE_COMPLETE"
    assert setup(project, "--yes").returncode == 0


def test_setup_change_that_fails_leaves_the_stack_and_says_so(bake: Bake) -> None:
    project = bake()
    setup(project, "--yes")
    aws("s3").create_bucket(Bucket="taken-by-others")
    path = project.path / "aws/stack.yaml"
    text = path.read_text(encoding="utf-8")
    more = "Resources:\n  More:\n    Type: AWS::S3::Bucket\n    Properties: {BucketName: taken-by-others}\n"
    path.write_text(text.replace("Resources:\n", more, 1), encoding="utf-8")
    fix = fix_of(setup(project, "--yes"), f"the stack {STACK} is as it was before. ")
    assert fix == "correct that, then make aws-setup"
    path.write_text(text, encoding="utf-8")
    assert setup(project, "--yes").returncode == 0


def test_setup_template_that_cloudformation_refuses_is_told(bake: Bake, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = CloudFormationBackend.describe_change_set

    def refuse(self: Any, change_set_name: str) -> Any:
        change_set = describe(self, change_set_name)
        assert change_set
        change_set.status, change_set.status_reason = "FAILED", "Template error: no such function"
        return change_set

    project = bake()
    with monkeypatch.context() as patch:
        patch.setattr(CloudFormationBackend, "describe_change_set", refuse)
        fix = fix_of(setup(project, "--yes"), "CloudFormation refuses aws/stack.yaml: Template error: no such function")
    assert fix == "correct that, then make aws-setup"
    assert setup(project, "--yes").returncode == 0

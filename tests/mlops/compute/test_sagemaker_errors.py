"""What a person is told when SageMaker, its jobs or their settings fail, and that the fix helps."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from mlops.compute.backend import State
from mlops.compute.sagemaker import client, follow, request
from mlops.compute.sagemaker.backend import SageMaker
from mlops.compute.sagemaker.client import Job
from mlops.compute.worker import FAILURE
from mlops.errors import ProjectError, UnavailableError

PLATFORM = """
project: demo
tracking_uri: null
run_on: local
allow_other_environment: false
region: us-east-1
role_arn: null
"""
NAME = "demo-train-0123456789-1"
ARN = f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{NAME}"
DETAILS: dict[str, Any] = {"TrainingJobName": NAME, "TrainingJobArn": ARN, "InputDataConfig": []}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a `platform.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("platform.yaml").write_text(PLATFORM, encoding="utf-8")
    return tmp_path


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """What SageMaker is asked, and answers."""
    keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "a secret"}
    with Stubber(boto3.client("sagemaker", region_name="us-east-1", **keys)) as stub:
        monkeypatch.setattr(client, "client", lambda service, tries=1: stub.client)
        yield stub


def job(status: str, **details: Any) -> Job:
    """A training job as SageMaker describes it."""
    return Job(NAME, "training", {**DETAILS, "TrainingJobStatus": status, "SecondaryStatus": status, **details})


def unknown(stub: Stubber) -> None:
    """Let SageMaker know no job, of either kind."""
    for operation in ("describe_training_job", "describe_processing_job"):
        stub.add_client_error(operation, "ValidationException", "Requested resource not found.")


def test_region_that_is_not_set_is_named_by_its_key() -> None:
    Path("platform.yaml").write_text(PLATFORM.replace("us-east-1", "null"), encoding="utf-8")
    with pytest.raises(ProjectError, match="no AWS region is set\nFix: platform.yaml:region: such as us-east-1"):
        client.region()
    Path("platform.yaml").write_text(PLATFORM, encoding="utf-8")
    assert client.region() == "us-east-1"


def test_quota_that_is_used_up_says_how_to_get_more(sagemaker: Stubber) -> None:
    limit = "The account-level service limit 'ml.g5.xlarge for training job usage' is 0 Instances"
    sagemaker.add_client_error("list_training_jobs", "ResourceLimitExceeded", limit)
    with pytest.raises(ProjectError, match=r"quota is used up: The account-level .*\nFix: ask for more \(Service Quot"):
        client.names("demo-")


def test_refusal_names_the_command_that_tells_what_is_not_allowed(sagemaker: Stubber) -> None:
    sagemaker.add_client_error("list_training_jobs", "AccessDeniedException", "User me is not authorized")
    with pytest.raises(ProjectError, match="AWS refuses ListTrainingJobs: .*\nFix: python -m mlops jobs doctor tells"):
        client.names("demo-")


def test_throttling_may_be_tried_again(sagemaker: Stubber) -> None:
    sagemaker.add_client_error("list_training_jobs", "ThrottlingException", "Rate exceeded", 400)
    with pytest.raises(UnavailableError, match="AWS is too busy: .*Rate exceeded\nFix: the same command, later"):
        client.names("demo-")


def test_job_that_is_not_there_names_the_command_that_lists_them(sagemaker: Stubber) -> None:
    unknown(sagemaker)
    with pytest.raises(ProjectError, match=r"no job 'x' in us-east-1\nFix: python -m mlops jobs list --all"):
        SageMaker().log_of("x")


def test_job_without_its_description_is_started_anew(sagemaker: Stubber) -> None:
    response: dict[str, Any] = {
        **DETAILS,
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "StoppingCondition": {},
        "CreationTime": datetime.datetime.now(datetime.UTC),
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
        "ResourceConfig": {"VolumeSizeInGB": 1},
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
    }
    s3 = Stubber(boto3.client("s3", region_name="us-east-1", aws_access_key_id="A", aws_secret_access_key="b"))
    s3.add_response("list_objects_v2", {})
    channel = {"ChannelName": "job", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/j/"}}}
    sagemaker.add_response("describe_training_job", {**response, "InputDataConfig": [channel]})
    api = client.client("sagemaker")
    with s3, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(client, "client", lambda service, tries=1: s3.client if service == "s3" else api)
        with pytest.raises(ProjectError, match=f"S3 lacks the description of job {NAME}\nFix: JOB_FRESH=1 dvc repro"):
            SageMaker().describe(NAME)


def test_job_that_vanishes_while_it_is_followed_is_started_anew(sagemaker: Stubber) -> None:
    sagemaker.add_client_error("describe_training_job", "ValidationException", "Requested resource not found.")
    with pytest.raises(ProjectError, match=f"no longer has job {NAME}\nFix: the same command: it starts a new job"):
        follow.follow(job("InProgress"))


@pytest.mark.parametrize(
    ("status", "details", "problem", "fix"),
    [
        ("Failed", {"FailureReason": "CapacityError: none"}, "failed: CapacityError", "the same command, later; or"),
        (
            "Failed",
            {"FailureReason": "ExitCode 137"},
            "failed: ExitCode 137",
            "it ran out of memory, so a larger instance_type in",
        ),
        ("Failed", {"FailureReason": "InternalServerError"}, "failed: Internal", "correct that, then the same command"),
        ("Stopped", {}, "stopped: somebody stopped it", "the same command: it starts a new job"),
        (
            "Stopped",
            {"SecondaryStatus": "MaxRuntimeExceeded"},
            "stopped: MaxRun",
            r"a larger max_runtime_s in meta.job",
        ),
    ],
    ids=lambda value: value.get("FailureReason", "-") if isinstance(value, dict) else "",
)
def test_ended_job_is_told_with_its_reason_and_page(
    monkeypatch: pytest.MonkeyPatch, folder: Path, status: str, details: dict[str, Any], problem: str, fix: str
) -> None:
    monkeypatch.setattr(follow, "read_log", lambda job: ["a line"])
    ended = job(status, **details)
    assert ended.state in (State.FAILED, State.STOPPED)
    error = follow.failure(ended, folder)
    assert problem in error.problem and error.fix.startswith(fix)
    assert f"console.aws.amazon.com/sagemaker/home?region=us-east-1#/jobs/{NAME}" in error.fix


def test_job_that_says_why_it_failed_is_told_by_that(folder: Path) -> None:
    (folder / FAILURE).write_text(json.dumps({"reason": "the text is bad", "fix": "params.yaml:text"}))
    error = follow.failure(job("Failed", FailureReason="AlgorithmError"), folder)
    assert error.problem == f"job {NAME} failed: the text is bad"
    assert error.fix.startswith("params.yaml:text. Its page: https://")


def test_remote_that_jobs_can_t_read_names_commands_that_move_it() -> None:
    with pytest.raises(ProjectError, match="can't read the DVC remote /data, a folder of this machine") as refused:
        request.s3_url({"url": "/data"})
    assert refused.value.fix == (
        "make aws-setup; or dvc remote add -d -f storage s3://<bucket>/<folder> "
        "&& dvc remote modify --local storage url s3://<bucket>/<folder>; then dvc push"
    )
    assert request.s3_url({"url": "s3://b/f"}) == "s3://b/f"

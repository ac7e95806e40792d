"""The SageMaker of the tests: it refuses what SageMaker refuses, runs jobs, and goes wrong when told."""

import itertools
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from ..servers.mlflow import until
from ..servers.s3 import BUCKET
from .conftest import IMAGE, ROLE, Account
from .emulator.service import wait

NUMBERS = itertools.count(1)
INPUT = f"s3://{BUCKET}/of-the-emulator/input/"


@pytest.fixture
def sagemaker(on_laptop: Account) -> Any:
    """A client, and an input for jobs."""
    on_laptop.store.client.put_object(Bucket=BUCKET, Key="of-the-emulator/input/word.txt", Body=b"hello")
    return boto3.client("sagemaker")


def training(script: str, **more: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": INPUT, "S3DataDistributionType": "FullyReplicated"}
    return {
        "TrainingJobName": f"emulated-{next(NUMBERS)}",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "-c", script],
        },
        "InputDataConfig": [{"ChannelName": "words", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/of-the-emulator/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def processing(script: str, **more: Any) -> dict[str, Any]:
    output = {"S3Uri": f"s3://{BUCKET}/of-the-emulator/result", "LocalPath": "/opt/ml/processing/result"}
    return {
        "ProcessingJobName": f"emulated-{next(NUMBERS)}",
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["/bin/bash", "-c", script]},
        "ProcessingInputs": [
            {
                "InputName": "words",
                "S3Input": {
                    "S3Uri": INPUT,
                    "LocalPath": "/opt/ml/processing/input/words",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [{"OutputName": "result", "S3Output": {**output, "S3UploadMode": "EndOfJob"}}]
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
        },
        **more,
    }


def test_training_reads_its_channel_and_its_output_comes_as_one_file(sagemaker: Any, account: Account) -> None:
    asked = training("cat /opt/ml/input/data/words/word.txt; echo x > /opt/ml/output/data/made")
    sagemaker.create_training_job(**asked)
    job = account.sagemaker.jobs[asked["TrainingJobName"]]
    assert wait(job) == "Completed"
    told = sagemaker.describe_training_job(TrainingJobName=job.name)
    assert told["SecondaryStatus"] == "Completed"
    assert told["BillableTimeInSeconds"] >= 0
    phases = [step["Status"] for step in told["SecondaryStatusTransitions"]]
    assert phases == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert f"of-the-emulator/output/{job.name}/output/output.tar.gz" in set(account.store.names())
    logs = boto3.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=job.group, logStreamNamePrefix=f"{job.name}/")["logStreams"]
    events = logs.get_log_events(logGroupName=job.group, logStreamName=stream["logStreamName"])["events"]
    assert "".join(event["message"] for event in events).startswith("hello")


def test_processing_puts_its_output_and_tells_its_message(sagemaker: Any, account: Account) -> None:
    copy = "cp /opt/ml/processing/input/words/word.txt /opt/ml/processing/result/"
    script = f"{copy}; echo too bad > /opt/ml/output/message; exit 3"
    asked = processing(script)
    sagemaker.create_processing_job(**asked)
    assert wait(account.sagemaker.jobs[asked["ProcessingJobName"]]) == "Failed"
    told = sagemaker.describe_processing_job(ProcessingJobName=asked["ProcessingJobName"])
    assert told["ExitMessage"] == "too bad"
    assert told["FailureReason"] == "AlgorithmError: too bad, exit code: 3"
    assert "of-the-emulator/result/word.txt" in set(account.store.names())


def test_job_sees_nothing_of_the_laptop(sagemaker: Any, account: Account, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    asked = training(f"test ! -e {tmp_path} && ! env | grep -q SECRET && test $$ = 1")
    sagemaker.create_training_job(**asked)
    assert wait(account.sagemaker.jobs[asked["TrainingJobName"]]) == "Completed"


def test_stopped_job_gets_a_signal_and_ends_as_it_likes(sagemaker: Any, account: Account) -> None:
    asked = training("trap 'echo bye > /opt/ml/output/data/made; exit' TERM; while true; do sleep 0.1; done")
    sagemaker.create_training_job(**asked)
    job = account.sagemaker.jobs[asked["TrainingJobName"]]
    until(lambda: job.phase == "Training")
    sagemaker.stop_training_job(TrainingJobName=job.name)
    assert wait(job) == "Stopped"
    assert f"of-the-emulator/output/{job.name}/output/output.tar.gz" in set(account.store.names())


def test_job_that_takes_too_long_is_stopped(sagemaker: Any, account: Account) -> None:
    asked = training("exec sleep 100", StoppingCondition={"MaxRuntimeInSeconds": 1})
    account.sagemaker.grace_s, before = 0.5, account.sagemaker.grace_s
    sagemaker.create_training_job(**asked)
    job = account.sagemaker.jobs[asked["TrainingJobName"]]
    assert wait(job) == "Stopped"
    account.sagemaker.grace_s = before
    assert job.phase == "MaxRuntimeExceeded"


def test_interrupted_job_starts_again_with_its_checkpoints_and_another_log(sagemaker: Any, account: Account) -> None:
    first = "touch /opt/ml/checkpoints/one; trap exit TERM; while true; do sleep 0.1; done"
    script = f"ls /opt/ml/checkpoints | grep one || {{ {first}; }}"
    asked = training(
        script,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/of-the-emulator/kept", "LocalPath": "/opt/ml/checkpoints"},
    )
    sagemaker.create_training_job(**asked)
    job = account.sagemaker.jobs[asked["TrainingJobName"]]
    until(lambda: "of-the-emulator/kept/one" in set(account.store.names()))
    job.interrupted.set()
    assert wait(job) == "Completed"
    assert job.starts == 2


def test_job_of_a_name_that_is_taken_is_refused(sagemaker: Any) -> None:
    asked = training("true")
    sagemaker.create_training_job(**asked)
    with pytest.raises(ClientError, match="ResourceInUse"):
        sagemaker.create_training_job(**asked)


SPOT = {"EnableManagedSpotTraining": True}
RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"TrainingJobName": "bad_name"}, "failed to satisfy constraint"),
        ({"TrainingJobName": "x" * 64}, "64 is outside"),
        ({"RoleArn": "a role that is no ARN at all"}, "failed to satisfy constraint: .*role"),
        ({"ResourceConfig": {**RESOURCES, "InstanceType": "ml.banana"}}, "none of the known values"),
        ({"Environment": {"A": "x" * 513}}, "513 is outside"),
        ({"Environment": {f"A{n}": "x" for n in range(101)}}, "101 is outside"),
        ({"Tags": [{"Key": "k" * 129, "Value": ""}]}, "129 is outside"),
        ({"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]}, "51 is outside"),
        ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "aws: prefixed"),
        ({"Tags": [{"Key": "x", "Value": ""}] * 2}, "unique"),
        (SPOT, "MaxWaitTimeInSeconds must be present"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}}, "spot training only"),
        (
            {**SPOT, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 30}},
            "equal to or greater than",
        ),
        (
            {**SPOT, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 7200}},
            "at most 3600",
        ),
        (
            {
                **SPOT,
                "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
                "ResourceConfig": {**RESOURCES, "KeepAlivePeriodInSeconds": 60},
            },
            "warm pool",
        ),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "needs TrainingImage"),
        ({"ResourceConfig": {"VolumeSizeInGB": 10}}, "needs InstanceType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_request_that_sagemaker_refuses_is_refused(sagemaker: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match=said):
        sagemaker.create_training_job(**training("true", **more))


@pytest.mark.parametrize(("fault", "error"), [("throttle", ClientError), ("drop", ConnectionClosedError)])
def test_fault_hits_as_often_as_it_was_told(account: Account, on_laptop: Account, fault: str, error: type) -> None:
    from botocore.config import Config

    impatient = boto3.client("sagemaker", config=Config(retries={"total_max_attempts": 1}))
    account.sagemaker.breaks(fault, "ListTrainingJobs")
    with pytest.raises(error):
        impatient.list_training_jobs()
    impatient.list_training_jobs()

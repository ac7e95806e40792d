"""What SageMaker is asked for: botocore's own model of its API must take it."""

from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import validate_parameters
from mlops.compute.sagemaker.request import create_request, jobs_uri
from mlops.errors import ProjectError
from ruamel.yaml import YAML

PLATFORM: dict[str, Any] = {
    "project": "demo",
    "tracking_uri": None,
    "run_on": "sagemaker",
    "allow_other_environment": False,
    "region": "eu-west-1",
    "role_arn": "arn:aws:iam::123456789012:role/jobs",
    "jobs_uri": "s3://bucket/demo-jobs/",
}


@pytest.fixture(autouse=True)
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RUN_ON", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    jobs_uri.cache_clear()
    write()


def write(**platform: Any) -> None:
    with Path("platform.yaml").open("w", encoding="utf-8") as file:
        YAML().dump({**PLATFORM, **platform}, file)


def validated(kind: str, **spec: Any) -> dict[str, Any]:
    """Return the request for a job, which botocore's model takes."""
    description = {
        "name": "demo-train-0123456789ab-1",
        "stage": "train",
        "spec": {"kind": kind, **spec},
        "origin": {"commit": "00", "run": "11"},
        "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/demo@sha256:00",
    }
    jobs = "s3://bucket/demo-jobs"
    made = create_request(
        description, {"code": f"{jobs}/code/00/", "job": f"{jobs}/jobs/demo-train-0123456789ab-1/00/"}
    )
    model = botocore.session.get_session().get_service_model("sagemaker")
    noun = {"training": "TrainingJob", "processing": "ProcessingJob"}[kind]
    shape = model.operation_model(f"Create{noun}").input_shape
    validate_parameters(made, shape)
    assert made.keys() <= shape.members.keys()
    return made


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_request_both_kinds_run_the_same(kind: str) -> None:
    made = validated(kind)
    specification = made["AlgorithmSpecification" if kind == "training" else "AppSpecification"]
    shell, option, script = specification["ContainerEntrypoint"]
    assert (shell, option) == ("/bin/bash", "-c")
    assert script.split("; ")[-1].startswith("exec python -m mlops jobs contain /opt/ml/")
    assert made["Environment"]["RUN_ON"] == "local"
    assert made["Environment"]["STAGE_JOB"].endswith("/job/job.json")
    names = {"project": "demo", "stage": "train"}
    assert {tag["Key"]: tag["Value"] for tag in made["Tags"]} == {**names, "commit": "00", "run": "11"}
    assert "VpcConfig" not in made
    assert "NetworkConfig" not in made


def test_request_spot_has_checkpoints() -> None:
    made = validated("training", spot=True, max_runtime_s=100, max_wait_s=200)
    assert made["EnableManagedSpotTraining"]
    assert made["StoppingCondition"] == {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 200}
    uri = "s3://bucket/demo-jobs/checkpoints/demo-train-0123456789ab-1"
    assert made["CheckpointConfig"] == {"S3Uri": uri, "LocalPath": made["Environment"]["CHECKPOINT_DIR"]}


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_request_key_and_network_are_where_each_kind_has_them(kind: str) -> None:
    made = validated(kind, kms_key="alias/demo", subnets=["subnet-1"], security_groups=["sg-1"])
    vpc = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    if kind == "training":
        assert made["VpcConfig"] == vpc
        assert made["OutputDataConfig"]["KmsKeyId"] == made["ResourceConfig"]["VolumeKmsKeyId"] == "alias/demo"
    else:
        assert made["NetworkConfig"] == {"VpcConfig": vpc}
        machines = made["ProcessingResources"]["ClusterConfig"]
        assert made["ProcessingOutputConfig"]["KmsKeyId"] == machines["VolumeKmsKeyId"] == "alias/demo"


def test_request_extra_goes_into_what_is_there() -> None:
    more = {"ResourceConfig": {"KeepAlivePeriodInSeconds": 60}, "RetryStrategy": {"MaximumRetryAttempts": 1}}
    made = validated("training", extra=more)
    assert made["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 60
    assert made["ResourceConfig"]["InstanceType"] == "ml.m5.xlarge"
    assert made["RetryStrategy"] == {"MaximumRetryAttempts": 1}


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("arn:aws:sagemaker:eu-west-1:123456789012:mlflow-app/app-1", True),
        ("https://mlflow.example.org", True),
        ("https://me:secret@mlflow.example.org", False),
        ("sqlite:////tmp/mlflow.db", False),
    ],
    ids=["arn", "server", "with a password", "file"],
)
def test_request_tells_of_an_mlflow_that_the_job_can_see(uri: str, seen: bool) -> None:
    write(tracking_uri=uri)
    assert (validated("training")["Environment"].get("MLFLOW_TRACKING_URI") == uri) is seen


def test_request_without_a_role_says_what_sets_it() -> None:
    write(role_arn=None)
    with pytest.raises(ProjectError, match=r"no role[\s\S]*platform.yaml:role_arn"):
        validated("training")

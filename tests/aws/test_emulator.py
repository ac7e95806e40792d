"""The emulator itself: jobs that really run, requests that AWS would refuse, and what goes wrong when told."""

import itertools
import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from ..servers.mlflow import until
from ..servers.s3 import BUCKET, REGION
from .bed import APP, IMAGE, ROLE, Bed
from .emulator.control import PATH
from .emulator.credentials import ACCOUNT
from .emulator.faults import CAPACITY
from .emulator.jobs import Job
from .emulator.rules import RULES

Json = dict[str, Any]

ONCE: Json = {"retries": {"total_max_attempts": 1}}
NUMBERS = itertools.count()
MACHINES = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
SPOT: Json = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90},
}
WAIT = "sleep 60 & wait"  # the shell hears signals meanwhile


def training(script: str = "true", **more: Any) -> Json:
    """Return a request."""
    return {
        "TrainingJobName": f"t-{next(NUMBERS)}",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "-c", script],
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/results"},
        "ResourceConfig": MACHINES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def processing(script: str = "true", **more: Any) -> Json:
    """Return a request."""
    return {
        "ProcessingJobName": f"p-{next(NUMBERS)}",
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["/bin/bash", "-c", script]},
        "ProcessingResources": {"ClusterConfig": MACHINES},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def source(path: str, **more: str) -> Json:
    """Return a processing input."""
    fields = {"S3Uri": f"s3://{BUCKET}/in/", "S3DataType": "S3Prefix", "S3InputMode": "File", "LocalPath": path, **more}
    return {"InputName": "in", "S3Input": {name: value for name, value in fields.items() if value}}


def target(path: str, name: str) -> Json:
    """Return a processing output."""
    uri = f"s3://{BUCKET}/out/{name}"
    return {"OutputName": "out", "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": "EndOfJob"}}


def start(aws: Bed, request: Json) -> str:
    """Create a job, and return its name."""
    sagemaker = aws.client("sagemaker")
    if "TrainingJobName" in request:
        sagemaker.create_training_job(**request)
        return str(request["TrainingJobName"])
    sagemaker.create_processing_job(**request)
    return str(request["ProcessingJobName"])


def run(aws: Bed, request: Json) -> Job:
    """Create a job, wait for its end, and return it."""
    return aws.wait(start(aws, request))


def refusal(ask: Callable[[], Any]) -> str:
    """Return the error of a call."""
    with pytest.raises(ClientError) as caught:
        ask()
    return f"{caught.value.response['Error']['Code']}: {caught.value.response['Error']['Message']}"


def printed(aws: Bed, name: str, text: str) -> None:
    """Wait until a job has printed something."""
    until(lambda: name in aws.jobs and text in aws.log_of(aws.jobs[name]), poll_s=0.02)


# Jobs


def test_training_completes_with_output_model_log_and_times(aws: Bed) -> None:
    aws.store.client.put_object(Bucket=BUCKET, Key="in/a/b.txt", Body=b"an input")
    script = (
        "cat /opt/ml/input/data/code/a/b.txt; echo; cat /opt/ml/input/config/hyperparameters.json; "
        "echo 1 > /opt/ml/output/data/metrics; echo 2 > /opt/ml/model/weights"
    )
    data = {"S3DataSource": {"S3Uri": f"s3://{BUCKET}/in/", "S3DataType": "S3Prefix"}}
    channels = [{"ChannelName": "code", "DataSource": data}]
    tags = [{"Key": "project", "Value": "a project"}]
    request = training(script, InputDataConfig=channels, HyperParameters={"lr": "0.1"}, Tags=tags)
    job = run(aws, request)
    assert aws.log_of(job) == ["an input", '{"lr": "0.1"}']
    assert aws.objects(f"results/{job.name}/output/").keys() == {"output.tar.gz", "model.tar.gz"}
    sagemaker = aws.client("sagemaker")
    details = sagemaker.describe_training_job(TrainingJobName=job.name)
    assert details["TrainingJobStatus"] == details["SecondaryStatus"] == "Completed"
    steps = [transition["Status"] for transition in details["SecondaryStatusTransitions"]]
    assert [step for step, _ in itertools.groupby(steps)] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert details["BillableTimeInSeconds"] == details["TrainingTimeInSeconds"] > 0
    assert details["ModelArtifacts"]["S3ModelArtifacts"].endswith(f"{job.name}/output/model.tar.gz")
    assert "FailureReason" not in details
    assert sagemaker.list_tags(ResourceArn=details["TrainingJobArn"])["Tags"] == tags


def test_processing_completes_with_inputs_outputs_and_message(aws: Bed) -> None:
    aws.store.client.put_object(Bucket=BUCKET, Key="in/a/b.txt", Body=b"an input")
    script = (
        "cp -r /opt/ml/processing/in/a /opt/ml/processing/out; ln -s /etc/passwd /opt/ml/processing/out/link; "
        "echo -n 'all is well' > /opt/ml/output/message"
    )
    outputs = {"Outputs": [target("/opt/ml/processing/out", "well")]}
    request = processing(script, ProcessingInputs=[source("/opt/ml/processing/in")], ProcessingOutputConfig=outputs)
    job = run(aws, request)
    assert aws.objects("out/well/") == {"a/b.txt": b"an input"}
    details = aws.client("sagemaker").describe_processing_job(ProcessingJobName=job.name)
    assert details["ProcessingJobStatus"] == "Completed"
    assert details["ExitMessage"] == "all is well"
    assert details["ProcessingEndTime"] > details["ProcessingStartTime"]


def test_job_sees_no_credential_no_project_and_no_process_of_the_laptop(
    aws: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-laptop")
    (tmp_path / "credentials").write_text("of-the-laptop")
    looks = (f"cat {tmp_path}/credentials", f"ls {Path.cwd()}/tests", "env", "cat /proc/[0-9]*/comm | wc -l")
    log = aws.log_of(run(aws, processing("; ".join(looks))))
    assert [line.rpartition(": ")[2] for line in log[:2]] == ["No such file or directory"] * 2
    assert not [line for line in log if "of-the-laptop" in line or "AWS_SECRET" in line or "PYTEST" in line]
    assert int(log[-1]) <= 3  # itself, `cat` and `wc`


def test_what_a_job_installs_is_gone_with_it(aws: Bed) -> None:
    installs = "touch $(dirname $(which python))/installed && echo ok; touch /etc/x"
    log = aws.log_of(run(aws, processing(installs)))
    assert log == ["ok", "touch: cannot touch '/etc/x': Read-only file system"]
    assert not (Path(sys.executable).parent / "installed").exists()
    assert aws.log_of(run(aws, processing("ls $(dirname $(which python)) | grep -c installed"))) == ["0"]


def test_job_has_credentials_of_its_role_that_end(aws: Bed) -> None:
    script = (
        "import boto3; s = boto3.Session(region_name='eu-west-1'); "
        "print(s.client('sts').get_caller_identity()['Arn']); print(s.get_credentials().token != '');"
        f"s.client('s3').put_object(Bucket='{BUCKET}', Key='by a/job+.txt', Body=b'1')"
    )
    request = processing()
    request["AppSpecification"]["ContainerEntrypoint"] = ["python", "-c", script]
    job = run(aws, request)
    assert aws.log_of(job) == [f"arn:aws:sts::{ACCOUNT}:assumed-role/sagemaker-jobs/SageMaker", "True"]
    assert aws.objects("by a/") == {"job+.txt": b"1"}


def test_training_that_fails_says_what_it_wrote_and_keeps_its_output(aws: Bed) -> None:
    script = "echo 1 > /opt/ml/output/data/a; echo 1 > /opt/ml/model/a; echo 'no data' > /opt/ml/output/failure; exit 3"
    job = run(aws, training(script))
    details = aws.client("sagemaker").describe_training_job(TrainingJobName=job.name)
    assert details["TrainingJobStatus"] == "Failed"
    assert details["FailureReason"] == "AlgorithmError: no data, exit code: 3"
    assert aws.objects(f"results/{job.name}/output/").keys() == {"output.tar.gz"}


def test_processing_that_fails_has_its_message_as_exit_message(aws: Bed) -> None:
    job = run(aws, processing("echo -n 'no data' > /opt/ml/output/message; exit 3"))
    details = aws.client("sagemaker").describe_processing_job(ProcessingJobName=job.name)
    assert (details["ProcessingJobStatus"], details["ExitMessage"]) == ("Failed", "no data")
    assert details["FailureReason"] == "AlgorithmError: , exit code: 3"


def test_message_that_is_no_text_fails_the_job(aws: Bed) -> None:
    job = run(aws, processing(r"printf '\xff\xfe' > /opt/ml/output/message"))
    assert (job.status, job.failure) == ("Failed", "ClientError: /opt/ml/output/message is not UTF-8")


def test_input_that_is_not_there_fails_the_job(aws: Bed) -> None:
    inputs = [source("/opt/ml/processing/in", S3Uri=f"s3://{BUCKET}/nothing/")]
    job = run(aws, processing(ProcessingInputs=inputs))
    assert job.status == "Failed"
    assert f"No S3 objects found under S3 URL 's3://{BUCKET}/nothing/'" in job.failure


def test_unknown_image_fails_the_job(aws: Bed) -> None:
    request = processing()
    request["AppSpecification"]["ImageUri"] = f"999999999999.dkr.ecr.{REGION}.amazonaws.com/nothing:1"
    job = run(aws, request)
    assert job.failure.startswith("ClientError: Cannot find repository: nothing in registry ID: 999999999999")


@pytest.mark.parametrize(
    ("request_of", "signal"), [(training, "TERM"), (processing, "INT")], ids=["training", "processing"]
)
def test_stop_asks_first_and_keeps_what_the_job_saves(aws: Bed, request_of: Callable[..., Json], signal: str) -> None:
    name = start(aws, request_of(f"trap 'echo saved; exit 1' {signal}; echo ready; {WAIT}"))
    printed(aws, name, "ready")
    _stop(aws, name)
    job = aws.wait(name)
    assert (job.status, job.failure) == ("Stopped", "")
    assert aws.log_of(job) == ["ready", "saved"]
    assert "Stopping" in [transition["Status"] for transition in job.history.transitions]


def test_stop_kills_what_does_not_listen(aws: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws.server.account, "grace_s", 0.5)
    name = start(aws, training(f"trap '' TERM; echo ready; {WAIT}"))
    printed(aws, name, "ready")
    _stop(aws, name)
    assert aws.wait(name).status == "Stopped"


def _stop(aws: Bed, name: str) -> None:
    sagemaker = aws.client("sagemaker")
    if name.startswith("t"):
        sagemaker.stop_training_job(TrainingJobName=name)
    else:
        sagemaker.stop_processing_job(ProcessingJobName=name)


def test_too_long_a_training_is_stopped(aws: Bed) -> None:
    job = run(aws, training(f"trap exit TERM; {WAIT}", StoppingCondition={"MaxRuntimeInSeconds": 1}))
    assert (job.status, job.history.secondary) == ("Stopped", "MaxRuntimeExceeded")


def test_spot_that_gets_no_machine_in_time_is_stopped(aws: Bed) -> None:
    aws.faults.capacity = "wait"
    short = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}
    job = run(aws, training(**{**SPOT, "StoppingCondition": short}))
    assert (job.status, job.history.secondary) == ("Stopped", "MaxWaitTimeExceeded")
    assert aws.objects(f"results/{job.name}") == {}


def test_spot_interruption_goes_on_from_the_checkpoint_in_a_second_stream(aws: Bed) -> None:
    script = f"cd /opt/ml/checkpoints; if [ -e a ]; then echo again; else echo 1 > a; echo first; {WAIT}; fi"
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints/spot"}
    name = start(aws, training(script, CheckpointConfig=checkpoints, **SPOT))
    until(lambda: aws.objects("checkpoints/spot/"), poll_s=0.05)
    aws.jobs[name].interrupt()
    job = aws.wait(name)
    assert (job.status, job.attempts) == ("Completed", 2)
    assert aws.log_of(job) == ["first", "again"]
    streams = aws.server.logs.describe_streams({"logGroupName": job.log_group, "logStreamNamePrefix": f"{name}/"})
    assert len(streams["logStreams"]) == 2
    assert "Interrupted" in [transition["Status"] for transition in job.history.transitions]
    details = job.describe()
    assert details["BillableTimeInSeconds"] < details["TrainingTimeInSeconds"]


def test_network_isolation_leaves_no_network(aws: Bed) -> None:
    address = aws.server.url.removeprefix("http://").replace(":", "/")
    look = f"(: > /dev/tcp/{address}) 2> /dev/null && echo there || echo cut off"
    assert aws.log_of(run(aws, training(look))) == ["there"]
    assert aws.log_of(run(aws, training(look, EnableNetworkIsolation=True))) == ["cut off"]


def test_jobs_are_listed_in_pages_the_newest_first(aws: Bed) -> None:
    names = [start(aws, training(TrainingJobName=f"many-{number}")) for number in range(12)]
    pages = list(aws.client("sagemaker").get_paginator("list_training_jobs").paginate(NameContains="many-"))
    assert [len(page["TrainingJobSummaries"]) for page in pages] == [10, 2]
    listed = [row["TrainingJobName"] for page in pages for row in page["TrainingJobSummaries"]]
    assert listed == names[::-1]
    for name in names:
        aws.wait(name)
    completed = aws.client("sagemaker").list_training_jobs(NameContains="many-", StatusEquals="Failed")
    assert completed["TrainingJobSummaries"] == []


# Requests that are refused


def test_name_in_use_is_refused(aws: Bed) -> None:
    request = training()
    run(aws, request)
    assert refusal(lambda: start(aws, request)).startswith("ResourceInUse: Training job names must be unique")


def test_unknown_jobs_are_told_as_aws_tells_them(aws: Bed) -> None:
    sagemaker = aws.client("sagemaker")
    error = refusal(lambda: sagemaker.describe_training_job(TrainingJobName="none"))
    assert error == "ValidationException: Requested resource not found."
    error = refusal(lambda: sagemaker.describe_processing_job(ProcessingJobName="none"))
    assert error == "ValidationException: Could not find requested job with name: none"


def test_ended_job_is_not_stopped(aws: Bed) -> None:
    job = run(aws, training())
    assert "is in status Completed" in refusal(lambda: _stop(aws, job.name))


def test_role_that_does_not_trust_sagemaker_is_refused(aws: Bed) -> None:
    assert "Could not assume role" in refusal(lambda: start(aws, training(RoleArn=f"{ROLE}-of-nobody")))


def test_used_up_quota_is_refused(aws: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(aws.server.quotas.limits, "ml.m5.xlarge for processing job usage", 0)
    error = refusal(lambda: start(aws, processing()))
    assert error.startswith("ResourceLimitExceeded: The account-level service limit 'ml.m5.xlarge for processing job")
    quotas = aws.client("service-quotas").list_service_quotas(ServiceCode="sagemaker")["Quotas"]
    (quota,) = [quota for quota in quotas if quota["QuotaName"] == "ml.m5.xlarge for processing job usage"]
    response = aws.client("service-quotas").get_service_quota(ServiceCode="sagemaker", QuotaCode=quota["QuotaCode"])
    assert response["Quota"]["Value"] == 0


def test_several_instances_are_not_emulated(aws: Bed) -> None:
    error = refusal(lambda: start(aws, training(ResourceConfig={**MACHINES, "InstanceCount": 2})))
    assert error == "NotEmulated: not emulated: several instances"


MODEL = {
    "name-characters": (training(TrainingJobName="a_b"), "trainingJobName"),
    "name-length": (training(TrainingJobName="a" * 64), "trainingJobName"),
    "instance-type": (
        training(ResourceConfig={**MACHINES, "InstanceType": "ml.banana"}),
        "resourceConfig.instanceType",
    ),
    "keep-alive": (
        training(ResourceConfig={**MACHINES, "KeepAlivePeriodInSeconds": 21_601}),
        "resourceConfig.keepAlivePeriodInSeconds",
    ),
    "role": (training(RoleArn="arn:aws:iam::1:user/somebody"), "roleArn"),
    "hyperparameter": (training(HyperParameters={"a": "b" * 2501}), "hyperParameters.a.member"),
    "training-variable": (training(Environment={"A": "b" * 513}), "environment.A.member"),
    "variable-name": (training(Environment={"a-b": "c"}), "environment"),
    "training-variables": (training(Environment={f"A{number}": "" for number in range(101)}), "environment"),
    "processing-variable": (processing(Environment={"A": "b" * 257}), "environment.A.member"),
    "entrypoint": (processing("a" * 257), "appSpecification.containerEntrypoint.3.member"),
    "tags": (training(Tags=[{"Key": f"k{number}", "Value": ""} for number in range(51)]), "tags"),
    "tag-key": (training(Tags=[{"Key": "k" * 129, "Value": ""}]), "tags.1.member.key"),
    "tag-value": (training(Tags=[{"Key": "k", "Value": "v" * 257}]), "tags.1.member.value"),
    "tag-characters": (training(Tags=[{"Key": "a*b", "Value": ""}]), "tags.1.member.key"),
    "processing-volume": (
        processing(ProcessingResources={"ClusterConfig": {**MACHINES, "VolumeSizeInGB": 16_385}}),
        "processingResources.clusterConfig.volumeSizeInGB",
    ),
    "subnets": (
        training(VpcConfig={"Subnets": [f"subnet-{number}" for number in range(17)], "SecurityGroupIds": ["sg-1"]}),
        "vpcConfig.subnets",
    ),
    "s3-uri": (training(OutputDataConfig={"S3OutputPath": "/a/folder"}), "outputDataConfig.s3OutputPath"),
}


@pytest.mark.parametrize(("request_", "where"), MODEL.values(), ids=MODEL)
def test_request_outside_the_model_is_refused(aws: Bed, request_: Json, where: str) -> None:
    error = refusal(lambda: start(aws, request_))
    assert re.match(r"ValidationException: [12] validation errors? detected: Value ", error)
    assert f"at '{where}'" in error


ECR = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
ALGORITHM = training()["AlgorithmSpecification"]
PRIVATE = {"TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"}, "TrainingImage": "registry.example.org/a:1"}
PREFERENCES = {"InstancePreferences": [{"InstanceType": "ml.m5.xlarge"}], "VolumeSizeInGB": 30}
GROUP = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "InstanceGroupName": "a"}
BROKEN = {
    "Invalid MaxWaitTimeInSeconds": training(
        **{**SPOT, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}}
    ),
    "MaxWaitTimeInSeconds is for managed": training(StoppingCondition=SPOT["StoppingCondition"]),
    "MaxRuntimeInSeconds must be": training(StoppingCondition={"MaxRuntimeInSeconds": 28 * 86_400 + 1}),
    "KeepAlivePeriodInSeconds is not supported with managed": training(
        ResourceConfig={**MACHINES, "KeepAlivePeriodInSeconds": 60}, **SPOT
    ),
    "KeepAlivePeriodInSeconds is not supported with InstanceGroups": training(
        ResourceConfig={"InstanceGroups": [GROUP], "VolumeSizeInGB": 30, "KeepAlivePeriodInSeconds": 60}
    ),
    "InstancePreferences can't": training(ResourceConfig={**PREFERENCES, **MACHINES}),
    "SelectedInstanceType": processing(
        ProcessingResources={"ClusterConfig": {**MACHINES, "SelectedInstanceType": "ml.m5.xlarge"}}
    ),
    "VolumeSizeInGB must": training(ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}),
    "VolumeKmsKeyId can't": training(
        ResourceConfig={**MACHINES, "InstanceType": "ml.g4dn.xlarge", "VolumeKmsKeyId": "a-key"}
    ),
    "Exactly one of": training(AlgorithmSpecification={**ALGORITHM, "AlgorithmName": "a"}),
    "The image must be given": training(AlgorithmSpecification={**ALGORITHM, "TrainingImage": f"{ECR}/a@latest"}),
    "The image must be in": training(AlgorithmSpecification={**ALGORITHM, "TrainingImage": "docker.io/a/b:1"}),
    "An image of another registry": training(AlgorithmSpecification={**ALGORITHM, **PRIVATE}),
    "Tag keys must be unique": training(Tags=[{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]),
    "Tag keys must not": processing(Tags=[{"Key": "AWS:a", "Value": "1"}]),
    "LocalPath must begin": processing(ProcessingInputs=[source("/opt/ml/in")]),
    "LocalPath is required": processing(ProcessingInputs=[source("")]),
    "Each LocalPath": processing(
        ProcessingInputs=[source("/opt/ml/processing/a"), source("/opt/ml/processing/a/") | {"InputName": "b"}]
    ),
    "S3CompressionType Gzip": processing(
        ProcessingInputs=[source("/opt/ml/processing/a", S3CompressionType="Gzip")],
    ),
}


@pytest.mark.parametrize(("text", "request_"), BROKEN.items(), ids=BROKEN)
def test_request_that_breaks_a_rule_is_refused(aws: Bed, text: str, request_: Json) -> None:
    assert refusal(lambda: start(aws, request_)).startswith(f"ValidationException: {text}")


def test_each_rule_is_tested_and_has_a_source() -> None:
    assert [rule.text for rule in RULES if not any(rule.text.startswith(text) for text in BROKEN)] == []
    assert all(rule.source.startswith("https://") for rule in RULES)


def test_keys_networks_and_pools_are_taken(aws: Bed) -> None:
    vpc = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    machines = {**MACHINES, "VolumeKmsKeyId": "a-key", "KeepAlivePeriodInSeconds": 60}
    output = {"S3OutputPath": f"s3://{BUCKET}/results", "KmsKeyId": "a-key"}
    job = run(aws, training(VpcConfig=vpc, ResourceConfig=machines, OutputDataConfig=output))
    details = aws.client("sagemaker").describe_training_job(TrainingJobName=job.name)
    assert details["WarmPoolStatus"]["Status"] == "Available"
    assert details["VpcConfig"] == vpc


# What goes wrong


def test_throttled_calls_are_counted_and_asked_again(aws: Bed) -> None:
    aws.faults.throttle("ListTrainingJobs", times=2)
    assert aws.client("sagemaker").list_training_jobs(MaxResults=1)
    assert aws.calls["ListTrainingJobs"] == 3


def test_lost_reply_has_done_the_call(aws: Bed) -> None:
    aws.faults.drop("CreateTrainingJob", times=1, after=True)
    request = training()
    assert refusal(lambda: start(aws, request)).startswith("ResourceInUse")  # at the second try
    assert aws.wait(request["TrainingJobName"]).status == "Completed"


def test_lost_requests_end_in_a_connection_error(aws: Bed) -> None:
    aws.faults.drop("ListTrainingJobs")
    with pytest.raises(ConnectionClosedError):
        aws.client("sagemaker", **ONCE).list_training_jobs()


def test_lines_come_late_and_a_stream_may_not_come_at_all(aws: Bed) -> None:
    aws.faults.log_delay_s = 3600
    late = run(aws, training("echo hi"))
    assert aws.log_of(late) == []
    aws.faults.heal()
    aws.faults.without_stream = 1
    assert aws.log_of(run(aws, training("echo hi"))) == []
    assert aws.log_of(run(aws, training("echo hi"))) == ["hi"]


def test_log_is_read_on_by_token(aws: Bed) -> None:
    job = run(aws, training("for i in 1 2 3; do echo $i; done"))
    logs = aws.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=job.log_group, logStreamNamePrefix=f"{job.name}/")["logStreams"]
    ask = {"logGroupName": job.log_group, "logStreamName": stream["logStreamName"], "startFromHead": True}
    first = logs.get_log_events(**ask, limit=2)
    then = logs.get_log_events(**ask, nextToken=first["nextForwardToken"])
    last = logs.get_log_events(**ask, nextToken=then["nextForwardToken"])
    assert [event["message"] for event in first["events"] + then["events"]] == ["1", "2", "3"]
    assert last["events"] == []
    assert last["nextForwardToken"] == then["nextForwardToken"]


def test_no_machines_fail_a_job(aws: Bed) -> None:
    aws.faults.capacity = "none"
    job = run(aws, training())
    assert (job.status, job.failure) == ("Failed", CAPACITY)


def test_job_waits_for_a_machine_until_there_is_one(aws: Bed) -> None:
    aws.faults.capacity = "wait"
    name = start(aws, training())
    until(lambda: "Insufficient capacity" in aws.jobs[name].history.transitions[-1]["StatusMessage"], poll_s=0.02)
    assert aws.jobs[name].status == "InProgress"
    aws.faults.capacity = "yes"
    assert aws.wait(name).status == "Completed"


def test_killed_job_fails_as_one_without_memory(aws: Bed) -> None:
    name = start(aws, training(f"echo ready; {WAIT}"))
    printed(aws, name, "ready")
    aws.jobs[name].kill()
    assert aws.wait(name).failure == "AlgorithmError: , exit code: 137"


def test_expired_credentials_are_refused_everywhere(aws: Bed) -> None:
    key = aws.credentials.key
    aws.credentials.expire(key)
    assert refusal(aws.client("sagemaker").list_training_jobs).startswith("ExpiredTokenException")
    assert refusal(aws.client("sts").get_caller_identity).startswith("ExpiredToken")
    assert refusal(lambda: aws.client("s3").list_objects_v2(Bucket=BUCKET)).startswith("ExpiredToken")
    aws.heal()
    assert aws.client("sts").get_caller_identity()["Arn"].endswith("user/developer")


def test_credentials_of_a_job_that_ended_are_not_given_again(aws: Bed) -> None:
    request = urllib.request.Request(f"{aws.server.url}{PATH}/credentials", headers={"Authorization": "a guess"})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)  # noqa: S310


def test_session_of_a_job_ends(aws: Bed) -> None:
    token = aws.credentials.admit(ROLE)
    request = urllib.request.Request(f"{aws.server.url}{PATH}/credentials", headers={"Authorization": token})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        given = json.load(answer)
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["Token"],
    }
    store = boto3.client("s3", region_name=REGION, endpoint_url=aws.door.url, **keys)
    store.put_object(Bucket=BUCKET, Key="a", Body=b"1")
    other = boto3.client("s3", region_name=REGION, endpoint_url=aws.door.url, **keys | {"aws_session_token": "a guess"})
    assert refusal(lambda: other.put_object(Bucket=BUCKET, Key="a")).startswith("InvalidToken")
    aws.credentials.expire()
    assert refusal(lambda: store.put_object(Bucket=BUCKET, Key="a")).startswith("ExpiredToken")
    assert aws.client("s3").list_objects_v2(Bucket=BUCKET)["Name"] == BUCKET


def test_busy_s3_is_asked_again(aws: Bed) -> None:
    aws.faults.slow_down = 2
    assert aws.client("s3").list_objects_v2(Bucket=BUCKET)["Name"] == BUCKET
    aws.faults.slow_down = 1
    assert refusal(lambda: aws.client("s3", **ONCE).list_objects_v2(Bucket=BUCKET)).startswith("SlowDown")


def test_denied_actions_are_simulated_and_denied(aws: Bed) -> None:
    aws.faults.denied |= {"s3:PutObject", "sagemaker:ListTrainingJobs"}
    request = {"PolicySourceArn": ROLE, "ActionNames": ["s3:GetObject", "s3:PutObject"]}
    results = aws.client("iam").simulate_principal_policy(**request)["EvaluationResults"]
    assert {result["EvalActionName"]: result["EvalDecision"] for result in results} == {
        "s3:GetObject": "allowed",
        "s3:PutObject": "implicitDeny",
    }
    assert refusal(lambda: aws.client("s3").put_object(Bucket=BUCKET, Key="a")).startswith("AccessDenied")
    assert refusal(aws.client("sagemaker").list_training_jobs).startswith("AccessDeniedException")


def test_image_is_in_the_registry(aws: Bed) -> None:
    repository, _, tag = IMAGE.partition("/")[2].partition(":")
    request = {"repositoryName": repository, "imageIds": [{"imageTag": tag}]}
    assert aws.client("ecr").describe_images(**request)["imageDetails"][0]["imageTags"] == [tag]


def test_mlflow_app_is_told_of(aws: Bed) -> None:
    aws.server.apps.add(APP, "sandbox", f"s3://{BUCKET}/mlflow", ROLE)
    sagemaker = aws.client("sagemaker")
    assert sagemaker.describe_mlflow_app(Arn=APP)["Status"] == "Created"
    assert [app["Arn"] for app in sagemaker.list_mlflow_apps()["Summaries"]] == [APP]
    assert refusal(lambda: sagemaker.describe_mlflow_app(Arn=f"{APP}2")).startswith("ResourceNotFound")


def test_what_moto_lacks_is_told(aws: Bed) -> None:
    error = refusal(
        lambda: aws.client("sagemaker").stop_pipeline_execution(PipelineExecutionArn="a", ClientRequestToken="a" * 32)
    )
    assert error.startswith("NotEmulated: not emulated: sagemaker StopPipelineExecution")


@pytest.fixture
def control(aws: Bed) -> Iterator[Callable[..., Any]]:
    """Give a function that sets switches as who runs the emulator by hand does."""

    def ask(what: str, **arguments: Any) -> Any:
        body = json.dumps(arguments).encode()
        request = urllib.request.Request(f"{aws.server.url}{PATH}/{what}", body, method="POST")  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)

    yield ask


def test_switches_can_be_set_from_outside(aws: Bed, control: Callable[..., Any]) -> None:
    control("throttle", action="ListTrainingJobs", times=1)
    control("set", log_delay_s=5)
    aws.client("sagemaker").list_training_jobs()
    assert aws.calls["ListTrainingJobs"] == 2
    assert aws.faults.log_delay_s == 5
    control("heal")
    name = start(aws, training(f"echo ready; {WAIT}"))
    printed(aws, name, "ready")
    control("kill", job=name)
    assert aws.wait(name).status == "Failed"
    with urllib.request.urlopen(f"{aws.server.url}{PATH}/calls") as answer:  # noqa: S310
        assert json.load(answer)["CreateTrainingJob"] == 1

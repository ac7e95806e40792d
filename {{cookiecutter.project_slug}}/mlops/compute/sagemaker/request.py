"""The Create request of a job (`python -m mlops jobs dry-run train`), and where its files are in S3.

Both kinds of jobs get two input folders, with the code and with the job's description, a command and an output folder.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html and
API_CreateProcessingJob.html
"""

import functools
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from ...tracking import mlflow_client
from ...tracking.dvc_remote import use_url
from ...tracking.git import without_credentials
from ..backend import CODE, DESCRIPTION
from ..spec import JobSpec
from ..transfer import S3, public_remote
from .image import install_command

INPUTS = {"training": "/opt/ml/input/data", "processing": "/opt/ml/processing/input"}
OUT = {"training": "/opt/ml/output/data", "processing": "/opt/ml/processing/result"}
WORK = "/opt/ml/code"
RESULTS = "results"  # the folder below `jobs_uri`
CHECKPOINTS = "/opt/ml/checkpoints"


@functools.cache
def jobs_uri() -> str:
    """Return where the files of jobs are: `platform.yaml:jobs_uri`, or beside the DVC remote."""
    return (load_platform().jobs_uri or f"{s3_url(public_remote()).rstrip('/')}-jobs").rstrip("/")


def s3_url(remote: dict[str, str]) -> str:
    """Return the address of a DVC remote, given its options, or raise a `ProjectError` when it is not in S3."""
    if remote["url"].startswith(S3):
        return remote["url"]
    problem = f"SageMaker's jobs can't read the DVC remote {remote['url']}, a folder of this machine"
    raise ProjectError(problem, f"make aws-setup; or {use_url('s3://<bucket>/<folder>')}; then dvc push")


def results_uri(kind: str, name: str) -> str:
    """Return where in S3 SageMaker puts the output folder of a job."""
    return f"{jobs_uri()}/{RESULTS}/{name}" + ("/output" if kind == "training" else "")


def role_arn() -> str:
    """Return the role of jobs, or raise a `ProjectError` when `platform.yaml` sets none."""
    if role := load_platform().role_arn:
        return role
    raise ProjectError("no role is set for SageMaker's jobs", "make aws-setup, or platform.yaml:role_arn: an ARN")


def create_request(description: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of SageMaker's Create call; `inputs` has the S3 addresses of `code` and `job`."""
    from dvc.config import merge

    spec, context = JobSpec(**description["spec"]), description["origin"]
    create = _training if spec.kind == "training" else _processing
    # `exec` makes Python the process that SageMaker's signals reach.
    unpack = f"set -e; mkdir -p {WORK}; tar -xzf {INPUTS[spec.kind]}/code/{CODE} -C {WORK}; cd {WORK}"
    run = f"exec python -m mlops jobs contain {INPUTS[spec.kind]}/job/{DESCRIPTION} {OUT[spec.kind]}"
    script = "; ".join(step for step in (unpack, install_command(description["image"]), run) if step)
    tags = {"project": load_platform().project, "stage": description["stage"]}
    tags |= {"commit": context["commit"], "run": context["run"], **spec.tags}
    fields = {
        **create(description, spec, inputs, ["/bin/bash", "-c", script]),
        "StoppingCondition": {
            "MaxRuntimeInSeconds": spec.max_runtime_s,
            "MaxWaitTimeInSeconds": spec.max_wait_s if spec.spot else None,
        },
        "RoleArn": role_arn(),
        "Environment": _environment(spec),
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    request = _without_unset(fields)
    merge(request, spec.extra)
    return request


def _training(job: dict[str, Any], spec: JobSpec, inputs: dict[str, str], entrypoint: list[str]) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated"}
    checkpoints = {"S3Uri": f"{jobs_uri()}/checkpoints/{job['name']}", "LocalPath": CHECKPOINTS}
    return {
        "TrainingJobName": job["name"],
        "AlgorithmSpecification": {
            "TrainingImage": job["image"],
            "TrainingInputMode": "File",
            "ContainerEntrypoint": entrypoint,
        },
        "InputDataConfig": [
            {"ChannelName": channel, "DataSource": {"S3DataSource": {**source, "S3Uri": uri}}}
            for channel, uri in inputs.items()
        ],
        "OutputDataConfig": {"S3OutputPath": f"{jobs_uri()}/{RESULTS}", "KmsKeyId": spec.kms_key},
        "ResourceConfig": {**_machines(spec), "KeepAlivePeriodInSeconds": spec.keep_alive_s or None},
        "VpcConfig": {"Subnets": spec.subnets, "SecurityGroupIds": spec.security_groups},
        "EnableManagedSpotTraining": spec.spot or None,
        "CheckpointConfig": checkpoints if spec.spot else None,
    }


def _processing(job: dict[str, Any], spec: JobSpec, inputs: dict[str, str], entrypoint: list[str]) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3InputMode": "File"}
    output = {"S3Uri": results_uri(spec.kind, job["name"]), "LocalPath": OUT[spec.kind], "S3UploadMode": "EndOfJob"}
    return {
        "ProcessingJobName": job["name"],
        "AppSpecification": {"ImageUri": job["image"], "ContainerEntrypoint": entrypoint},
        "ProcessingInputs": [
            {"InputName": folder, "S3Input": {**source, "S3Uri": uri, "LocalPath": f"{INPUTS[spec.kind]}/{folder}"}}
            for folder, uri in inputs.items()
        ],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "result", "S3Output": output}], "KmsKeyId": spec.kms_key},
        "ProcessingResources": {"ClusterConfig": _machines(spec)},
        "NetworkConfig": {"VpcConfig": {"Subnets": spec.subnets, "SecurityGroupIds": spec.security_groups}},
    }


def _machines(spec: JobSpec) -> dict[str, Any]:
    machines = {"InstanceType": spec.instance_type, "InstanceCount": spec.instance_count}
    return {**machines, "VolumeSizeInGB": spec.volume_gb, "VolumeKmsKeyId": spec.kms_key}


def _environment(spec: JobSpec) -> dict[str, str]:
    """Return the job's environment variables; no secret is among them."""
    platform = load_platform()
    region, uri = platform.region or "", platform.tracking_uri or ""
    is_usable = mlflow_client.is_remote(uri) and without_credentials(uri) == uri
    return {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
        "TQDM_MININTERVAL": "10",  # seconds between two lines of a progress bar: CloudWatch keeps each
        **({"MLFLOW_TRACKING_URI": uri} if is_usable else {}),
        **({"CHECKPOINT_DIR": CHECKPOINTS} if spec.spot else {}),
        **spec.environment,
        "RUN_ON": "local",
        "STAGE_JOB": f"{INPUTS[spec.kind]}/job/{DESCRIPTION}",
    }


def _without_unset(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a request without the fields that are None or empty, at any depth."""
    filled = {name: _without_unset(value) if isinstance(value, dict) else value for name, value in fields.items()}
    return {name: value for name, value in filled.items() if value not in (None, {}, [])}

"""The Create request of a job, and where its files are in S3.

    python -m mlops jobs dry-run train

Both kinds of jobs get the same: two input folders, with the code and with the job's description; one command; one
output folder.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html and
API_CreateProcessingJob.html
"""

import functools
from dataclasses import dataclass
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from ...tracking import mlflow_client
from ...tracking.git import without_credentials
from ..spec import JobSpec
from ..transfer import S3, public_remote

CODE, DESCRIPTION = "code.tar.gz", "job.json"  # one in each of the two input folders
INPUTS = {"training": "/opt/ml/input/data", "processing": "/opt/ml/processing/input"}
OUT = {"training": "/opt/ml/output/data", "processing": "/opt/ml/processing/result"}
WORK = "/opt/ml/code"
CHECKPOINTS = "/opt/ml/checkpoints"


@dataclass(frozen=True)
class JobRequest:
    """A job to start."""

    name: str
    stage: str
    spec: JobSpec
    code: str  # address of the folder in S3
    description: str  # address of the folder in S3
    image: str
    install: str  # shell command that installs packages which the image lacks; "" for none
    tags: dict[str, str]

    @property
    def inputs(self) -> dict[str, str]:
        """Return the addresses of its input folders by name."""
        return {"code": self.code, "job": self.description}


@functools.cache
def jobs_uri() -> str:
    """Return where the files of jobs are: `platform.yaml:jobs_uri`, or beside the DVC remote.

    Raises:
        ProjectError: The DVC remote is not in S3.
    """
    return (load_platform().jobs_uri or f"{s3_url(public_remote()).rstrip('/')}-jobs").rstrip("/")


def s3_url(remote: dict[str, str]) -> str:
    """Return the address of a DVC remote, given its options.

    Raises:
        ProjectError: It is not in S3.
    """
    if not remote["url"].startswith(S3):
        raise ProjectError(
            f"SageMaker's jobs can't read the DVC remote {remote['url']}, a folder of this machine",
            "make aws-setup, or dvc remote add -d -f storage s3://…; then dvc push",
        )
    return remote["url"]


def results_uri(kind: str, name: str) -> str:
    """Return where in S3 SageMaker puts the output folder of a job."""
    return f"{jobs_uri()}/results/{name}" + ("/output" if kind == "training" else "")


def role_arn() -> str:
    """Return the role of jobs.

    Raises:
        ProjectError: `platform.yaml` sets none.
    """
    role = load_platform().role_arn
    if not role:
        raise ProjectError("no role is set for SageMaker's jobs", "make aws-setup, or platform.yaml:role_arn: an ARN")
    return role


def create_request(job: JobRequest) -> dict[str, Any]:
    """Return the arguments of SageMaker's Create call.

    Raises:
        ProjectError: No role is set.
    """
    fields = _training(job) if job.spec.kind == "training" else _processing(job)
    tags = {"project": load_platform().project, "stage": job.stage, **job.tags, **job.spec.tags}
    fields |= {
        "RoleArn": role_arn(),
        "Environment": _environment(job),
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    return _merge({name: value for name, value in fields.items() if value}, job.spec.extra)


def _training(job: JobRequest) -> dict[str, Any]:
    spec = job.spec
    source = {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated"}
    fields: dict[str, Any] = {
        "TrainingJobName": job.name,
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": _entrypoint(job),
        },
        "InputDataConfig": [
            {"ChannelName": name, "DataSource": {"S3DataSource": {**source, "S3Uri": uri}}}
            for name, uri in job.inputs.items()
        ],
        "OutputDataConfig": {"S3OutputPath": f"{jobs_uri()}/results", **_key("KmsKeyId", spec)},
        "ResourceConfig": _machines(spec),
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "VpcConfig": _vpc(spec),
    }
    if spec.keep_alive_s:
        fields["ResourceConfig"]["KeepAlivePeriodInSeconds"] = spec.keep_alive_s
    if spec.spot:
        fields["EnableManagedSpotTraining"] = True
        fields["StoppingCondition"]["MaxWaitTimeInSeconds"] = spec.max_wait_s
        fields["CheckpointConfig"] = {"S3Uri": f"{jobs_uri()}/checkpoints/{job.name}", "LocalPath": CHECKPOINTS}
    return fields


def _processing(job: JobRequest) -> dict[str, Any]:
    spec, kind = job.spec, "processing"
    source = {"S3DataType": "S3Prefix", "S3InputMode": "File"}
    output = {"S3Uri": results_uri(kind, job.name), "LocalPath": OUT[kind], "S3UploadMode": "EndOfJob"}
    return {
        "ProcessingJobName": job.name,
        "AppSpecification": {"ImageUri": job.image, "ContainerEntrypoint": _entrypoint(job)},
        "ProcessingInputs": [
            {"InputName": name, "S3Input": {**source, "S3Uri": uri, "LocalPath": f"{INPUTS[kind]}/{name}"}}
            for name, uri in job.inputs.items()
        ],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "result", "S3Output": output}], **_key("KmsKeyId", spec)},
        "ProcessingResources": {"ClusterConfig": _machines(spec)},
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "NetworkConfig": {"VpcConfig": _vpc(spec)} if spec.subnets else {},
    }


def _machines(spec: JobSpec) -> dict[str, Any]:
    machines = {"InstanceType": spec.instance_type, "InstanceCount": spec.instance_count}
    return {**machines, "VolumeSizeInGB": spec.volume_gb, **_key("VolumeKmsKeyId", spec)}


def _key(field: str, spec: JobSpec) -> dict[str, str]:
    return {field: spec.kms_key} if spec.kms_key else {}


def _vpc(spec: JobSpec) -> dict[str, Any]:
    return {"Subnets": spec.subnets, "SecurityGroupIds": spec.security_groups} if spec.subnets else {}


def _entrypoint(job: JobRequest) -> list[str]:
    """Return the container's command; `exec` makes Python the process that SageMaker's signals reach."""
    inputs = INPUTS[job.spec.kind]
    unpack = f"set -e; mkdir -p {WORK}; tar -xzf {inputs}/code/{CODE} -C {WORK}; cd {WORK}"
    run = f"exec python -m mlops jobs contain {inputs}/job/{DESCRIPTION} {OUT[job.spec.kind]}"
    return ["/bin/bash", "-c", "; ".join(step for step in (unpack, job.install, run) if step)]


def _environment(job: JobRequest) -> dict[str, str]:
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
        **({"CHECKPOINT_DIR": CHECKPOINTS} if job.spec.spot else {}),
        **job.spec.environment,
        "RUN_ON": "local",
        "STAGE_JOB": f"{INPUTS[job.spec.kind]}/job/{DESCRIPTION}",
    }


def _merge(request: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return a request with more fields; a dict is merged into the dict of the same name."""
    merged = {**request, **extra}
    for key in request.keys() & extra.keys():
        if isinstance(request[key], dict) and isinstance(extra[key], dict):
            merged[key] = _merge(request[key], extra[key])
    return merged

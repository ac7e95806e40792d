"""What SageMaker is asked for: the Create request of a job.

    python -m mlops jobs dry-run train

Both kinds of jobs get the same: two folders, with the code and with what the job is told; one command; one folder for
what is handed back.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html and
API_CreateProcessingJob.html
"""

from dataclasses import dataclass
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from ...tracking import mlflow_client
from ...tracking.git import without_credentials
from ..spec import JobSpec
from . import storage

CODE, DESCRIPTION = "code.tar.gz", "job.json"  # one in each of the two folders
INPUTS = {"training": "/opt/ml/input/data", "processing": "/opt/ml/processing/input"}
OUT = {"training": "/opt/ml/output/data", "processing": "/opt/ml/processing/result"}
WORK = "/opt/ml/code"
CHECKPOINTS = "/opt/ml/checkpoints"


@dataclass(frozen=True)
class JobRequest:
    """A job that is to be started.

    Args:
        name: Of the job.
        stage: That it runs.
        spec: How it is asked for.
        code: Address of the folder with the code in S3.
        description: Of the one with what the job is told.
        image: Of the container.
        install: Shell command that brings packages which the image lacks; "" for none.
        tags: More tags.
    """

    name: str
    stage: str
    spec: JobSpec
    code: str
    description: str
    image: str
    install: str
    tags: dict[str, str]


def results_uri(kind: str, name: str) -> str:
    """Return where in S3 SageMaker puts what a job hands back."""
    return f"{storage.jobs_uri()}/results/{name}" + ("/output" if kind == "training" else "")


def role_arn() -> str:
    """Return the role of jobs.

    Raises:
        ProjectError: None is set.
    """
    found = load_platform().role_arn
    if not found:
        raise ProjectError("no role is set for SageMaker's jobs", "make aws-setup, or platform.yaml:role_arn: an ARN")
    return found


def request(asked: JobRequest) -> dict[str, Any]:
    """Return the request.

    Raises:
        ProjectError: No role is set.
    """
    own = _training(asked) if asked.spec.kind == "training" else _processing(asked)
    tags = {"project": load_platform().project, "stage": asked.stage, **asked.tags, **asked.spec.tags}
    common = {
        "RoleArn": role_arn(),
        "Environment": _environment(asked),
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    return _merged({**own, **common}, asked.spec.extra)


def _training(asked: JobRequest) -> dict[str, Any]:
    spec = asked.spec
    made: dict[str, Any] = {
        "TrainingJobName": asked.name,
        "AlgorithmSpecification": {
            "TrainingImage": asked.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": _entrypoint(asked),
        },
        "InputDataConfig": [
            {
                "ChannelName": name,
                "DataSource": {"S3DataSource": {**_source(uri), "S3DataDistributionType": "FullyReplicated"}},
            }
            for name, uri in _inputs(asked)
        ],
        "OutputDataConfig": {"S3OutputPath": f"{storage.jobs_uri()}/results", **_key("KmsKeyId", spec)},
        "ResourceConfig": {
            **_machines(spec),
            **({"KeepAlivePeriodInSeconds": spec.keep_alive_s} if spec.keep_alive_s else {}),
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "VpcConfig": _vpc(spec),
    }
    if spec.spot:
        made["EnableManagedSpotTraining"] = True
        made["StoppingCondition"]["MaxWaitTimeInSeconds"] = spec.max_wait_s
        uri = f"{storage.jobs_uri()}/checkpoints/{asked.name}"
        made["CheckpointConfig"] = {"S3Uri": uri, "LocalPath": CHECKPOINTS}
    return {name: value for name, value in made.items() if value}


def _processing(asked: JobRequest) -> dict[str, Any]:
    spec = asked.spec
    result = {
        "S3Uri": results_uri("processing", asked.name),
        "LocalPath": OUT["processing"],
        "S3UploadMode": "EndOfJob",
    }
    made = {
        "ProcessingJobName": asked.name,
        "AppSpecification": {"ImageUri": asked.image, "ContainerEntrypoint": _entrypoint(asked)},
        "ProcessingInputs": [
            {
                "InputName": name,
                "S3Input": {**_source(uri), "LocalPath": f"{INPUTS['processing']}/{name}", "S3InputMode": "File"},
            }
            for name, uri in _inputs(asked)
        ],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "result", "S3Output": result}], **_key("KmsKeyId", spec)},
        "ProcessingResources": {"ClusterConfig": _machines(spec)},
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "NetworkConfig": {"VpcConfig": _vpc(spec)} if spec.subnets else {},
    }
    return {name: value for name, value in made.items() if value}


def _inputs(asked: JobRequest) -> list[tuple[str, str]]:
    return [("code", asked.code), ("job", asked.description)]


def _source(uri: str) -> dict[str, str]:
    return {"S3DataType": "S3Prefix", "S3Uri": uri}


def _machines(spec: JobSpec) -> dict[str, Any]:
    count = {"InstanceType": spec.instance_type, "InstanceCount": spec.instance_count}
    return {**count, "VolumeSizeInGB": spec.volume_gb, **_key("VolumeKmsKeyId", spec)}


def _key(field: str, spec: JobSpec) -> dict[str, str]:
    return {field: spec.kms_key} if spec.kms_key else {}


def _vpc(spec: JobSpec) -> dict[str, Any]:
    return {"Subnets": spec.subnets, "SecurityGroupIds": spec.security_groups} if spec.subnets else {}


def _entrypoint(asked: JobRequest) -> list[str]:
    """Return the command; `exec` makes Python the process that SageMaker's signals reach."""
    place = INPUTS[asked.spec.kind]
    steps = [
        "set -e",
        f"mkdir -p {WORK}",
        f"tar -xzf {place}/code/{CODE} -C {WORK}",
        f"cd {WORK}",
        *([asked.install] if asked.install else []),
        f"exec python -m mlops jobs contain {place}/job/{DESCRIPTION} {OUT[asked.spec.kind]}",
    ]
    return ["/bin/bash", "-c", "; ".join(steps)]


def _environment(asked: JobRequest) -> dict[str, str]:
    """Return the variables of the job: where things are, and no secret."""
    platform, region = load_platform(), load_platform().region or ""
    uri = platform.tracking_uri or ""
    seen = {"MLFLOW_TRACKING_URI": uri} if mlflow_client.is_remote(uri) and without_credentials(uri) == uri else {}
    return {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
        "TQDM_MININTERVAL": "10",  # seconds between two lines of a progress bar: CloudWatch keeps each
        **seen,
        **({"CHECKPOINT_DIR": CHECKPOINTS} if asked.spec.spot else {}),
        **asked.spec.environment,
        "RUN_ON": "local",
        "STAGE_JOB": f"{INPUTS[asked.spec.kind]}/job/{DESCRIPTION}",
    }


def _merged(made: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return a request with more fields; those within fields go into them."""
    both = {
        key: _merged(made[key], extra[key])
        for key in extra
        if isinstance(made.get(key), dict) and isinstance(extra[key], dict)
    }
    return {**made, **extra, **both}

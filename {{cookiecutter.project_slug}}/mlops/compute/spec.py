"""How the job of a stage is asked for: `meta.job` in `dvc.yaml`, and `platform.yaml:job` for what that leaves open.

None of it is part of what a stage is. DVC does not look at `meta`, so a change of it runs nothing again.
"""

import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import pipeline
from ..config import StrictModel, check, load_platform, read_params
from ..errors import ProjectError
from ..tracking import mlflow_client

Text = Annotated[str, Field(min_length=1)]
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")  # of a server; they stay here


class JobSpec(StrictModel):
    """What a job gets. SageMaker's names and units.

    Args:
        kind: Which of SageMaker's two kinds of jobs.
        instance_type: Such as ml.m5.xlarge.
        instance_count: Machines; more than one only for a training that `train.processes` spreads over them.
        volume_gb: Disk of each machine, GB.
        image: Address of the container image; null for the framework's own.
        spot: Whether it may be interrupted, for a lower price; only `train`, which goes on from its last checkpoint.
        max_runtime_s: After so many seconds it is stopped.
        max_wait_s: So long a job that may be interrupted waits for machines, and runs, together; seconds.
        keep_alive_s: So long the machine is kept for the next job, seconds.
        kms_key: Encrypts the disks of the machines and what goes to S3: a key's ARN or id; null for AWS's own.
        subnets: Where in a VPC the machines are; with security_groups.
        security_groups: Theirs.
        tags: Of the job, for bills.
        environment: More environment variables of the job. Git keeps this file: no secrets.
        extra: More fields of SageMaker's request, as they are.
        patience_s: So long a job tries again when the DVC remote is away, seconds.
    """

    kind: Literal["processing", "training"]
    instance_type: Text = "ml.m5.xlarge"
    instance_count: int = Field(default=1, ge=1, le=100)
    volume_gb: int = Field(default=30, ge=1, le=16_384)
    image: Text | None = None
    spot: bool = False
    max_runtime_s: int = Field(default=3600, ge=1, le=2_419_200)
    max_wait_s: int = Field(default=7200, ge=1, le=2_419_200)
    keep_alive_s: int = Field(default=0, ge=0, le=3600)
    kms_key: Text | None = None
    subnets: list[Text] = Field(default_factory=list, max_length=16)
    security_groups: list[Text] = Field(default_factory=list, max_length=5)
    tags: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    extra: dict[str, Any] = Field(default_factory=dict)
    patience_s: int = Field(default=900, ge=0, le=86_400)


def job_stages() -> list[str]:
    """Return the stages that can run as jobs, in the pipeline's order."""
    return [name for name, stage in pipeline.load_stages().items() if stage.job is not None]


def spec_of(stage: str) -> JobSpec:
    """Return how the job of a stage is asked for.

    Raises:
        ProjectError: A key is unknown or out of its range, or the settings can't work together.
    """
    defaults, own = load_platform().job, pipeline.load_stage(stage).job or {}
    check("platform.yaml", "job", {"kind": "training", **defaults}, JobSpec)
    spec = check("dvc.yaml", f"stages.{stage}.meta.job", {**defaults, **own}, JobSpec)
    for problem, fix in (*_without_mlflow(stage), *_at_odds(stage, spec)):
        raise ProjectError(f"{stage} can't run as a job: {problem}", fix)
    return spec


def needs_mlflow(stage: str) -> bool:
    """Return whether a stage asks MLflow for something that it can't do without."""
    loaded = pipeline.load_stage(stage)
    return loaded.is_registering or (loaded.is_training and bool(_train_params().get("init_from")))


def _without_mlflow(stage: str) -> Iterator[tuple[str, str]]:
    """Give what keeps a job from the MLflow that its stage needs, and the fix."""
    if not needs_mlflow(stage):
        return
    elsewhere = f"take meta.job from dvc.yaml:stages.{stage}; or RUN_ON=local dvc repro {stage}"
    uri = load_platform().tracking_uri
    if uri is None or not mlflow_client.is_remote(uri):
        yield (
            "it needs MLflow, which is a file on this machine that a job can't see",
            f"platform.yaml:tracking_uri: a server; or {elsewhere}",
        )
    elif secrets := [name for name in SECRETS if os.environ.get(name) and not uri.startswith("arn:")]:
        yield (
            f"it needs MLflow, and the secret in {' and '.join(secrets)} does not travel to a job",
            f"platform.yaml:tracking_uri: SageMaker's MLflow, by ARN; or {elsewhere}",
        )


def _at_odds(stage: str, spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Give the settings that don't go together, and the fix."""
    place, machines = f"dvc.yaml:stages.{stage}.meta.job", spec.instance_count
    trains = pipeline.load_stage(stage).is_training
    if spec.spot and not (trains and spec.kind == "training"):
        yield "only a training goes on where it was interrupted", f"{place}.spot: false"
    if spec.spot and spec.max_wait_s < spec.max_runtime_s:
        yield (
            f"it may run for {spec.max_runtime_s} s, but wait and run for only {spec.max_wait_s} s",
            f"{place}.max_wait_s: {2 * spec.max_runtime_s}",
        )
    if spec.spot and spec.keep_alive_s:
        yield "a machine that may be taken away is not kept", f"{place}.keep_alive_s: 0"
    if spec.keep_alive_s and spec.kind != "training":
        yield "only training jobs keep a machine", f"{place}.keep_alive_s: 0"
    if bool(spec.subnets) != bool(spec.security_groups):
        yield "a VPC needs both subnets and security groups", f"{place}.subnets and {place}.security_groups"
    if machines > 1 and not (trains and spec.kind == "training"):
        yield f"on {machines} machines it would do the same work {machines} times", f"{place}.instance_count: 1"
    if trains and (processes := _train_params().get("processes", 1)) % machines:
        yield (
            f"{processes} process(es) can't be shared by {machines} machines",
            f"params.yaml:train.processes: a multiple of {machines}, or {place}.instance_count: 1",
        )


def _train_params() -> dict[str, Any]:
    params: dict[str, Any] = read_params().get("train", {})
    return params

"""How the job of a stage is requested: `meta.job` in `dvc.yaml`, and the defaults in `platform.yaml:job`.

None of it is part of what a stage is. DVC does not look at `meta`, so a change of it runs nothing again.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import pipeline
from ..config import StrictModel, check, load_platform, read_params
from ..errors import ProjectError
from ..tracking import mlflow_client

Text = Annotated[str, Field(min_length=1)]
# What every backend takes as a name, and the project's stack in AWS as the beginning of its own.
NAME = re.compile("[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_PREFIX, MAX_STEM = 32, 46  # characters; of the 63 of a job's name, its digest and 999 attempts take 17


class JobSpec(StrictModel):
    """What a job gets. A backend uses the settings that it has a meaning for."""

    kind: Literal["processing", "training"]  # whether it trains on the machines, or processes data
    instance_type: Text = "ml.m5.xlarge"  # kind of machine
    instance_count: int = Field(default=1, ge=1, le=100)  # more than one only where `train.processes` spreads over them
    volume_gb: int = Field(default=30, ge=1, le=16_384)  # disk of each machine, GB
    image: Text | None = None  # address of the container image; null for the backend's default
    spot: bool = False  # may be interrupted, for a lower price; only a training, which resumes from its last checkpoint
    max_runtime_s: int = Field(default=3600, ge=1, le=2_419_200)  # after so many seconds the job is stopped
    max_wait_s: int = Field(default=7200, ge=1, le=2_419_200)  # with spot: to wait for machines and to run
    keep_alive_s: int = Field(default=0, ge=0, le=3600)  # the machine is kept so many seconds for the next job
    kms_key: Text | None = None  # encrypts disks and what the job stores: ARN or id; null for the account's own
    subnets: list[Text] = Field(default_factory=list, max_length=16)  # of the VPC; with security_groups
    security_groups: list[Text] = Field(default_factory=list, max_length=5)  # of the machines
    tags: dict[str, str] = Field(default_factory=dict)  # of the job, for bills
    environment: dict[str, str] = Field(default_factory=dict)  # more variables of the job. Git keeps them: no secrets
    extra: dict[str, Any] = Field(default_factory=dict)  # more fields of the backend's request, as they are
    patience_s: int = Field(default=900, ge=0, le=86_400)  # to push the outputs, while the DVC remote is away


def job_stages() -> list[str]:
    """Return the stages that can run as jobs, in the pipeline's order."""
    return [name for name, stage in pipeline.load_stages().items() if stage.job is not None]


def spec_of(stage: str) -> JobSpec:
    """Return how the job of a stage is requested; raise ProjectError if a key is unknown or the settings can't work."""
    defaults, own = load_platform().job, pipeline.load_stage(stage).job or {}
    check("platform.yaml", "job", {"kind": "training", **defaults}, JobSpec)
    spec = check("dvc.yaml", f"stages.{stage}.meta.job", {**defaults, **own}, JobSpec)
    for problem, fix in _problems(stage, spec):
        raise ProjectError(f"{stage} can't run as a job: {problem}", fix)
    return spec


def job_prefix() -> str:
    """Return how the names of the project's jobs begin: with `platform.yaml:project`, or what is left of it."""
    return _shortened(load_platform().project, MAX_PREFIX)


def job_stem(stage: str) -> str:
    """Return the name of a stage's jobs without the digest of its inputs and the number of the attempt."""
    prefix = job_prefix()
    return f"{prefix}-{_shortened(stage, MAX_STEM - len(prefix) - 1)}"


def _shortened(text: str, length: int) -> str:
    """Return a text that is a name already as it is; another one with its digest, so that two of them differ."""
    if NAME.fullmatch(text) and len(text) <= length:
        return text
    words, digest = re.findall("[a-z0-9]+", text.lower()), hashlib.sha256(text.encode()).hexdigest()[:6]
    if not words or words[0][0].isdigit():
        words.insert(0, "x")
    return f"{'-'.join(words)[: length - 7].rstrip('-')}-{digest}"


def needs_mlflow(stage: str) -> bool:
    """Return whether a stage can't run without MLflow: it registers, or trains from a registered version."""
    loaded = pipeline.load_stage(stage)
    return loaded.is_registering or (loaded.is_training and bool(read_params().get("train", {}).get("init_from")))


def _problems(stage: str, spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield why a job lacks the MLflow that its stage needs, or which settings can't be combined; and the fix."""
    if needs_mlflow(stage):
        run_here = f"take meta.job from dvc.yaml:stages.{stage}; or RUN_ON=local dvc repro {stage}"
        uri = load_platform().tracking_uri or ""
        secrets = [name for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN") if os.environ.get(name)]
        if not mlflow_client.is_remote(uri):
            problem = "it needs MLflow, which is a file on this machine that a job can't see"
            yield problem, f"platform.yaml:tracking_uri: a server; or {run_here}"
        elif secrets and not uri.startswith("arn:"):
            problem = f"it needs MLflow, and the secret in {' and '.join(secrets)} is not passed to a job"
            yield problem, f"platform.yaml:tracking_uri: a server by ARN, which takes the job's own role; or {run_here}"
    job, machines = f"dvc.yaml:stages.{stage}.meta.job", spec.instance_count
    is_training = pipeline.load_stage(stage).is_training
    processes = read_params().get("train", {}).get("processes", 1) if is_training else 0
    if spec.spot and not (is_training and spec.kind == "training"):
        yield "only a training goes on where it was interrupted", f"{job}.spot: false"
    if spec.spot and spec.max_wait_s < spec.max_runtime_s:
        problem = f"it may run for {spec.max_runtime_s} s, but wait and run for only {spec.max_wait_s} s"
        yield problem, f"{job}.max_wait_s: {2 * spec.max_runtime_s}"
    if spec.spot and spec.keep_alive_s:
        yield "a machine that may be taken away is not kept", f"{job}.keep_alive_s: 0"
    if spec.keep_alive_s and spec.kind != "training":
        yield "only training jobs keep a machine", f"{job}.keep_alive_s: 0"
    if bool(spec.subnets) != bool(spec.security_groups):
        yield "a VPC needs both subnets and security groups", f"{job}.subnets and {job}.security_groups"
    if machines > 1 and not (is_training and spec.kind == "training"):
        yield f"on {machines} machines it would do the same work {machines} times", f"{job}.instance_count: 1"
    if processes != "auto" and processes % machines:
        fix = f"params.yaml:train.processes: auto, or a multiple of {machines}, or {job}.instance_count: 1"
        yield f"{processes} process(es) can't be shared by {machines} machines", fix

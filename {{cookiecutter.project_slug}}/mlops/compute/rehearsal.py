"""Run every stage that can be a job in the sandbox, beside the work tree, and tell what SageMaker would need.

    make rehearse

It is an experiment in a throw-away copy: work tree and `dvc.lock` stay as they are. The training is a real one, and is
in MLflow and in the log as such.
"""

import os
import subprocess
import sys
import time

from .. import pipeline
from ..config import load_platform
from ..errors import ProjectError
from ..tracking.snapshot import snapshot
from . import remote
from .sandbox import backend
from .spec import JobSpec, job_stages, spec_of

NAME = "rehearsal-of-jobs"
COLUMNS = ("stage", "job", "pull s", "run s", "push s", "memory GB", "read MB", "made MB")


def rehearse() -> str:
    """Do it.

    Returns:
        A table of what each stage took, and what SageMaker would need.

    Raises:
        ProjectError: A stage can't run as a job, or fails as one; what it says is above.
    """
    stages = job_stages()
    if not stages:
        raise ProjectError("no stage has a meta.job", "dvc.yaml:stages.train.meta.job: {kind: training}")
    specs = {stage: spec_of(stage) for stage in stages}
    snapshot(stages[-1])  # a file that Git does not track is not in the copy either: say so now
    begin = time.time()
    _run(stages)
    rows = [_row(specs[backend.describe(name)["stage"]], name) for name in _jobs(begin)]
    return "\n".join([_table([COLUMNS, *rows]), "", "SageMaker would need:", *(f"- {need}" for need in _needs(specs))])


def _run(stages: list[str]) -> None:
    _dvc("exp", "remove", NAME, quiet=True)  # of an earlier rehearsal that was killed
    failed = _dvc("exp", "run", "--quiet", "--temp", "--force", "--name", NAME, *stages)
    _dvc("exp", "remove", NAME, quiet=True)
    if failed:
        raise ProjectError("the rehearsal failed", "mend what it says above, then: make rehearse")


def _dvc(*arguments: str, quiet: bool = False) -> int:
    environment = {**os.environ, "RUN_ON": "sandbox", "JOB_FRESH": "1"}
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], env=environment, capture_output=quiet).returncode


def _jobs(begin: float) -> list[str]:
    """Return the jobs of this rehearsal."""
    since = [name for name in backend.names() if backend.described_at(name) >= begin]
    return [name for name in since if backend.origin_of(name).dvc_exp_name == NAME]


def _row(spec: JobSpec, name: str) -> tuple[str, ...]:
    stage, result, ended = backend.describe(name)["stage"], backend.result_of(name), backend.ending_of(name)
    machine = spec.instance_type if spec.instance_count == 1 else f"{spec.instance_count} x {spec.instance_type}"
    seconds = [f"{result['seconds'][part]:.1f}" for part in ("pull", "stage", "push")]
    megabytes = [f"{result['bytes'][way] / 1e6:.1f}" for way in ("down", "up")]
    return stage, f"{spec.kind} on {machine}", *seconds, f"{ended['peak_bytes'] / 1e9:.1f}", *megabytes


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _needs(specs: dict[str, JobSpec]) -> list[str]:
    """Return what must be set or exist, a line each; what is set already comes as it is."""
    platform, url = load_platform(), remote.public()["url"]
    here = [stage for stage in pipeline.load_stages() if stage not in specs]
    machines = sorted({f"{spec.kind} on {spec.instance_type} (up to {spec.instance_count})" for spec in specs.values()})
    images = sorted({spec.image or "the framework's, since no image is set" for spec in specs.values()})
    return [
        f"quota in {platform.region or 'a region: platform.yaml:region is not set'} for {', '.join(machines)}",
        f"a role: {platform.role_arn or 'platform.yaml:role_arn is not set'}",
        f"data in S3: {url if url.startswith('s3://') else f'the DVC remote is {url}; see README, Data in S3'}",
        f"an image: {', '.join(images)}",
        f"an MLflow that jobs can reach: {platform.tracking_uri or 'none, so runs reach MLflow when a job has ended'}",
        f"this machine for: {', '.join(here) or 'nothing but to start and to take over'}",
    ]

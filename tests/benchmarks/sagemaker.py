"""What launchers of SageMaker jobs cost: the time until a job is asked for, and what 50 of them ask of AWS.

    python -m tests.benchmarks sagemaker

AWS is the one of `tests/aws`, on this machine: its answers take milliseconds. Linux only.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..aws.bed import IMAGE, ROLE, Bed
from ..aws.emulator.faults import Fault, Faults
from ..conftest import BakedProject
from ..projects import commit, edit
from ..servers.mlflow import until
from ..servers.s3 import BUCKET, REGION
from .timing import copy_of

JOBS, FOLLOWED_S, GOAL_S = 50, 60, 1.0
FOLLOW = """
import sys, threading

from mlops.compute.sagemaker import client, follow

jobs = [client.describe(name, "training") for name in sys.argv[1:]]
print("following", flush=True)
threads = [threading.Thread(target=follow.follow, args=(job,), daemon=True) for job in jobs]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@dataclass
class Watched:
    """Notes when each call came.

    Args:
        faults: Of the account; they are asked about each call.
    """

    faults: Faults
    calls: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        meet = self.faults.meet

        def note(action: str) -> Fault | None:
            self.calls.append((time.perf_counter(), action))
            return meet(action)

        self.faults.meet = note  # type: ignore[method-assign]


def measure(project: BakedProject, full: bool) -> str:
    """Start the account, and measure both in it."""
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        account = Bed(Path(folder) / "aws")
        try:
            watched = Watched(account.faults)
            copied = _on_laptop(copy_of(project, Path(folder)), account)
            return f"{_starts(copied, account, watched, 10 if full else 5)}\n{_polling(copied, account, watched)}"
        finally:
            account.close()


def _on_laptop(project: BakedProject, account: Bed) -> BakedProject:
    """Give a project the account; its dataset is there and in the remote."""
    os.environ.update(account.environment())
    edit(project, "platform.yaml", "role_arn: null", f"role_arn: {ROLE}")
    edit(project, "platform.yaml", "region: us-east-1", f"region: {REGION}")
    edit(project, "platform.yaml", "image: null", f"image: {IMAGE}")
    project.run("dvc", "remote", "modify", "--local", "storage", "url", f"s3://{BUCKET}/benchmark")
    project.run("git", "config", "user.name", "Benchmark")
    project.run("git", "config", "user.email", "benchmark@example.org")
    project.run("dvc", "repro", "prepare")
    project.run("dvc", "push")
    commit(project, "A dataset")
    return project


def _starts(project: BakedProject, account: Bed, watched: Watched, rounds: int) -> str:
    """Start the stage `manifest` as DVC does, again and again, until its job is asked for."""
    environment = {"RUN_ON": "sagemaker", "DVC_STAGE": "manifest", "JOB_FRESH": "1"}
    parts: list[list[float]] = []
    for _ in range(1 + rounds):
        watched.calls.clear()
        known, begin = len(account.jobs), time.perf_counter()
        command = [sys.executable, "-m", "mlops", "stage", "manifest"]
        launcher = subprocess.Popen(
            command, cwd=project.path, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
        )
        until(partial(_more, account, known), poll_s=0.005)
        launcher.kill()
        launcher.wait()
        for job in account.running():
            job.close()
        created_at = next(moment for moment, action in watched.calls if action == "CreateProcessingJob")
        parts.append([watched.calls[0][0] - begin, created_at - watched.calls[0][0], created_at - begin])
    first, then, whole = (statistics.median(column) for column in zip(*parts[1:], strict=True))
    return (
        "| rounds | until AWS is first asked, s | from then until the job is asked for, s | together, s | goal, s |\n"
        f"|---:|---:|---:|---:|---:|\n| {rounds} | {first:.2f} | {then:.2f} | {whole:.2f} | < {GOAL_S} |\n"
    )


def _more(account: Bed, jobs: int) -> bool:
    return len(account.jobs) > jobs


def _polling(project: BakedProject, account: Bed, watched: Watched) -> str:
    """Follow 50 jobs that print a line each second."""
    names = [f"benchmark-{number}" for number in range(JOBS)]
    for name in names:
        account.client("sagemaker").create_training_job(**_request(name))
    for name in names:
        account.wait(name, lambda job: job.history.secondary == "Training")
    command = [sys.executable, "-c", FOLLOW, *names]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as launchers:
        assert launchers.stdout
        assert launchers.stdout.readline() == "following\n"
        threading.Thread(target=launchers.stdout.read, daemon=True).start()
        watched.calls.clear()
        begin = time.perf_counter()
        time.sleep(FOLLOWED_S)
        launchers.kill()
    calls = [(moment - begin, action) for moment, action in watched.calls if moment < begin + FOLLOWED_S]
    rows = "".join(
        _row(action, [at for at, called in calls if called == action]) for action in sorted({a for _, a in calls})
    )
    return f"| call, with {JOBS} jobs | in {FOLLOWED_S} s | a second | most in a second |\n|---|---:|---:|---:|\n{rows}"


def _row(action: str, moments: list[float]) -> str:
    most = max(Counter(int(moment) for moment in moments).values())
    return f"| {action} | {len(moments)} | {len(moments) / FOLLOWED_S:.1f} | {most} |\n"


def _request(name: str) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "-c", "while sleep 1; do date; done"],
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/results"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }

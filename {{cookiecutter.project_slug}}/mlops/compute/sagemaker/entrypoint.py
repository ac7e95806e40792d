"""Inside a container of SageMaker's: do the job, and hand back what SageMaker's own way of ending would lose."""

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from ...config import read_machines
from ...files import read_json
from ...tracking import uploader
from .. import worker

RUN = "run.tar"  # files of a training that MLflow does not have all of
# Where SageMaker reads why a job failed, up to 1,024 characters of it.
# Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-output.html and
# build-your-own-processing-container.html
REASONS = {"training": Path("/opt/ml/output/failure"), "processing": Path("/opt/ml/output/message")}
REASON_CHARACTERS = 1024


def contain(job_file: Path, out: Path) -> None:
    """Do the job.

    Args:
        job_file: What the clone that starts the job wrote.
        out: A folder whose content SageMaker brings to S3, also when the job fails.

    Raises:
        SystemExit: It failed.
    """
    machines = read_machines()
    if machines["current_host"] != min(machines["hosts"]):
        worker.assist(job_file)
    out.mkdir(parents=True, exist_ok=True)
    told = read_json(job_file)
    code = _run(job_file, out)
    _hand_back_run(told["origin"]["run"], out)
    _tell_reason(told, out)
    raise SystemExit(code)


def _run(job_file: Path, out: Path) -> int:
    """Run the job in a group of processes of its own, and return its exit code.

    SageMaker's signals reach this process alone, and DVC does not hear them while a stage runs. So they are passed on
    as the Ctrl-C that they stand for: SIGTERM ends a training, SIGINT a processing job.
    """
    command = [sys.executable, "-m", "mlops", "jobs", "run", str(job_file), str(out)]
    process = subprocess.Popen(command, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.killpg(process.pid, signal.SIGINT))
    return process.wait()


def _hand_back_run(run: str, out: Path) -> None:
    place = uploader.folder() / run
    if place.exists():
        with tarfile.open(out / RUN, "w") as packed:
            packed.add(place, arcname=".")


def _tell_reason(told: dict[str, Any], out: Path) -> None:
    if (out / worker.FAILURE).exists():
        path = REASONS[told["spec"]["kind"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(read_json(out / worker.FAILURE)["reason"][:REASON_CHARACTERS], encoding="utf-8")

"""Inside a container of SageMaker's: do the job, and hand back what SageMaker's own way of ending would lose."""

import tarfile
from pathlib import Path
from typing import Any

from ...files import read_json
from ...tracking import outbox
from .. import job

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
    out.mkdir(parents=True, exist_ok=True)
    told = read_json(job_file)
    try:
        job.run(job_file, out)
    finally:
        _hand_back_run(told["origin"]["run"], out)
        _tell_reason(told, out)


def _hand_back_run(run: str, out: Path) -> None:
    place = outbox.folder() / run
    if place.exists():
        with tarfile.open(out / RUN, "w") as packed:
            packed.add(place, arcname=".")


def _tell_reason(told: dict[str, Any], out: Path) -> None:
    if (out / job.FAILURE).exists():
        path = REASONS[told["spec"]["kind"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(read_json(out / job.FAILURE)["reason"][:REASON_CHARACTERS], encoding="utf-8")

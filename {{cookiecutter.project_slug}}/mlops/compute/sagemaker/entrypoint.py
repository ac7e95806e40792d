"""Entry point of the container: run the job, and save what SageMaker drops when a job fails.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

from ...config import read_machines
from ...files import read_json
from ...tracking import uploader
from .. import worker

RUN = "run.tar"  # files of a training that MLflow does not have all of
RESOURCE_CONFIG = Path("/opt/ml/input/config/resourceconfig.json")  # of training jobs: names their machines
# Where SageMaker reads why a job failed, in 1024 characters at most. Source, beside the above:
# your-algorithms-training-algo-output.html and build-your-own-processing-container.html.
REASONS = {"training": Path("/opt/ml/output/failure"), "processing": Path("/opt/ml/output/message")}


def contain(job_file: Path, out: Path) -> None:
    """Run a job and exit with its exit code; SageMaker copies the folder `out` to S3, also when the job fails."""
    if RESOURCE_CONFIG.exists():  # a processing job has one machine, unnamed
        config = read_json(RESOURCE_CONFIG)
        machines = {name: config[name] for name in ("hosts", "current_host")}
        machines |= {"instance_type": config.get("current_instance_type", ""), "keeps_checkpoints": True}
        machines["network_interface"] = config.get("network_interface_name", "")
        os.environ["STAGE_MACHINES"] = json.dumps(machines)  # for this process and those that it starts
    machines = read_machines()
    if machines["current_host"] != min(machines["hosts"]):
        worker.assist(job_file)
    out.mkdir(parents=True, exist_ok=True)
    job = read_json(job_file)
    code = _run(job_file, out)
    waiting = uploader.folder() / job["origin"]["run"]
    if waiting.exists():
        with tarfile.open(out / RUN, "w") as packed:
            packed.add(waiting, arcname=".")
    if (out / worker.FAILURE).exists():
        path = REASONS[job["spec"]["kind"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(read_json(out / worker.FAILURE)["reason"][:1024], encoding="utf-8")
    raise SystemExit(code)


def _run(job_file: Path, out: Path) -> int:
    """Run the job in a process group of its own, and return its exit code.

    SageMaker's signals reach this process alone, and DVC ignores them while a stage runs. They are passed on as the
    Ctrl-C that they stand for: SIGTERM ends a training, SIGINT a processing job.
    """
    command = [sys.executable, "-m", "mlops", "jobs", "run", str(job_file), str(out)]
    process = subprocess.Popen(command, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.killpg(process.pid, signal.SIGINT))
    return process.wait()

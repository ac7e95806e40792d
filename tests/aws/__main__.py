"""An AWS on this machine to try a project with: S3, SageMaker's jobs, and an MLflow App.

    make aws-sandbox
    python -m tests.aws [--python .venv/bin/python] [--grace 120]

Nothing in it is kept: what it stores is deleted when it ends.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from ..servers.s3 import BUCKET, REGION
from .bed import IMAGE, ROLE, Bed
from .emulator import control
from .emulator.container import problem

INSTRUCTIONS = """
An AWS on this machine: S3, SageMaker's jobs (each a process of its own), and an MLflow App.
Nothing leaves this machine and nothing costs money. Ctrl-C ends it and deletes what it holds.

1. In the terminal of your project:

{exports}

2. In platform.yaml:

    region: {region}
    role_arn: {role}
    tracking_uri: {app}
    job:
      image: {image}

3. The DVC remote, with a place in the bucket that is this project's own:

    dvc remote add --default --force storage s3://{bucket}/my-project
    dvc remote modify --local storage url s3://{bucket}/my-project
    dvc remote modify storage region {region}

4. Commit that, look whether all is well, and run:

    python -m mlops jobs doctor
    RUN_ON=sagemaker dvc repro

Jobs run with {python}: it must have the packages of the project (another one: make aws-sandbox JOB_PYTHON=…).
Runs and models in a browser: {mlflow}

Let something go wrong:

    curl -X POST {control}/interrupt -d '{{"job": "<its name>"}}'    its spot machine is taken away
    curl -X POST {control}/kill -d '{{"job": "<its name>"}}'         it has no memory left
    curl -X POST {control}/throttle -d '{{"action": "DescribeTrainingJob", "times": 5}}'
    curl -X POST {control}/set -d '{{"capacity": "none"}}'
    curl -X POST {control}/heal               let everything go right again
    curl {control}/calls                      how often each action was called
"""


def main() -> None:
    """Run it until it is told to end."""
    parser = argparse.ArgumentParser(prog="make aws-sandbox", description=__doc__)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of the jobs; default: this one")
    parser.add_argument("--grace", type=float, default=120.0, help="seconds between SIGTERM and SIGKILL; default: 120")
    options = parser.parse_args()
    if problem():
        sys.exit(f"No jobs can run here: {problem()}\nFix: use Linux with user namespaces, or run it as root")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where weed is
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print("Starting S3, SageMaker and MLflow: about 20 seconds", flush=True)
    with tempfile.TemporaryDirectory(prefix="aws-sandbox-", ignore_cleanup_errors=True) as folder:
        bed = Bed(Path(folder), options.python.absolute(), options.grace)
        with contextlib.closing(bed):
            app = bed.start_mlflow()
            print(_instructions(bed, app, options.python.absolute()), flush=True)
            ended.wait()
            print("\nEnding it", flush=True)


def _instructions(bed: Bed, app: str, python: Path) -> str:
    exports = "\n".join(f"    export {name}={value}" for name, value in sorted(bed.environment().items()))
    return INSTRUCTIONS.format(
        exports=exports,
        region=REGION,
        role=ROLE,
        app=app,
        image=IMAGE,
        bucket=BUCKET,
        python=python,
        mlflow=bed.mlflow_url,
        control=f"{bed.server.url}{control.PATH}",
    )


if __name__ == "__main__":
    main()

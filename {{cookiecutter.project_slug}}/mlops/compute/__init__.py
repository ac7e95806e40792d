"""Where a stage runs that does not run here: as a job, with nothing but the commit that it reads and the DVC remote.

    snapshot -> push what it reads -> job: pull, run, push -> take over the results

What comes back is what a local run leaves, to the byte of `dvc.lock`. This file is the only door to the folder: without
the folder, stages run on this machine.
"""

from collections.abc import Callable

from .cli import verbs as jobs
from .sagemaker.cli import verbs as aws

__all__ = ["groups", "run"]

groups = (jobs, aws)  # of the command line


def run(stage: str, publish: Callable[[str], None]) -> None:
    """Run a stage as a job, and take over what it made; `publish` does what is left to do with its results."""
    from .submit import run as launch

    launch(stage, publish)

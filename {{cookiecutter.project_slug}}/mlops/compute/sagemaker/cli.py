"""SageMaker's verbs: `python -m mlops aws …`, and its part of `python -m mlops jobs`."""

import sys
from pathlib import Path

import click

from ...output import as_json, print_json


@click.group(name="aws")
def aws() -> None:
    """Give jobs what they need in the AWS account."""


groups = (aws,)


def extend(jobs: click.Group) -> None:
    """Add verbs to the group of all backends."""
    jobs.add_command(doctor)
    jobs.add_command(contain)


@aws.command()
@click.option("--mlflow/--no-mlflow", default=None, help="Have an MLflow App.  [default: as it is]")
@click.option("--erasure-role", metavar="ARN", help="The only role that may delete data; '' for no such rule.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def setup(mlflow: bool | None, erasure_role: str | None, yes: bool) -> None:
    """Create or update what jobs need in the AWS account. It is aws/stack.yaml; the configuration gets its outputs."""
    from . import setup as account

    stack = account.Stack()
    if proposal := account.propose(stack, mlflow, erasure_role):
        change_set, changes = proposal
        click.echo("\n".join(changes))
        if not (yes or click.confirm(f"Change the stack {stack.name} so?")):
            stack.withdraw(change_set)
            sys.exit(1)
        stack.execute(change_set, click.echo)
    click.echo("\n".join(account.configure(stack.outputs()) or ["The configuration has it all already"]))


@aws.command()
@click.option("--gpu", is_flag=True, help="With the torch that computes on NVIDIA's GPUs.")
def image(gpu: bool) -> None:
    """Build and push the image of requirements.lock. Its address goes into platform.yaml."""
    from ...config import set_values
    from .image import make_image
    from .setup import PLATFORM

    changes = set_values(PLATFORM, {"job.image": make_image(gpu, click.echo)}, null="null")
    click.echo("\n".join(changes or ["platform.yaml has this image already"]))


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check what a SageMaker job needs, before it costs anything. Exit code 1 when something must be corrected."""
    from .doctor import examine

    report = examine()
    rows = [{"check": name, "standing": row.status, "found": row.message, "fix": row.fix} for name, row in report.rows]
    print_json(rows) if as_json else click.echo(report.table())
    sys.exit(int(report.is_broken))


@click.command(hidden=True)
@click.argument("job_file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def contain(job_file: Path, out: Path) -> None:
    """Entry point of a job in SageMaker's container."""
    from .entrypoint import contain as run

    run(job_file, out)

"""The folder's part of the command line."""

import sys

import click


@click.group(name="aws")
def verbs() -> None:
    """Give jobs what they need in the AWS account."""


@verbs.command()
@click.option("--mlflow/--no-mlflow", default=None, help="Have an MLflow App.  [default: as it is]")
@click.option("--erasure-role", metavar="ARN", help="The only role that may delete data; '' for no such rule.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def setup(mlflow: bool | None, erasure_role: str | None, yes: bool) -> None:
    """Create or update aws/stack.yaml in the account, and write where things are into the configuration."""
    from . import setup as account

    stack = account.stack()
    proposal = account.propose(stack, mlflow, erasure_role)
    if proposal:
        click.echo("\n".join(proposal.changes))
        if not (yes or click.confirm(f"Change the stack {stack.name} so?")):
            stack.withdraw(proposal.arn)
            sys.exit(1)
        stack.carry_out(proposal, click.echo)
    for line in account.configure(stack.outputs()) or ["The configuration has it all already"]:
        click.echo(line)


@verbs.command()
@click.option("--gpu", is_flag=True, help="With the torch that computes on NVIDIA's GPUs.")
def image(gpu: bool) -> None:
    """Build the image of requirements.lock, push it, and write its address into platform.yaml."""
    from .build import make_image

    for line in make_image(gpu, click.echo) or ["platform.yaml has this image already"]:
        click.echo(line)

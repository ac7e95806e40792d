"""The sandbox's verbs of `python -m mlops jobs`."""

import click


def extend(jobs: click.Group) -> None:
    """Add them to the group."""
    jobs.add_command(rehearse)
    jobs.add_command(supervise)


@click.command()
def rehearse() -> None:
    """Run every stage that can be a job in the sandbox. The report says what other backends need to run it."""
    from .rehearsal import rehearse as run

    click.echo(run())


@click.command(hidden=True)
@click.argument("name")
def supervise(name: str) -> None:
    """Run a prepared job to its end, and record how it ended."""
    from .supervisor import supervise as run

    run(name)

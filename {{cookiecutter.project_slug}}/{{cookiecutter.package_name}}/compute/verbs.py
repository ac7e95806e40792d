"""The folder's part of the command line."""

from pathlib import Path

import click

from .state import State


@click.group(name="jobs")
def verbs() -> None:
    """See and stop the jobs that stages run as."""


@verbs.command("list")
def list_jobs() -> None:
    """List the jobs of this clone, the oldest first, and what became of each."""
    from .sandbox import service

    for name in service.names():
        state = service.state(name)
        why = f"  {service.ending_of(name)['reason']}" if state in (State.FAILED, State.STOPPED) else ""
        click.echo(f"{state:<11} {name}{why}")


@verbs.command()
@click.argument("name")
def logs(name: str) -> None:
    """Show what a job printed."""
    from .sandbox import service

    click.echo(service.log_of(name), nl=False)


@verbs.command()
@click.argument("name")
def stop(name: str) -> None:
    """Stop a job; its training ends as after Ctrl-C."""
    from .sandbox import service

    service.stop(name)


@verbs.command()
def clean() -> None:
    """Delete the folders in which ended jobs worked; their results and logs stay."""
    from .sandbox import service

    click.echo(f"{service.clean() / 1e6:.0f} MB are free again")


@verbs.command()
def rehearse() -> None:
    """Run every stage that has a `meta.job` in the sandbox, and tell what SageMaker would need to run it."""
    from .rehearsal import rehearse as run

    click.echo(run())


@verbs.command(hidden=True)
@click.argument("job_file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def run(job_file: Path, out: Path) -> None:
    """Be a job."""
    from .job import run as run_job

    run_job(job_file, out)


@verbs.command(hidden=True)
@click.argument("name")
def supervise(name: str) -> None:
    """Start a job in the sandbox, wait for it, write how it ended."""
    from .sandbox.supervisor import supervise as supervise_job

    supervise_job(name)

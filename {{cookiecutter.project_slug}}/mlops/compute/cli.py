"""The folder's part of the command line."""

import json
import sys
from pathlib import Path

import click


@click.group(name="jobs")
def verbs() -> None:
    """See and stop the jobs that stages run as."""


@verbs.command("list")
@click.option("--all", "everyones", is_flag=True, help="Also those on SageMaker that other clones started.")
def list_jobs(everyones: bool) -> None:
    """List the jobs of this clone, those of each place from the oldest, and what became of each."""
    from .sagemaker import backend as sagemaker
    from .sandbox import backend as sandbox

    for name in sandbox.names():
        click.echo(sandbox.row(name))
    for name in sagemaker.names(everyones):
        click.echo(sagemaker.row(name))


@verbs.command()
@click.argument("name")
def logs(name: str) -> None:
    """Show what a job printed."""
    from .backend import backend_of

    click.echo(backend_of(name).log_of(name), nl=False)


@verbs.command()
@click.argument("name")
def attach(name: str) -> None:
    """Follow a job until it ends; Ctrl-C stops it. `dvc repro` does that too, and takes over the results."""
    from .backend import backend_of

    backend_of(name).follow(name)


@verbs.command()
@click.argument("name")
def stop(name: str) -> None:
    """Stop a job; its training ends as after Ctrl-C."""
    from .backend import backend_of

    backend_of(name).stop(name)


@verbs.command("dry-run")
@click.argument("stage")
def dry_run(stage: str) -> None:
    """Print what SageMaker would be asked for, to the letter, and ask nothing."""
    from .submit import dry_run as request

    click.echo(request(stage))


@verbs.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(as_json: bool) -> None:
    """See that AWS has all that a job needs, before it costs anything; exit code 1 when something is to be mended."""
    from .sagemaker.doctor import examine

    found = examine()
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else found.table())
    sys.exit(int(found.is_broken))


@verbs.command()
def clean() -> None:
    """Delete the folders in which ended jobs worked; their results and logs stay."""
    from .sandbox import backend

    click.echo(f"{backend.clean() / 1e6:.0f} MB are free again")


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
    from .worker import run as run_job

    run_job(job_file, out)


@verbs.command(hidden=True)
@click.argument("job_file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def contain(job_file: Path, out: Path) -> None:
    """Be a job in a container of SageMaker's."""
    from .sagemaker.entrypoint import contain as contain_job

    contain_job(job_file, out)


@verbs.command(hidden=True)
@click.argument("name")
def supervise(name: str) -> None:
    """Start a job in the sandbox, wait for it, write how it ended."""
    from .sandbox.supervisor import supervise as supervise_job

    supervise_job(name)

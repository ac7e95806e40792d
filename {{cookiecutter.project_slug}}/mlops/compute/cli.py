"""The verbs `python -m mlops jobs …`; backends add their own (`extend` in `<backend>/cli.py`)."""

import importlib
from pathlib import Path

import click

from ..errors import ProjectError


@click.group(name="jobs")
def verbs() -> None:
    """List, follow and stop the jobs that stages run as."""


@verbs.command("list")
@click.option("--all", "everyones", is_flag=True, help="Also jobs that other clones started, where a backend has them.")
def list_jobs(everyones: bool) -> None:
    """List the jobs of this clone, per backend and from the oldest, with their states."""
    from .backend import backends

    failures = []
    for backend in (backend() for backend in backends().values()):
        try:
            for name in backend.names(everyones=everyones):
                click.echo(backend.row(name))
        except ProjectError as error:  # the other backends' jobs are listed all the same
            failures.append(error)
    if failures:
        raise failures[0]


@verbs.command()
@click.argument("name")
def logs(name: str) -> None:
    """Print the log of a job."""
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
@click.option("--backend", help="Name of a backend.  [default: the first that makes requests]")
def dry_run(stage: str, backend: str | None) -> None:
    """Print the exact request that would start the job of a stage; nothing is sent."""
    from .submit import dry_run as request

    click.echo(request(stage, backend))


@verbs.command()
def clean() -> None:
    """Delete the working folders of ended jobs; their results and logs stay."""
    from .backend import backends

    click.echo(f"{sum(backend().clean() for backend in backends().values()) / 1e6:.0f} MB are free again")


@verbs.command(hidden=True)
@click.argument("job_file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def run(job_file: Path, out: Path) -> None:
    """Entry point of a job: pull inputs, run the stage, push outputs."""
    from .worker import run as run_job

    run_job(job_file, out)


groups = [verbs]
for _path in sorted(Path(__file__).parent.glob("*/cli.py")):
    _cli = importlib.import_module(f".{_path.parent.name}.cli", __package__)
    groups.extend(getattr(_cli, "groups", ()))
    getattr(_cli, "extend", lambda _: None)(verbs)  # adds verbs to `jobs`

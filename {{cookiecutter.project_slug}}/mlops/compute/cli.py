"""The verbs `python -m mlops jobs …`; backends add their own (`extend` in `<backend>/cli.py`)."""

import dataclasses
import importlib
import textwrap
from pathlib import Path
from typing import Any

import click

from ..errors import ProjectError
from ..output import WIDTH, as_json, print_json


@click.group(name="jobs")
def verbs() -> None:
    """List, follow and stop the jobs that stages run as."""


@verbs.command("list")
@click.option("--all", "everyones", is_flag=True, help="Also jobs that other clones started, where a backend has them.")
@as_json
def list_jobs(everyones: bool, as_json: bool) -> None:
    """List the jobs of this clone, and their states. The oldest of each backend comes first."""
    from .backend import backends

    rows: list[dict[str, Any]] = []
    failures = []
    for backend in (backend() for backend in backends().values()):
        try:
            for name in backend.names(everyones=everyones):
                rows.append({"backend": backend.NAME, "name": name, **dataclasses.asdict(backend.row(name))})
        except ProjectError as error:  # the other backends' jobs are listed all the same
            failures.append(error)
    if as_json:
        print_json(rows)
    elif not (rows or failures):
        click.echo("There are no jobs")
    for row in rows if not as_json else ():
        click.echo(f"{row['state']:<11} {row['name']}")
        cost = "" if row["billable_s"] is None else f"{row['billable_s']} s on {row['machines']}"
        for text in filter(None, (cost, row["reason"])):
            click.echo(textwrap.indent(textwrap.fill(text, WIDTH - 12), " " * 12))
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
    """Print the request that would start the job of a stage. Nothing is sent."""
    from .submit import dry_run as request

    click.echo(request(stage, backend))


@verbs.command()
def clean() -> None:
    """Delete the working folders of ended jobs. Their results and logs stay."""
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

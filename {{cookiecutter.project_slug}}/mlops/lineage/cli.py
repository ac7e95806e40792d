"""The verbs `trace`, `verify`, `reproduce`, `tombstone`: what made a model, is that so, can it be made again."""

import sys
from pathlib import Path

import click

from ..output import as_json, print_json

NAMES = "Named like models:/name/3, 3, champion, a run, an experiment, a commit, a tag, a dataset's md5, or a file."
ENVIRONMENT = "lock: install the packages that the commit pins, where others are here; current: take those here."


@click.command(epilog=NAMES)
@click.argument("name", metavar="X")
@click.option("--html", type=click.Path(path_type=Path), help="Write it as one page, which loads nothing.")
@click.option("--no-images", is_flag=True, help="Leave records of the data out of the page.")
@as_json
def trace(name: str, html: Path | None, no_images: bool, as_json: bool) -> None:
    """Show what X was made from, and what was made from it. Versions, runs, commits, data, consent."""
    from .trace import text, trace

    graph = trace(name)
    if html:
        from .page import write_page

        write_page(graph, html, with_images=not no_images)
        click.echo(f"{html}", err=True)
    if as_json:
        print_json(graph.as_dict())
    elif not html:
        click.echo(text(graph))


@click.command(epilog=NAMES)
@click.argument("names", metavar="X…", nargs=-1, required=True)
@click.option("--deep", is_flag=True, help="Hash every file of the dataset, too.")
@click.option("--offline", is_flag=True, help="From Git and the DVC remote's files alone, without DVC and MLflow.")
@as_json
def verify(names: tuple[str, ...], deep: bool, offline: bool, as_json: bool) -> None:
    """Check that X is what it was. Exit code: 0 INTACT, 1 BROKEN, 3 ERASED or UNREACHABLE, 2 bad input."""
    from .verify import verify

    reports = [verify(name, deep, offline) for name in names]
    if as_json:
        print_json([report.as_dict() for report in reports])
    else:
        click.echo("\n\n".join(report.text() for report in reports))
    sys.exit(max((report.exit_code for report in reports), key=[0, 3, 1].index))


@click.command(epilog=NAMES)
@click.argument("name", metavar="X")
@click.option("--at", "backend", default="local", show_default=True, help="Or a backend of jobs, such as sandbox.")
@click.option("--against", metavar="RUN", help="Train nothing: compare with this run.")
@click.option("--dry-run", is_flag=True, help="Only say whether IDENTICAL can be expected here.")
@click.option("--environment", type=click.Choice(["lock", "current"]), default="lock", help=ENVIRONMENT)
@as_json
def reproduce(name: str, backend: str, against: str | None, dry_run: bool, environment: str, as_json: bool) -> None:
    """Train X again, and compare. Exit code: 0 IDENTICAL or EQUIVALENT, 1 DIFFERENT, 3 CANNOT, 2 bad input."""
    from .reproduce import reproduce

    report = reproduce(name, backend, against, dry_run, environment)
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(report.for_people())
    sys.exit(report.exit_code)


@click.command()
@click.argument("hashes", metavar="HASH…", nargs=-1, required=True)
@click.option("--why", required=True, help="A reason, for the record.")
def tombstone(hashes: tuple[str, ...], why: str) -> None:
    """Record that files of DVC were erased on request. `verify` then says ERASED of them, and not BROKEN."""
    from .erasure import record

    record(hashes, why)
    click.echo(f"recorded: {len(hashes)} file(s) were erased")


groups = (trace, verify, reproduce, tombstone)

"""The command line, `python -m mlops audit`: it parses arguments, and prints what functions of `mlops.audit` return."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import audit
from ..errors import ProjectError

if TYPE_CHECKING:
    from .report import AuditReport


@contextlib.contextmanager
def exit_inconclusive() -> Iterator[None]:
    """Exit with 3 if something that the answer depends on can't be read."""
    try:
        yield
    except ProjectError as error:
        from ..tracking.lineage_log import ShallowCloneError
        from ..tracking.mlflow_client import MlflowError
        from .index import InconclusiveError

        if not isinstance(error, ShallowCloneError | MlflowError | InconclusiveError):
            raise
        click.echo(f"INCONCLUSIVE: {error.problem}\nFix: {error.fix}", err=True)
        sys.exit(3)


class AuditGroup(click.Group):
    """Exits with 3 if something that the answer depends on can't be read."""

    invoke = exit_inconclusive()(click.Group.invoke)


@click.group("audit", cls=AuditGroup)
def verbs() -> None:
    """Whose records are in which model, and is that allowed. Exit code: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 bad input."""


def _all(subjects: tuple[str, ...], file: Path | None) -> list[str]:
    """Return the subjects, and those in a CSV file with a column `subject_id`, or in plain lines of one id each."""
    from ..records.csv_reader import rows

    if file is None:
        return list(subjects)
    try:
        with file.open("rb") as stream:
            header = stream.readline().decode("utf-8-sig")
            if "subject_id" in [cell.strip().strip('"').lower() for cell in header.split(",")]:
                stream.seek(0)
                return [*subjects, *(cell for _, (cell,) in rows(stream, file.name, ("subject_id",)))]
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or "it is not UTF-8"
        raise ProjectError(f"{file} can't be read: {reason}", "give a file of subjects in UTF-8, one a line") from error
    return [*subjects, *filter(str.strip, lines)]


FILE = click.Path(path_type=Path)
SOURCES = click.Choice(["mlflow", "dvc"])
SOURCE = click.option("--source", type=SOURCES, default="mlflow", help="dvc: Git's and DVC's history, without MLflow.")
SUBJECTS = (
    click.argument("subjects", nargs=-1, metavar="SUBJECT…"),
    click.option("--subjects-file", type=FILE, help="One id a line, or CSV with a column subject_id."),
)
OPTIONS = (
    click.option("--json", "form", flag_value="json", help="For programs: docs/json.md."),
    click.option("--csv", "form", flag_value="csv", help="For spreadsheets; a ' is put before what may be a formula."),
    click.option("--experiment", "experiments", multiple=True, help="Only this MLflow experiment; may be repeated."),
    SOURCE,
)


def _with(*options: Callable[..., Any]) -> Callable[..., Any]:
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


@verbs.command()
@_with(*SUBJECTS, *OPTIONS)
def find(subjects: tuple[str, ...], subjects_file: Path | None, form: str | None, **catalog: Any) -> None:
    """Find the runs and versions that know these subjects. Exit code 3 if these may not be all."""
    _print(audit.find(_all(subjects, subjects_file), **catalog), form)


@verbs.command()
@_with(*SUBJECTS)
@click.option("--since", metavar="DATE", help="Assume that consent ended then (UTC).")
@_with(*OPTIONS)
def verify(
    subjects: tuple[str, ...], subjects_file: Path | None, since: str | None, form: str | None, **catalog: Any
) -> None:
    """Verify that subjects were trained on while they consented. It looks at every run that knows them."""
    try:  # a date is midnight UTC, and a time without a zone is UTC
        time = datetime.fromisoformat(since) if since is not None else None
        end = time and (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        fix = "write it like 2025-06-01 or 2025-06-01T02:00:00+02:00"
        raise ProjectError(f"--since {since!r} is no date", fix) from error
    _print(audit.verify(_all(subjects, subjects_file), end, **catalog), form)


@verbs.command()
@_with(*SUBJECTS, *OPTIONS)
def deployed(subjects: tuple[str, ...], subjects_file: Path | None, form: str | None, **catalog: Any) -> None:
    """Verify that nothing in use knows a subject without consent. Given subjects, it looks at these alone."""
    named = _all(subjects, subjects_file) if subjects or subjects_file else None
    _print(audit.deployed(named, **catalog), form)


@verbs.command("list")
@click.argument("name", metavar="MODEL|RUN")
@_with(*OPTIONS)
def list_members(name: str, form: str | None, **catalog: Any) -> None:
    """List the subjects that a model or a run knows.

    It is named `3`, `champion`, `model/3`, `model@alias`, or by the id of a run or the first 12 characters of it.
    """
    _print(audit.list_members(name, **catalog), form)


@verbs.command()
@click.argument("first", metavar="V1")
@click.argument("second", metavar="V2")
@_with(*OPTIONS)
def diff(first: str, second: str, form: str | None, **catalog: Any) -> None:
    """List the subjects that only one of two models or runs knows. They are named as for `list`."""
    _print(audit.diff(first, second, **catalog), form)


@verbs.command()
@click.argument("folder", type=FILE)
def export(folder: Path) -> None:
    """Write all that is known as Parquet tables, for SQL. The queries are in docs/records-athena.md."""
    click.echo(audit.export_tables(folder))


@verbs.command()
def schema() -> None:
    """Print the JSON schema of what --json prints."""
    from .report import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)


@verbs.command()
@SOURCE
def reindex(source: str) -> None:
    """Create the index anew: fetch and check every manifest."""
    result = audit.reindex(source)
    click.echo("\n".join([f"{len(result.numbers)} manifests in {result.index.path}", *result.missing.values()]))
    sys.exit(3 if result.missing else 0)


def _print(report: "AuditReport", form: str | None) -> None:
    for text in {"json": report.json, "csv": report.csv}.get(form or "", report.text)():
        click.echo(text, nl=form is None)
    sys.exit(report.exit_code)


groups = (verbs,)

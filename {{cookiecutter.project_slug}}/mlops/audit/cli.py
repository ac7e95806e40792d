"""The command line: `python -m mlops audit`."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .audit import Audit
    from .report import AuditReport


@contextlib.contextmanager
def exit_inconclusive() -> Iterator[None]:
    """Exit with 3 where an answer needs what can't be read."""
    from ..tracking.lineage_log import ShallowCloneError
    from ..tracking.mlflow_client import MlflowError
    from .index import InconclusiveError
    from .policy import Verdict

    try:
        yield
    except (ShallowCloneError, MlflowError, InconclusiveError) as error:
        click.echo(f"INCONCLUSIVE: {error.problem}\nFix: {error.fix}", err=True)
        sys.exit(Verdict.INCONCLUSIVE.exit_code)


class AuditGroup(click.Group):
    """Exits with 3 where an answer needs what can't be read."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        with exit_inconclusive():
            return super().invoke(ctx)


@click.group("audit", cls=AuditGroup)
def verbs() -> None:
    """Whose records are in which model, and may they be: exits with 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 bad input."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--json", "form", flag_value="json", help="For programs: see `audit schema`."),
        click.option(
            "--csv", "form", flag_value="csv", help="For spreadsheets; what they might take for a formula gets a '."
        ),
        click.option(
            "--experiment", "experiments", multiple=True, help="Look at this MLflow experiment only; again for more."
        ),
        click.option(
            "--source",
            type=click.Choice(["mlflow", "dvc"]),
            default="mlflow",
            help="dvc: Git's and DVC's history, without MLflow.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _subjects(command: Callable[..., None]) -> Callable[..., None]:
    file = click.option(
        "--subjects-file", type=click.Path(path_type=Path), help="One id a line, or CSV with subject_id."
    )
    return click.argument("subjects", nargs=-1, metavar="SUBJECT…")(file(command))


@verbs.command()
@_subjects
@_options
def find(subjects: tuple[str, ...], subjects_file: Path | None, **options: Any) -> None:
    """Tell which runs, versions and aliases know these subjects, and how; 3 when that may not be all."""
    _answer(lambda asked: asked.find(_all(subjects, subjects_file)), **options)


@verbs.command()
@_subjects
@click.option(
    "--since", metavar="DATE", help="Take it that their consent ended then (UTC), whatever the registry says."
)
@_options
def verify(subjects: tuple[str, ...], subjects_file: Path | None, since: str | None, **options: Any) -> None:
    """Tell whether every run that knows these subjects was trained while they consented."""
    from .cli_args import moment

    ended = moment(since) if since else None
    _answer(lambda asked: asked.verify(_all(subjects, subjects_file), ended), **options)


@verbs.command()
@_subjects
@_options
def deployed(subjects: tuple[str, ...], subjects_file: Path | None, **options: Any) -> None:
    """Tell whether what an alias serves knows anybody who does not consent; or one of these subjects."""
    named = bool(subjects or subjects_file)
    _answer(lambda asked: asked.deployed(_all(subjects, subjects_file) if named else None), **options)


@verbs.command("list")
@click.argument("name", metavar="MODEL|RUN")
@_options
def list_members(name: str, **options: Any) -> None:
    """Tell who is in a model or a run: `3`, `champion`, `model/3`, `model@alias`, or a run's id."""
    _answer(lambda asked: asked.members(name), **options)


@verbs.command()
@click.argument("one", metavar="V1")
@click.argument("other", metavar="V2")
@_options
def diff(one: str, other: str, **options: Any) -> None:
    """Tell who is in only one of two models or runs, named as for `list`."""
    _answer(lambda asked: asked.diff(one, other), **options)


@verbs.command()
@click.argument("folder", type=click.Path(path_type=Path))
def export(folder: Path) -> None:
    """Write all that is known as Parquet tables, for SQL: docs/records-athena.md has the questions."""
    from .export import export as run

    click.echo(run(_audit("mlflow", ()), folder))


@verbs.command()
def schema() -> None:
    """Print the JSON schema of what --json prints."""
    from .report import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)


@verbs.command()
@click.option("--source", type=click.Choice(["mlflow", "dvc"]), default="mlflow", show_default=True)
def reindex(source: str) -> None:
    """Make the index anew: every manifest is fetched and checked again."""
    from .index import Index
    from .policy import Verdict

    Index().clear()
    asked = _audit(source, ())
    click.echo(f"{len(asked.numbers)} manifests in {asked.index.path}")
    for reason in asked.lacking.values():
        click.echo(reason)
    sys.exit(Verdict.INCONCLUSIVE.exit_code if asked.lacking else 0)


def _all(subjects: tuple[str, ...], file: Path | None) -> list[str]:
    from .cli_args import subjects_in

    return [*subjects, *(subjects_in(file) if file else ())]


def _audit(source: str, experiments: tuple[str, ...]) -> "Audit":
    from . import catalog
    from .audit import Audit

    return Audit(catalog.read(source, experiments))


def _answer(ask: "Callable[[Audit], AuditReport]", form: str | None, experiments: tuple[str, ...], source: str) -> None:
    report = ask(_audit(source, experiments))
    for piece in {"json": report.json, "csv": report.csv}.get(form or "", report.text)():
        click.echo(piece, nl=form is None)
    sys.exit(report.exit_code)

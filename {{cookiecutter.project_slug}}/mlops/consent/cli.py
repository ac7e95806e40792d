"""The folder's part of the command line."""

import sys
from collections.abc import Iterable
from datetime import datetime

import click

from ..errors import ProjectError

subjects = click.argument("subjects", metavar="SUBJECT…", nargs=-1, required=True)


def _time(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    from ..records.consent import time_of

    return time_of(text, "--at") if text else None


at = click.option("--at", callback=_time, help="From when on, such as 2025-06-01T00:00:00Z; by default now.")


@click.group(name="consent")
def verbs() -> None:
    """Who allows the use of their records: data/consent.csv."""


@verbs.command()
@subjects
@at
@click.option("--alike", is_flag=True, help="Also an id that looks like another one's.")
def add(subjects: tuple[str, ...], at: datetime | None, alike: bool) -> None:
    """Record that subjects consent."""
    from . import edits

    _tell(edits.add(subjects, at, alike))


@verbs.command()
@subjects
@at
@click.option("--unlisted", is_flag=True, help="Also who is not in the registry.")
def revoke(subjects: tuple[str, ...], at: datetime | None, unlisted: bool) -> None:
    """Record that subjects withdraw their consent; `dvc repro` then leaves their records out."""
    from . import edits

    _tell(edits.revoke(subjects, at, unlisted))


@verbs.command()
@subjects
def status(subjects: tuple[str, ...]) -> None:
    """Tell who consents, and which line says so."""
    from . import queries

    _tell(queries.status(subjects))


@verbs.command()
@click.argument("subject")
def history(subject: str) -> None:
    """Show all lines of a subject."""
    from . import queries

    _tell(queries.history(subject))


@verbs.command()
def check() -> None:
    """Read the whole registry and tell all that is wrong with it; exit code 1 when something is."""
    from . import queries

    problems, doubts = queries.check()
    _tell(
        [*(f"wrong: {one}" for one in problems), *(f"doubt: {one}" for one in doubts)] or ["The registry is in order"]
    )
    sys.exit(int(bool(problems)))


@verbs.command()
@click.argument("url", envvar="CONSENT_URL")
@click.option("--query", default="", help="SELECT subject_id, consent_status, effective_at …")
@click.option("--table", default="", help="A table or view with these columns.")
@click.option("--present", is_flag=True, help="It has one row a person, without history: keep the lines known before.")
@click.option("--replace", is_flag=True, help="Also when that loses lines known before.")
def pull(url: str, query: str, table: str, present: bool, replace: bool) -> None:
    """Take the registry from a database; URL is SQLAlchemy's, or CONSENT_URL in the environment."""
    from .pull import pull as run

    if bool(query) == bool(table):
        raise ProjectError("one of --query and --table is needed", "consent pull URL --table consents")
    _tell([run(url, query, table, present, replace)])


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)

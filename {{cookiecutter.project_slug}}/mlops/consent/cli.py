"""The command `consent`."""

import dataclasses
import sys
from datetime import datetime

import click

from ..errors import ProjectError
from ..output import as_json, print_json

subjects = click.argument("subjects", metavar="SUBJECT…", nargs=-1, required=True)


def _parse_at(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    from ..records.consent import parse_time

    return parse_time(text, "--at") if text else None


at = click.option("--at", callback=_parse_at, help="Valid from, such as 2025-06-01T00:00:00Z; by default now.")


@click.group(name="consent")
def verbs() -> None:
    """Who allows the use of their records: data/consent.csv."""


@verbs.command()
@subjects
@at
@click.option("--alike", is_flag=True, help="Accept an id that looks like another one.")
def add(subjects: tuple[str, ...], at: datetime | None, alike: bool) -> None:
    """Record that subjects consent."""
    from . import edits

    click.echo("\n".join(edits.add(subjects, at, alike)))


@verbs.command()
@subjects
@at
@click.option("--unlisted", is_flag=True, help="Accept a subject that is not in the registry.")
def revoke(subjects: tuple[str, ...], at: datetime | None, unlisted: bool) -> None:
    """Record that subjects withdraw their consent. The next `dvc repro` leaves their records out."""
    from . import edits

    click.echo("\n".join(edits.revoke(subjects, at, unlisted)))


@verbs.command()
@subjects
@as_json
def status(subjects: tuple[str, ...], as_json: bool) -> None:
    """Show who consents, and which line decides it."""
    from . import queries

    standings = queries.status(subjects)
    if as_json:
        print_json([dataclasses.asdict(standing) for standing in standings])
    else:
        click.echo("\n".join(map(str, standings)))


@verbs.command()
@click.argument("subject")
@as_json
def history(subject: str, as_json: bool) -> None:
    """Show all lines of a subject."""
    from . import edits, queries

    entries, standing = queries.history(subject)
    if as_json:
        lines = [
            {
                **{"line": entry.line, "subject": entry.subject_id, "status": entry.status},
                "effective_at": edits.stamp(entry.since) if entry.since else None,
            }
            for entry in entries
        ]
        print_json({**dataclasses.asdict(standing), "lines": lines})
    else:
        click.echo("\n".join([*(f"line {each.line}: {queries.describe(each)}" for each in entries), str(standing)]))


@verbs.command()
@as_json
def check(as_json: bool) -> None:
    """Check the whole registry: list problems and doubts. Exit code 1 when there are problems."""
    from . import queries

    problems, doubts = queries.check()
    lines = [*(f"wrong: {problem}" for problem in problems), *(f"doubt: {doubt}" for doubt in doubts)]
    if as_json:
        print_json({"problems": problems, "doubts": doubts})
    else:
        click.echo("\n".join(lines) or "The registry is in order")
    sys.exit(int(bool(problems)))


@verbs.command()
@click.argument("url", envvar="CONSENT_URL")
@click.option("--query", default="", help="SELECT subject_id, consent_status, effective_at …")
@click.option("--table", default="", help="A table or view with these columns.")
@click.option("--present", is_flag=True, help="It has one row a person, without history: keep the lines known before.")
@click.option("--replace", is_flag=True, help="Accept the loss of lines known before.")
def pull(url: str, query: str, table: str, present: bool, replace: bool) -> None:
    """Take the registry from a database. URL is SQLAlchemy's, or CONSENT_URL in the environment."""
    from . import pull as database

    if bool(query) == bool(table):
        raise ProjectError(
            "one of --query and --table is needed", "python -m mlops consent pull <url> --table consents"
        )
    click.echo(database.pull(url, query, table, present, replace))


groups = (verbs,)

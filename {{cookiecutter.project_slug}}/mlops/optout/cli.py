"""The command line: `python -m mlops optout`."""

import sys
from datetime import datetime

import click

from ..audit.cli import exit_inconclusive
from ..consent.cli import at


@click.command()
@click.argument("subjects", metavar="SUBJECT…", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only print where their records are, and what would be done.")
@at
@click.option("--unlisted", is_flag=True, help="Also subjects who are not in the registry.")
@click.option("--anyway", is_flag=True, help="Put the new version in use even if it is worse or can't be compared.")
@exit_inconclusive()
def optout(subjects: tuple[str, ...], dry_run: bool, at: datetime | None, unlisted: bool, anyway: bool) -> None:
    """Record that subjects withdraw, train a model without their records, put it in use, and verify that.

    After an interruption, the same command continues. Exit codes are those of `audit`: 0 if nothing in use knows them.
    """
    from . import steps

    if dry_run:
        click.echo("\n".join(steps.dry_run(subjects)))
        return
    report = steps.optout(subjects, at, unlisted, anyway, click.echo)
    click.echo(f"{report.path.as_posix()}, and .html to print\n{report.verdict}")
    sys.exit(report.verdict.exit_code)


groups = (optout,)

"""The command line: `python -m mlops optout`."""

import sys
from datetime import datetime

import click

from ..audit.cli import exit_inconclusive
from ..consent import at


@click.command()
@click.argument("subjects", metavar="SUBJECT…", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only tell where their records are, and what would be done.")
@at
@click.option("--unlisted", is_flag=True, help="Also who is not in the registry.")
@click.option("--anyway", is_flag=True, help="Put the new version in use also when it is worse, or can't be compared.")
def optout(subjects: tuple[str, ...], dry_run: bool, at: datetime | None, unlisted: bool, anyway: bool) -> None:
    """Record that subjects withdraw, make a model without their records, put it in use, and verify that.

    What is interrupted, the same command goes on with. Exits as `audit` does: 0 when nothing in use knows them.
    """
    from . import steps

    with exit_inconclusive():
        if dry_run:
            click.echo("\n".join(steps.dry_run(subjects)))
            return
        report, verdict = steps.optout(subjects, at, unlisted, anyway, click.echo)
    click.echo(f"{report.path.as_posix()}, and .html to print\n{verdict}")
    sys.exit(verdict.exit_code)

"""The command line: `python -m mlops optout`."""

import dataclasses
import sys
from datetime import datetime

import click

from ..audit.cli import exit_inconclusive
from ..consent.cli import at
from ..errors import ProjectError
from ..output import as_json, print_json


@click.command()
@click.argument("subjects", metavar="SUBJECT…", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only print where their records are, and what would be done.")
@at
@click.option("--unlisted", is_flag=True, help="Also subjects who are not in the registry.")
@click.option("--anyway", is_flag=True, help="Put the new version in use even if it is worse or can't be compared.")
@as_json
@exit_inconclusive()
def optout(
    subjects: tuple[str, ...], dry_run: bool, at: datetime | None, unlisted: bool, anyway: bool, as_json: bool
) -> None:
    """Record a withdrawal, and replace models that know the data.

    It trains a model without their records, puts it in use, and verifies that.

    After an interruption, the same command continues. Exit codes are those of `audit`: 0 if nothing in use knows them.
    """
    from . import steps

    if as_json and not dry_run:
        raise ProjectError("--json is for --dry-run", "what was done is in reports/optout/<id>.json")
    if dry_run:
        plan = steps.dry_run(subjects)
        to_do = list(plan.steps())
        if as_json:
            print_json({**dataclasses.asdict(plan), "steps": to_do})
        else:
            click.echo("\n".join([*plan.text(), "", *(f"{number}. {step}" for number, step in enumerate(to_do, 1))]))
        return
    report = steps.optout(subjects, at, unlisted, anyway, click.echo)
    click.echo(f"{report.path.as_posix()}, and .html to print\n{report.verdict}")
    sys.exit(report.verdict.exit_code)


groups = (optout,)

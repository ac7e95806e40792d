"""Carry out an opt-out. Each step does nothing if it is done already, so after an interruption, run it again."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from filelock import FileLock

from ..audit.audit import Audit, parse_subjects
from ..audit.policy import Verdict, read_registry, worst
from ..audit.report import format_time
from ..config import home
from ..consent import edits
from ..errors import ProjectError
from ..files import read_json
from ..records import consent
from ..records.ids import match_key
from ..registry import aliases, promotion
from ..registry.aliases import ALIASES
from ..registry.versions import REGISTERED, metrics_at
from .plan import make_plan
from .report import OptOutReport, find_or_create

Echo = Callable[[str], object]
CONTINUE = "then the same command again: python -m mlops optout …"
VERSION_TAGS = ("run", "dataset_md5", "manifest_sha256", "consent_sha256", "consent_excluded", "result_commit")


def dry_run(subjects: Iterable[str]) -> list[str]:
    """Return what an opt-out would find and do, for people; nothing is changed."""
    read_registry()
    plan = make_plan(Audit(), parse_subjects(subjects))
    return [*plan.text(), "", *(f"{number}. {step}" for number, step in enumerate(plan.steps(), 1))]


def optout(
    subjects: Iterable[str], at: datetime | None, unlisted: bool, anyway: bool, echo: Echo
) -> tuple[OptOutReport, Verdict]:
    """Record a withdrawal, train a model without the records, put it in use, and verify that.

    Args:
        subjects: Who withdraws.
        at: When the withdrawal takes effect, with a time zone; by default now.
        unlisted: Also subjects who are not in the registry.
        anyway: Put the new version in use even if it is worse than the one in use, or can't be compared.
        echo: Takes what happens, a line each.

    Returns:
        The report, which is written, and the verdict of the audit at the end.

    Raises:
        ProjectError: The withdrawal can't be recorded. If a later step fails, the withdrawal stands, the report says
            why, and the same command continues.
    """
    ids = parse_subjects(subjects)
    read_registry()
    with FileLock(home() / ".dvc/tmp/optout.lock"):
        for line in (lines := edits.revoke(ids, at, unlisted)):
            echo(line)
        report = find_or_create(_withdrawals(ids))
        report.record("revoke", *lines)
        report.write()
        try:
            report.stopped = {}
            _replace_versions(report, anyway, echo)
        except ProjectError as error:
            report.stopped = {"problem": error.problem, "fix": f"{error.fix}; {CONTINUE}"}
            echo(f"Stopped: {error.problem}\nFix: {report.stopped['fix']}\nThe withdrawal stands all the same.")
        except BaseException:
            echo("Interrupted: the withdrawal stands, and the same command continues.")
            raise
        report.write()
        verdict = _verify(report, ids, echo)
        report.write()
    return report, verdict


def _withdrawals(subjects: list[str]) -> list[dict[str, Any]]:
    """Return what the registry says of each subject."""
    registry = consent.read(consent.PATH)
    persons = consent.by_person(consent.entries(consent.load(consent.PATH), consent.PATH.as_posix()))
    lines = {subject: consent.decide(persons[match_key(subject)])[1] for subject in subjects}
    return [
        {"subject": subject, "line": line and line.line, "ended_at": format_time(registry.ended.get(subject))}
        for subject, line in lines.items()
    ]


def _replace_versions(report: OptOutReport, anyway: bool, echo: Echo) -> None:
    """Make the version without the records, and give it the aliases of those with them."""
    plan = make_plan(Audit(), [subject["subject"] for subject in report.subjects])
    report.plan = report.plan or asdict(plan)
    report.by = ", ".join(who for who in promotion.identity() if who != "none")
    report.write()
    if plan.starts_from:
        raise ProjectError(
            f"the new model would start from {plan.starts_from}, which knows them",
            "params.yaml:train.init_from: null, or a version that does not",
        )
    echo("dvc repro")
    if subprocess.run([sys.executable, "-m", "dvc", "repro"], stdin=subprocess.DEVNULL).returncode:
        raise ProjectError("dvc repro made no new version; above it says why", "mend that")
    number = int(read_json(REGISTERED)["version"])
    if number in plan.numbers:
        raise ProjectError(
            f"version {number}, which the pipeline makes today, knows them",
            "see that dvc.yaml:stages.prepare.deps has data/consent.csv, and params.yaml:data.consent is required",
        )
    report.record("repro", f"version {number}")
    report.version = _describe(number)
    report.write()
    for alias in _aliases_of(plan.numbers):
        try:
            result = promotion.promote(str(number), alias, why=f"opt-out {report.id}", anyway=anyway)
        except ProjectError as error:
            fix = f"{error.fix}; or optout … --anyway, if the withdrawal outweighs it"
            raise ProjectError(error.problem, fix) from error
        report.record(f"promote {alias}", result)
        echo(result)
    report.version = _describe(number)


def _aliases_of(numbers: list[int]) -> list[str]:
    """Return the aliases of these versions, in MLflow or in the log: a promotion goes into both.

    The champion comes last: a challenger that is promoted to champion stops being challenger.
    """
    registry = aliases.read()
    return [alias for alias in ALIASES if {registry.aliases.get(alias), registry.holder(alias)} & set(numbers)]


def _describe(number: int) -> dict[str, Any]:
    registry = aliases.read()
    tags = registry.find(str(number)).tags
    promotions = [move for move in registry.log if move.version == number]
    return {
        "model": registry.name,
        "number": number,
        "metrics": metrics_at(tags.get("result_commit", "")),
        **{name: tags.get(name, "") for name in VERSION_TAGS},
        "moves": [f"{move.action} {move.alias}, {move.when}, {move.who}: {move.why}" for move in promotions],
    }


def _verify(report: OptOutReport, subjects: list[str], echo: Echo) -> Verdict:
    """Ask the audit if nobody was trained on after they withdrew, and if nothing in use knows them."""
    audit = Audit()
    answers = (audit.verify(subjects), audit.deployed(subjects))
    for answer in answers:
        echo(f"audit {answer.verb}: {answer.verdict}")
    report.answers = {
        answer.verb: {
            "verdict": answer.verdict,
            "asked_at": format_time(answer.asked_at),
            "subjects": answer.subjects,
            "rows": list(answer.rows),
        }
        for answer in answers
    }
    verdicts = [answer.verdict for answer in answers if answer.verdict]
    return worst([*verdicts, Verdict.FAIL] if report.stopped else verdicts)

"""Do what an opt-out needs. Each step does nothing when it is done already, so whatever is killed, begin again."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from filelock import FileLock

from .. import consent as door
from ..audit.audit import Audit
from ..audit.cli_args import plain, read_registry
from ..audit.policy import Verdict, worst
from ..audit.report import AuditReport as Answer
from ..audit.report import moment
from ..config import home
from ..errors import ProjectError
from ..files import read_json
from ..records import consent
from ..records.ids import match_key
from ..registry import aliases, promotion
from ..registry.aliases import ALIASES
from ..registry.versions import REGISTERED, metrics_at
from . import plan
from .report import OptOutReport, of

Say = Callable[[str], object]
GO_ON = "then the same command again: python -m mlops optout …"


def dry_run(subjects: Iterable[str]) -> list[str]:
    """Return what an opt-out would meet and do, for people; nothing is changed."""
    read_registry()
    found = plan.make(Audit(), plain(subjects))
    return [*found.text(), "", *(f"{number}. {step}" for number, step in enumerate(found.steps(), 1))]


def optout(
    subjects: Iterable[str], at: datetime | None, unlisted: bool, anyway: bool, say: Say
) -> tuple[OptOutReport, Verdict]:
    """Record a withdrawal, make a model without the records, put it in use, and see that it worked.

    Args:
        subjects: Who withdraws.
        at: From when on, with a zone; by default now.
        unlisted: Also who is not in the registry.
        anyway: Put the new version in use also when it is worse than the one in use, or can't be compared.
        say: Takes what happens, a line each.

    Returns:
        The report, which is written, and what the audit says at the end.

    Raises:
        ProjectError: The withdrawal can't be recorded, or a later step needs something: the withdrawal stands, the
            report says so, and the same command goes on.
    """
    asked = plain(subjects)
    read_registry()
    with FileLock(home() / ".dvc/tmp/optout.lock"):
        for line in (recorded := door.revoke(asked, at, unlisted)):
            say(line)
        report = of(_ended(asked))
        report.did("revoke", *recorded)
        report.write()
        try:
            report.stopped = {}
            _replace(report, anyway, say)
        except ProjectError as error:
            report.stopped = {"problem": error.problem, "fix": f"{error.fix}; {GO_ON}"}
            say(f"Stopped: {error.problem}\nFix: {report.stopped['fix']}\nThe withdrawal stands all the same.")
        except BaseException:
            say("Interrupted: the withdrawal stands, and the same command goes on.")
            raise
        report.write()
        verdict = _ask(report, asked, say)
        report.write()
    return report, verdict


def _ended(subjects: list[str]) -> list[dict[str, Any]]:
    """Return what the registry says of each subject."""
    registry = consent.read(consent.PATH)
    known = consent.by_person(consent.entries(consent.load(consent.PATH), consent.PATH.as_posix()))
    found = []
    for subject in subjects:
        _, by = consent.decide(known[match_key(subject)])
        found.append({"subject": subject, "line": by and by.line, "ended_at": moment(registry.ended.get(subject))})
    return found


def _replace(report: OptOutReport, anyway: bool, say: Say) -> None:
    """Make the version without the records, and give it the aliases of those with them."""
    found = plan.make(Audit(), [one["subject"] for one in report.subjects])
    report.plan = report.plan or found.as_json()
    report.by = ", ".join(who for who in promotion.identity() if who != "none")
    report.write()
    if found.starts_from:
        raise ProjectError(
            f"the new model would start from {found.starts_from}, which knows them",
            "params.yaml:train.init_from: null, or a version that does not",
        )
    say("dvc repro")
    if subprocess.run([sys.executable, "-m", "dvc", "repro"], stdin=subprocess.DEVNULL).returncode:
        raise ProjectError("dvc repro made no new version; above it says why", "mend that")
    number = int(read_json(REGISTERED)["version"])
    if number in found.numbers:
        raise ProjectError(
            f"version {number}, which the pipeline makes today, knows them",
            "see that dvc.yaml:stages.prepare.deps has data/consent.csv, and params.yaml:data.consent is required",
        )
    report.did("repro", f"version {number}")
    report.version = _described(number)
    report.write()
    for alias in _aliases(found.numbers):
        told = _promote(number, alias, report.id, anyway)
        report.did(f"promote {alias}", told)
        say(told)
    report.version = _described(number)


def _promote(number: int, alias: str, name: str, anyway: bool) -> str:
    try:
        return promotion.promote(str(number), alias, why=f"opt-out {name}", anyway=anyway)
    except ProjectError as error:
        raise ProjectError(
            error.problem, f"{error.fix}; or optout … --anyway, if the withdrawal outweighs it"
        ) from error


def _aliases(known: list[int]) -> list[str]:
    """Return the aliases of versions that know the subjects, in MLflow or in the log: a move goes into both.

    The champion comes last: a challenger that has won is none any more.
    """
    registry = aliases.read()
    return [one for one in ALIASES if {registry.aliases.get(one), registry.holder(one)} & set(known)]


def _described(number: int) -> dict[str, Any]:
    registry = aliases.read()
    version = registry.find(str(number))
    named = ("run", "dataset_md5", "manifest_sha256", "consent_sha256", "consent_excluded", "result_commit")
    return {
        "model": registry.name,
        "number": number,
        "metrics": metrics_at(version.tags.get("result_commit", "")),
        **{name: version.tags.get(name, "") for name in named},
        "moves": [
            f"{one.action} {one.alias}, {one.when}, {one.who}: {one.why}"
            for one in registry.log
            if one.version == number
        ],
    }


def _ask(report: OptOutReport, subjects: list[str], say: Say) -> Verdict:
    """Ask the audit: was nobody trained on after they withdrew, and does nothing in use know them?"""
    audit = Audit()
    answers: dict[str, Answer] = {"verify": audit.verify(subjects), "deployed": audit.deployed(subjects)}
    for name, answer in answers.items():
        say(f"audit {name}: {answer.verdict}")
    report.answers = {name: {"verdict": answer.verdict, **_told(answer)} for name, answer in answers.items()}
    verdicts = [answer.verdict for answer in answers.values() if answer.verdict]
    return worst([*verdicts, Verdict.FAIL] if report.stopped else verdicts)


def _told(answer: Answer) -> dict[str, Any]:
    return {"asked_at": moment(answer.asked_at), "subjects": answer.subjects, "rows": list(answer.rows)}

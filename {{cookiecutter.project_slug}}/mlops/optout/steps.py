"""Carry out an opt-out. Each step does nothing if it is done already, so after an interruption, run it again.

The report, `reports/optout/<id>.json` and `.html`, has what was done so far: where it goes on, and what remains of it.
It names the subjects, so Git ignores it; what Git keeps names only the id. The page is `report.html`, rendered: it runs
nothing and loads nothing.
"""

import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import jinja2
from filelock import FileLock

from ..audit.audit import Audit, parse_subjects
from ..audit.policy import Verdict, read_registry, worst
from ..audit.report import format_time
from ..config import home
from ..consent import edits
from ..errors import ProjectError
from ..files import atomic_write, read_json, write_json
from ..records import consent
from ..records.ids import match_key
from ..registry import aliases, promotion
from ..registry.aliases import ALIASES
from ..registry.versions import REGISTERED, metrics_at
from .plan import Plan, make_plan

FOLDER = Path("reports/optout")
SCHEMA = "optout/1"
VERSION_TAGS = ("run", "dataset_md5", "manifest_sha256", "consent_sha256", "consent_excluded", "result_commit")
Echo = Callable[[str], object]


@dataclass
class OptOutReport:
    """An opt-out."""

    id: str  # says nothing about the subjects
    subjects: list[dict[str, Any]]  # id, line of the registry that decides, end of consent
    by: str = ""  # who did it, as Git knows them
    plan: dict[str, Any] = field(default_factory=dict)  # what was found before anything was changed
    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # by step: when (UTC), and with what results
    version: dict[str, Any] = field(default_factory=dict)  # the new one: number, metrics, dataset, registry's digest
    answers: dict[str, Any] = field(default_factory=dict)  # of `audit verify` and `audit deployed`, at the end
    stopped: dict[str, str] = field(default_factory=dict)  # why it did not come to its end, and the fix
    schema: str = SCHEMA

    def record(self, step: str, *results: str) -> None:
        """Record that a step is done; one that is done again keeps its time."""
        self.done.setdefault(step, {"at": format_time(datetime.now(UTC)), "told": list(results)})

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.id}.json"

    @property
    def page_path(self) -> Path:
        """Where it is for people."""
        return self.path.with_suffix(".html")

    @property
    def verdict(self) -> Verdict:
        """What the audit answered at the end; FAIL if the opt-out has not come to it."""
        verdicts = [Verdict(answer["verdict"]) for answer in self.answers.values()]
        return Verdict.FAIL if self.stopped or not verdicts else worst(verdicts)

    def write(self) -> None:
        """Write both files; the page never says more than the audit answered."""
        loader, plan = jinja2.FileSystemLoader(Path(__file__).parent), self.plan or asdict(Plan([]))
        layout: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
        environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, **layout)
        with atomic_write(self.page_path) as new:
            page = environment.get_template("report.html").render(report=self, plan=plan, end=self.verdict)
            new.write_text(page.lstrip(), encoding="utf-8", newline="\n")
        write_json(self.path, asdict(self))


def find_or_create(subjects: list[dict[str, Any]]) -> OptOutReport:
    """Return the report of these subjects' withdrawal, if it was begun before, or a new one."""
    withdrawal = itemgetter("subject", "ended_at")
    for path in sorted(FOLDER.glob("*.json")):
        report = read_json(path)
        if report["schema"] == SCHEMA and set(map(withdrawal, report["subjects"])) == set(map(withdrawal, subjects)):
            return OptOutReport(**report)
    return OptOutReport(f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", subjects)


def dry_run(subjects: Iterable[str]) -> Plan:
    """Return what an opt-out would find and do; nothing is changed."""
    read_registry()
    return make_plan(Audit(), parse_subjects(subjects))


def optout(subjects: Iterable[str], at: datetime | None, unlisted: bool, anyway: bool, echo: Echo) -> OptOutReport:
    """Record a withdrawal, train a model without the records, put it in use, verify that, and report all of it.

    Args:
        subjects: Who withdraws.
        at: When the withdrawal takes effect, with a time zone; by default now.
        unlisted: Also subjects who are not in the registry.
        anyway: Put the new version in use even if it is worse than the one in use, or can't be compared.
        echo: Takes what happens, a line each.

    Raises:
        ProjectError: The withdrawal can't be recorded. If a later step fails, the withdrawal stands, the report says
            why, and the same command continues.
    """
    ids = parse_subjects(subjects)
    read_registry()
    with FileLock(home() / ".dvc/tmp/optout.lock"):
        for text in (texts := edits.revoke(ids, at, unlisted)):
            echo(text)
        registry, persons = consent.read(consent.PATH), consent.persons(consent.PATH, ids)
        withdrawals: list[dict[str, Any]] = []
        for subject in ids:
            line, ended = consent.decide(persons[match_key(subject)])[1], registry.ended.get(subject)
            withdrawals.append({"subject": subject, "line": line and line.line, "ended_at": format_time(ended)})
        report = find_or_create(withdrawals)
        report.record("revoke", *texts)
        report.write()
        try:
            report.stopped = {}
            _replace_versions(report, anyway, echo)
        except ProjectError as error:
            fix = f"{error.fix}; then the same command again: python -m mlops optout {shlex.join(ids)}"
            report.stopped = {"problem": error.problem, "fix": fix}
            echo(f"Stopped: {error.problem}\nFix: {fix}\nThe withdrawal stands all the same.")
        except BaseException:
            echo("Interrupted: the withdrawal stands, and the same command continues.")
            raise
        report.write()
        _verify(report, ids, echo)
        report.write()
    return report


def _replace_versions(report: OptOutReport, anyway: bool, echo: Echo) -> None:
    """Make the version without the records, and give it the aliases of those with them."""
    plan = make_plan(Audit(), [subject["subject"] for subject in report.subjects])
    report.plan = report.plan or asdict(plan)
    report.by = ", ".join(who for who in promotion.identity() if who != "none")
    report.write()
    if plan.starts_from:
        problem = f"the new model would start from {plan.starts_from}, which knows them"
        raise ProjectError(problem, "params.yaml:train.init_from: null, or a version that does not")
    echo("dvc repro")
    if subprocess.run([sys.executable, "-m", "dvc", "repro"], stdin=subprocess.DEVNULL).returncode:
        raise ProjectError("dvc repro made no new version; above it says why", "mend that")
    number = int(read_json(REGISTERED)["version"])
    if number in plan.numbers:
        fix = "see that dvc.yaml:stages.prepare.deps has data/consent.csv, and params.yaml:data.consent is required"
        raise ProjectError(f"version {number}, which the pipeline makes today, knows them", fix)
    report.record("repro", f"version {number}")
    report.version = _describe(number)
    report.write()
    registry = aliases.read()
    for alias in ALIASES:  # the champion last: a challenger that is promoted to champion stops being challenger
        # In MLflow or in the log: a promotion goes into both.
        if not {registry.aliases.get(alias), registry.holder(alias)} & set(plan.numbers):
            continue
        try:
            result = promotion.promote(str(number), alias, why=f"opt-out {report.id}", anyway=anyway)
        except ProjectError as error:
            fix = f"{error.fix}; or with --anyway, if the withdrawal outweighs it"
            raise ProjectError(error.problem, fix) from error
        report.record(f"promote {alias}", result)
        echo(result)
    report.version = _describe(number)


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
    for answer in (audit.verify(subjects), audit.deployed(subjects)):
        echo(f"audit {answer.verb}: {answer.verdict}")
        report.answers[answer.verb] = {
            "verdict": answer.verdict,
            "asked_at": format_time(answer.asked_at),
            "subjects": answer.subjects,
            "rows": list(answer.rows),
        }
    return report.verdict

"""Train a version again from the commit that it was made from, with exactly its data, and compare what comes out.

    python -m mlops reproduce champion
    python -m mlops reproduce 3 --at sandbox
    python -m mlops reproduce 3 --against gouty-fifo

The verdict is IDENTICAL: all bytes of the model, and its metrics; EQUIVALENT: this machine rounds in another way, and
the metrics are as close as chance explains; DIFFERENT; or CANNOT, with what is missing.
"""

import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ..errors import ProjectError
from ..files import write_json
from . import scratch
from .commits import Pinned
from .difference import MACHINE, Cause, Record, band, causes, first_epoch, is_same, is_same_class
from .history import History
from .names import find, run_of, version_of
from .scratch import FINGERPRINT, CannotError

SCHEMA = "reproduce/1"
FOLDER = Path("reports/reproduce")
IDENTICAL, EQUIVALENT, DIFFERENT, CANNOT = "IDENTICAL", "EQUIVALENT", "DIFFERENT", "CANNOT"
EXPECTED = "EXPECTED"  # of a dry run: what can be expected
EXIT_CODES = {IDENTICAL: 0, EQUIVALENT: 0, EXPECTED: 0, DIFFERENT: 1, CANNOT: 3}
COLORS = {IDENTICAL: "green", EQUIVALENT: "green", EXPECTED: "cyan", DIFFERENT: "red", CANNOT: "yellow"}


@dataclass
class Report:
    """Whether a training gave the same again.

    Args:
        query: The name that was given.
        run: The training.
        verdict: IDENTICAL, EQUIVALENT, DIFFERENT or CANNOT; EXPECTED of a dry run.
        text: Why, for people.
        fix: What to do about it; "" where there is nothing to do.
        at: Where it was trained again: local, a backend, or the run that it was compared with.
        expectation: What the machine let expect, before it was trained.
        causes: What the two trainings were not alike in, the first cause first.
        first_epoch: After which the weights differ, from 1; None if they don't, or it is unknown.
        metrics: Of both, by name.
        machine: What the run recorded of its machine: where the same bits can be expected.
        clone: The clone, where it was kept for a look.
    """

    query: str
    run: str
    verdict: str = CANNOT
    text: str = ""
    fix: str = ""
    at: str = "local"
    expectation: str = ""
    causes: list[Cause] = field(default_factory=list)
    first_epoch: int | None = None
    metrics: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    clone: str = ""
    asked_at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command."""
        return EXIT_CODES[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return it in types of JSON."""
        return {"schema": SCHEMA, "exit_code": self.exit_code} | asdict(self)

    def for_people(self) -> str:
        """Return it for a terminal."""
        lines = [f"{click.style(self.verdict, COLORS[self.verdict], bold=True)}: {self.text}"]
        lines += [f"  {cause.kind}: {cause.text}" for cause in self.causes]
        if self.metrics and self.verdict in (EQUIVALENT, DIFFERENT):
            width = max(map(len, self.metrics))
            for name, (before, after) in self.metrics.items():
                lines.append(f"  {name:{width}}  {before:.6g}, then {'none' if after is None else f'{after:.6g}'}")
        if self.machine and self.verdict in (EQUIVALENT, EXPECTED):
            lines.append(f"  The same bits come from: {', '.join(f'{k} {v}' for k, v in self.machine.items())}")
        if self.clone:
            lines.append(f"  The clone is kept: {self.clone}")
        return "\n".join([*lines, *([f"Fix: {self.fix}"] if self.fix else [])])


def reproduce(
    name: str, backend: str = "local", against: str | None = None, dry_run: bool = False, environment: str = "lock"
) -> Report:
    """Train again what made a version or a run, and compare; leave a report in `reports/reproduce`.

    Args:
        name: As `names.find` takes it.
        backend: Where: local, or a backend of jobs.
        against: Train nothing: compare with this run or version.
        dry_run: Stop as soon as it is known what can be expected on this machine.
        environment: lock: install the packages that the commit pins where others are here; current: take those here.

    Raises:
        ProjectError: Nothing has the name, or it is of no training.
    """
    if dry_run and backend != "local":
        problem = f"--dry-run says what can be expected here, and {backend} would train to the end"
        raise ProjectError(problem, f"python -m mlops reproduce {shlex.quote(name)} --dry-run")
    history = History()
    target = find(name, history)
    run = run_of(target, history)
    report = Report(name, run, at=against or backend)
    try:
        pinned = _results(run, history, version_of(target, history))
        record = Record.read(pinned, history.objects)
        shown = ("device_name", "cpu_capability", "capability", "driver", "threads", "processes", FINGERPRINT)
        report.machine = {key: record.facts[key] for key in shown if record.facts.get(key)}
        if against:
            other = find(against, history)
            results = _results(run_of(other, history), history, version_of(other, history))
            _judge(report, record, Record.read(results, history.objects))
        else:
            _train(report, record, history, dry_run, environment)
    except ProjectError as error:
        report.verdict, report.text, report.fix = CANNOT, error.problem, error.fix
    write_json(FOLDER / f"{run}-{report.asked_at.replace(':', '')}.json", report.as_dict())
    return report


def _results(run: str, history: History, version: Any) -> Pinned:
    """Return what a commit with a run's results pins; raise CannotError if there is none."""
    pinned = history.results(run) or (history.pinned_at(version.commit) if version else None)
    if pinned is None:
        problem = f"the results of run {run} are in no commit of this clone, so there is nothing to compare with"
        raise CannotError(
            problem, "git fetch --tags origin && git fetch origin lineage:lineage; or where it was trained: commit"
        )
    return pinned


def _train(report: Report, record: Record, history: History, dry_run: bool, environment: str) -> None:
    """Train in a clone, and judge what comes out."""
    commit = record.facts["data_git_commit_id"]

    def noted(facts: dict[str, Any]) -> bool:
        report.expectation = _expectation(record.facts, facts)
        click.echo(report.expectation, err=True)
        return not dry_run

    if not record.facts.get(FINGERPRINT) and not noted({}):
        report.verdict, report.text = EXPECTED, report.expectation
        return
    with scratch.clone(commit) as project:
        others = scratch.other_packages(project)
        python = Path(sys.executable)
        if others and environment == "lock":
            python = scratch.build_environment(project)
        elif others:
            scratch.allow_other_packages(project)
        scratch.bring_data(project, record, history.objects, report.at not in ("local", "sandbox"))
        if uri := record.params.get("train.init_from"):
            scratch.bring_parent(project, uri, history)
        if not scratch.train(project, record.training, python, report.at, noted):
            report.verdict, report.text = EXPECTED, report.expectation
            return
        new, objects = scratch.results(project, commit)
        _judge(report, record, Record.read(new, objects))
        if report.verdict == DIFFERENT:
            report.clone = str(scratch.keep(project))


def _expectation(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what the fingerprints of a run and of its repetition let expect."""
    if not before.get(FINGERPRINT):
        return "The run recorded no numeric fingerprint: whether the same bits can be expected here is unknown"
    if before[FINGERPRINT] == now.get(FINGERPRINT):
        return f"IDENTICAL can be expected: this machine rounds like that of the run (fingerprint {now[FINGERPRINT]})"
    machine = ", ".join(str(before[key]) for key in ("device_name", "cpu_capability", "capability") if before.get(key))
    return (
        f"EQUIVALENT at best: the numeric fingerprint is {now.get(FINGERPRINT)} here, and was {before[FINGERPRINT]}; "
        f"the same bits come from a machine like {machine}, with the same packages and settings"
    )


def _judge(report: Report, before: Record, after: Record) -> None:
    """Compare two trainings, and write the verdict into the report."""
    report.causes = causes(before, after)
    report.first_epoch = first_epoch(before, after)
    report.metrics = {name: (value, after.metrics.get(name)) for name, value in before.metrics.items()}
    if is_same(before, after):
        report.verdict = IDENTICAL
        what = f"all {len(before.files)} files of the model and the predictions of run {report.run}"
        report.text = f"{what} are the same bytes, and its metrics"
        return
    epoch = _divergence(before, after, report.first_epoch)
    inputs = [cause for cause in report.causes if cause.kind not in MACHINE]
    report.verdict = DIFFERENT
    if inputs or is_same_class(before, after) is not False:
        cause = "no cause was found: it is not deterministic, or what is kept was changed"
        report.text = f"{epoch}; {f'the first cause: {report.causes[0].kind}' if report.causes else cause}"
        return
    accuracy, again = report.metrics.get("test_acc", (None, None))
    if accuracy is None or again is None:
        report.text = f"{epoch}, on another machine class, and there is no test_acc to compare"
        return
    width, records = band(accuracy, before.records["test"]), before.records["test"]
    stated = f"test_acc {accuracy:.4f}, then {again:.4f}; chance explains ± {width:.4f} at {records} records"
    report.verdict = EQUIVALENT if abs(accuracy - again) <= width else DIFFERENT
    report.text = f"{epoch}: another machine class ({report.causes[0].kind}). {stated}"


def _divergence(before: Record, after: Record, epoch: int | None) -> str:
    """Return where two trainings begin to differ."""
    if epoch:
        return f"the weights differ from epoch {epoch} on"
    names = sorted(before.files.keys() | after.files.keys())
    others = [name for name in names if before.files.get(name) != after.files.get(name)]
    epochs = ", though the epochs are alike" if before.weights and after.weights else ""
    return f"not the same bytes: {', '.join(others) or 'the metrics'}{epochs}"

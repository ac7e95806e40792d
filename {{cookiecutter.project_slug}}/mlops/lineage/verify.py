"""Check that a version, a run, a commit or a dataset is what was recorded, hop by hop, from an alias to the bytes.

python -m mlops verify champion --deep
python -m mlops verify 3 --offline
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from ..errors import ProjectError
from ..tracking.lineage_log import ShallowCloneError
from ..tracking.mlflow_client import MlflowError
from .erasure import tombstones
from .history import History
from .hops import HOPS, OF_RESULTS, OF_VERSION, ONLINE, BrokenError, Chain, MlflowAwayError, logged_commits
from .names import Target, find, run_of, version_of
from .objects import LostError, UnreachableError

SCHEMA = "verify/1"
INTACT, BROKEN, ERASED, UNREACHABLE, SKIPPED = "INTACT", "BROKEN", "ERASED", "UNREACHABLE", "SKIPPED"
WORST = (SKIPPED, INTACT, ERASED, UNREACHABLE, BROKEN)
EXIT_CODES = {INTACT: 0, BROKEN: 1, ERASED: 3, UNREACHABLE: 3}
COLORS = {INTACT: "green", BROKEN: "red", ERASED: "yellow", UNREACHABLE: "yellow", SKIPPED: "bright_black"}


@dataclass(frozen=True)
class HopReport:
    """What one hop of the chain gave.

    Args:
        name: Of the hop.
        verdict: INTACT, BROKEN, ERASED, UNREACHABLE, or SKIPPED: it was not asked for.
        text: What was checked; or what is wrong, or can't be read.
        fix: What to do about it; "" where there is nothing to do.
        expected: What was recorded, where it is BROKEN.
        actual: What is there, where it is BROKEN.
    """

    name: str
    verdict: str
    text: str
    fix: str = ""
    expected: str = ""
    actual: str = ""


@dataclass
class Report:
    """Whether something is what was recorded.

    Args:
        query: The name that was given.
        kind: version, run, commit or dataset.
        id: Of it.
        title: For people.
        deep: Whether every file of the dataset was hashed.
        offline: Whether MLflow and DVC were left alone.
        hops: From the top down; those of a version that it started from come last, as one.
        hashed_bytes: How many bytes were read and hashed.
        unhashed_files: How many files were only seen to be there.
        unpushed_files: How many files this clone's cache alone has, of a run that is not registered.
    """

    query: str
    kind: str
    id: str
    title: str
    deep: bool
    offline: bool
    hops: list[HopReport] = field(default_factory=list)
    hashed_bytes: int = 0
    unhashed_files: int = 0
    unpushed_files: int = 0
    asked_at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @property
    def verdict(self) -> str:
        """Return the worst verdict of the hops: BROKEN outranks UNREACHABLE, which outranks ERASED."""
        return max((hop.verdict for hop in self.hops), key=WORST.index)

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command."""
        return EXIT_CODES[self.verdict]

    @property
    def headline(self) -> str:
        """Return the verdict, with the first hop that has it where that is not INTACT."""
        number, hop = next((n, hop) for n, hop in enumerate(self.hops, 1) if hop.verdict == self.verdict)
        return self.verdict if self.verdict == INTACT else f"{self.verdict} at hop {number}, {hop.name}"

    def as_dict(self) -> dict[str, Any]:
        """Return it in types of JSON."""
        head = {"schema": SCHEMA, "verdict": self.verdict, "exit_code": self.exit_code, "headline": self.headline}
        return head | asdict(self)

    def text(self) -> str:
        """Return it for a terminal."""
        lines = [f"{self.title}: {click.style(self.headline, COLORS[self.verdict], bold=True)}"]
        width = max(len(hop.name) for hop in self.hops)
        for number, hop in enumerate(self.hops, 1):
            verdict = click.style(hop.verdict.ljust(11), COLORS[hop.verdict])
            lines.append(f"{number:>3} {hop.name.ljust(width)}  {verdict}  {hop.text}")
            if hop.verdict == BROKEN and hop.expected:
                lines += [f"{'':>{width + 6}}expected {hop.expected}", f"{'':>{width + 6}}there is {hop.actual}"]
            if hop.fix:
                lines.append(f"{'':>{width + 6}}Fix: {hop.fix}")
        lines.append(f"{self.hashed_bytes / 1e6:.1f} MB were hashed.")
        if self.unhashed_files:
            lines[-1] += f" {self.unhashed_files} files of the data are there, and were not hashed: --deep"
        if self.unpushed_files:
            lines.append(f"{self.unpushed_files} files are in this clone's cache alone: dvc push")
        return "\n".join(lines)


def verify(name: str, deep: bool = False, offline: bool = False) -> Report:
    """Check that something is what was recorded.

    Args:
        name: As `names.find` takes it; a subject is refused.
        deep: Hash every file of the dataset, and fetch what a server of MLflow has.
        offline: Read Git and the files of DVC's remote alone; DVC and MLflow need not be installed.

    Raises:
        ProjectError: Nothing has the name, several things have it, or it is a subject.
    """
    history = History(offline=offline)
    return _verify(find(name, history), name, deep, history, set())


def _verify(target: Target, name: str, deep: bool, history: History, seen: set[str]) -> Report:
    chain = _chain(target, deep, history)
    version = chain.tagged
    title = f"{history.model} version {version.number}" if version else f"{target.kind} {target.id[:12]}"
    report = Report(name, target.kind, str(version.number) if version else target.id, title, deep, history.offline)
    seen.add(title)
    report.hops += _walk(chain)
    for parent in chain.facts.get("parents") or ():
        report.hops.append(_parent(parent, deep, history, seen))
    report.hashed_bytes, report.unhashed_files, report.unpushed_files = chain.hashed, chain.unhashed, chain.unpushed
    return report


def _chain(target: Target, deep: bool, history: History) -> Chain:
    """Return the chain of a target; of a run or a commit that made a version, that of the version."""
    if target.kind == "subject":
        problem = f"{target.id} is a subject: what is verified is a version, a run, a commit or a dataset"
        raise ProjectError(problem, f"python -m mlops trace subject:{target.id} names those that know it")
    chain = Chain(history, deep, version_of(target, history), target.alias)
    if target.kind == "version" and not chain.tagged:
        problem = f"this clone has no tag of version {target.id}, which MLflow has"
        raise ProjectError(problem, "git fetch --tags origin && git fetch origin lineage:lineage")
    if chain.tagged:
        logged = logged_commits(chain.tagged.number)
        commit = chain.tagged.commit if chain.tagged.commit in logged or not logged else logged[-1]
        chain.results = history.pinned_at(commit)
        chain.run = chain.results.report("run").get("run", "") if chain.results else run_of(target, history)
    elif target.kind == "run":
        chain.run, chain.results = target.id, history.results(target.id)
        chain.pinned = history.pinned_at(history.inputs.get(target.id, ""))
    elif target.kind == "commit":
        chain.pinned = history.pinned_at(target.id)
    else:
        chain.pinned = next(
            (each for each in history.pinned.values() if each.quick_out("data/dataset") == target.id), None
        )
    if not (chain.results or chain.pinned):
        problem = f"no commit of this clone pins {target.kind} {target.id[:12]}"
        raise ProjectError(problem, "git fetch --tags origin && git fetch origin lineage:lineage")
    return chain


def _walk(chain: Chain) -> Iterator[HopReport]:
    """Check hop by hop; what needs a hop that failed is checked as far as it goes."""
    chain.erased = erased = tombstones()
    for name, hop in HOPS.items():
        if (name in OF_VERSION and not chain.tagged) or (name in OF_RESULTS and not chain.results):
            continue
        if name in ONLINE and chain.history.offline:
            yield HopReport(name, SKIPPED, "MLflow was not asked: --offline")
            continue
        if name not in (*OF_VERSION, *OF_RESULTS, "commit") and not chain.pinned:
            yield HopReport(name, UNREACHABLE, "the commit that the run read is unknown: see above")
            continue
        try:
            yield HopReport(name, INTACT, hop(chain))
        except BrokenError as error:
            yield HopReport(name, BROKEN, error.problem, error.fix, error.expected, error.actual)
        except (UnreachableError, MlflowAwayError, MlflowError, ShallowCloneError) as error:
            yield HopReport(name, UNREACHABLE, error.problem, error.fix)
        except ProjectError as error:
            stone = next((stone for md5, stone in erased.items() if md5 in error.problem), None)
            if isinstance(error, LostError) and stone:
                yield HopReport(name, ERASED, f"{error.problem}; {stone}")
            else:
                yield HopReport(name, BROKEN, error.problem, error.fix)
        if name == "run" and not chain.facts and chain.results:  # damaged: what Git alone says of its inputs
            chain.pinned = chain.pinned or chain.history.pinned_at(chain.history.inputs.get(chain.run, ""))


def _parent(run: str, deep: bool, history: History, seen: set[str]) -> HopReport:
    """Verify what a run started from, as one hop."""
    version = next((v for v in history.versions.values() if run in v.made_by), None)
    target = Target("version", str(version.number)) if version else Target("run", run)
    title = f"{history.model} version {version.number}" if version else f"run {run}"
    if title in seen:
        return HopReport("started from", SKIPPED, f"{title}: verified above")
    try:
        report = _verify(target, title, deep, history, seen)
    except ProjectError as error:
        return HopReport("started from", UNREACHABLE, f"{title}: {error.problem}", error.fix)
    hop = next(hop for hop in report.hops if hop.verdict == report.verdict)
    text = f"{title} is {report.headline}" + ("" if report.verdict == INTACT else f": {hop.text}")
    return HopReport("started from", report.verdict, text, hop.fix, hop.expected, hop.actual)

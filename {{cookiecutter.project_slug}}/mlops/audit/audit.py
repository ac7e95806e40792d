"""The questions: who is in which model, and is that allowed.

An `Audit` reads all runs and brings the index up to date; each question to it returns an `AuditReport`. Nothing is
changed. What can't be read is never taken for a PASS: the verdict is INCONCLUSIVE, or an error is raised.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, reduce
from operator import or_
from typing import Any

from ..config import load_platform
from ..errors import ProjectError
from ..records.consent import Registry
from ..records.ids import parse_id
from . import catalog
from .catalog import SERVING, Deployment
from .catalog_mlflow import Catalog, CatalogIssue, Run, Version
from .index import InconclusiveError, Index, Membership, ingest
from .policy import Consent, Exposure, ExposureGraph, Timing, Verdict, judge, read_registry, worst
from .report import AuditReport, Row, Rows, format_time

UNKNOWN_RUNS = "not all runs that made it are known"


def parse_subjects(subjects: Iterable[str]) -> list[str]:
    """Return ids as manifests have them, each once; raise ProjectError if there is none, or one is empty or no text."""
    ids = list(map(parse_id, [subjects] if isinstance(subjects, str) else subjects))
    if not ids or not all(ids):
        problem = "a subject is empty" if ids else "no subject is named"
        raise ProjectError(problem, "name subjects, or give a --subjects-file with one id a line")
    return list(dict.fromkeys(ids))


@dataclass(frozen=True)
class Query:
    """What is judged."""

    memberships: dict[str, Membership]  # the subjects, and which manifests hold each
    consents: dict[str, Consent]  # of each subject
    targets: Mapping[str, Sequence[Deployment | None]]  # runs to look at, by id, and where each is deployed
    unknown: list[Row]  # runs and versions among these whose subjects can't be determined
    issues: Sequence[CatalogIssue]  # why there may be runs or deployments that are not among these
    served: bool = False  # whether the question is if they may be served
    orphans: bool = False  # whether a version is served whose runs are not all known
    incomplete: bool = False  # whether there may be subjects that are not among these

    def verdict(self, exposure: Exposure, timing: Timing, deployment: Deployment | None) -> Verdict:
        """Return the verdict on one run; if only the log says that it is served, that is no FAIL."""
        verdict = judge(exposure, timing, self.served)
        is_unsure = deployment and deployment.only_logged and verdict is Verdict.FAIL
        return Verdict.INCONCLUSIVE if is_unsure else verdict


class Audit:
    """The runs as they are now, by default MLflow's, and the index, by default the repository's, up to date with them.

    Errors are those of `mlops.audit`.
    """

    def __init__(self, source: Catalog | None = None, index: Index | None = None) -> None:
        self.catalog = source or catalog.read()
        self.index = index or Index()
        self._runs = {run.id: run for run in self.catalog.runs}
        manifests = {run.manifest for run in self.catalog.runs if run.manifest}
        self.source = {**self.catalog.source, "runs": len(self.catalog.runs), "manifests": len(manifests)}
        self.missing = ingest(self.index, manifests, self.catalog.manifest_sources)  # why each is missing
        self.numbers = self.index.numbers()
        self.graph = ExposureGraph(self.catalog.runs, self.numbers, self.missing)
        self._exposures = cache(self.graph.exposures)  # thousands of subjects are in the same manifests
        only_logged = [issue.version for issue in self.catalog.issues if issue.version]
        versions = dict.fromkeys([*self.catalog.versions, *only_logged])
        # The known runs that made each version; for those of an orphan, see `is_orphan`.
        self.runs_of = {version: self.graph.runs_named(version.runs) for version in versions}
        self._versions_of: defaultdict[str, list[str]] = defaultdict(list)
        for version, runs in self.runs_of.items():
            for run in runs:
                self._versions_of[run.id].append(str(version))

    def find(self, subjects: Iterable[str]) -> AuditReport:
        """Return which runs, and so which versions and aliases, know the subjects, and how."""
        memberships = self.index.memberships(parse_subjects(subjects))

        def rows() -> Iterator[Row]:
            for subject, membership in memberships.items():
                for run, exposure in self._exposed(membership):
                    yield self._row(run, membership, subject=subject, exposure=exposure)

        counts = [{"subject": subject, "runs": len(self._exposed(where))} for subject, where in memberships.items()]
        is_unknown = any(Exposure.UNKNOWN in self._exposures(where).values() for where in memberships.values())
        issues = [issue for issue in self.catalog.issues if issue.alias or issue.incomplete]
        verdict = Verdict.INCONCLUSIVE if is_unknown or issues else None
        unknown = self._unknown(self._runs) + [issue.row for issue in issues]
        notes = _absent(memberships) + [issue.note for issue in issues]
        return AuditReport("find", verdict, counts, Rows(rows), unknown, notes, self.source)

    def verify(self, subjects: Iterable[str], since: datetime | None = None) -> AuditReport:
        """Return whether the runs that know the subjects were trained while they consented, or before `since`."""
        registry = None if since else read_registry()
        memberships = self.index.memberships(parse_subjects(subjects))
        ended = Consent("ended", since)
        consents = {subject: Consent.of(subject, registry) if registry else ended for subject in memberships}
        issues = [issue for issue in self.catalog.issues if issue.incomplete]
        targets = {run: [None] for run in self._runs}
        query = Query(memberships, consents, targets, self._unknown(self._runs), issues)
        return self._judge("verify", query, registry, _absent(memberships))

    def deployed(self, subjects: Iterable[str] | None = None) -> AuditReport:
        """Return whether what is served knows one of the subjects, or by default anybody, without their consent."""
        registry, issues = read_registry(), self.catalog.issues
        deployments = [deployment for deployments_in in SERVING for deployment in deployments_in(self.catalog)]
        targets: dict[str, list[Deployment | None]] = {}
        for deployment in deployments:
            for run in self.runs_of[deployment.version]:
                targets.setdefault(run.id, []).append(deployment)
        orphans = [each for each in deployments if self.is_orphan(each.version)]
        unknown = self._unknown(targets) + [{"served_by": str(each), "path": [UNKNOWN_RUNS]} for each in orphans]
        if subjects is None:
            denied = {subject for subject in self._members(targets) if not registry.allows(subject)}
            wanted = sorted({*registry.ended, *registry.doubtful, *denied})
        else:
            wanted = parse_subjects(subjects)
        memberships = self.index.memberships(wanted)
        consents = {subject: Consent.of(subject, registry) for subject in memberships}
        incomplete = bool(unknown) and subjects is None  # they may know subjects who are not in the registry
        query = Query(memberships, consents, targets, unknown, issues, True, bool(orphans), incomplete)
        nothing = ["nothing is served: no registered version has an alias"]
        return self._judge("deployed", query, registry, [] if deployments or issues else nothing)

    def members(self, name: str) -> AuditReport:
        """Return who is in a model or a run: a version, an alias or a run, see `named`."""
        runs = self.named(name)
        rows = [{"subject": subject, "exposure": exposure} for subject, exposure in sorted(self._members(runs).items())]
        unknown = self._unknown(runs)
        return AuditReport("list", Verdict.INCONCLUSIVE if unknown else None, [], rows, unknown, [], self.source)

    def diff(self, first: str, second: str) -> AuditReport:
        """Return who is in only one of two models or runs, named as for `members`."""
        runs = self.named(first), self.named(second)
        before, after = map(self._members, runs)
        rows = [
            {"subject": subject, "change": "added" if subject in after else "removed", "exposure": exposure}
            for subject, exposure in sorted((before | after).items())
            if (subject in before) != (subject in after)
        ]
        unknown = self._unknown(runs[0] | runs[1])
        return AuditReport("diff", Verdict.INCONCLUSIVE if unknown else None, [], rows, unknown, [], self.source)

    def named(self, name: str) -> dict[str, Run]:
        """Return the runs, by id, of a version, or the run with this id in MLflow or in DVC.

        Args:
            name: `model/3`, `model@alias`, `model` for all its versions, with `models:/` before it or not; of the
                project's model just `3` or `alias`; or a run's id.

        Raises:
            InconclusiveError: The runs of a version are unknown, or MLflow and the log disagree about the alias.
        """
        text, model = name.removeprefix("models:/"), load_platform().project
        for issue in self.catalog.issues:
            if issue.alias and text in (issue.alias, f"{model}@{issue.alias}"):
                raise InconclusiveError(issue.problem, issue.fix)
        meant = {text, f"{model}/{text}", f"{model}@{text}"}
        versions = [version for version in self.catalog.versions if meant & version.names]
        for version in filter(self.is_orphan, versions):
            raise InconclusiveError(f"{UNKNOWN_RUNS}: {version}", "python -m mlops mirror repair, if it lost runs")
        runs = [run for version in versions for run in self.runs_of[version]] or self.graph.runs_named([name])
        if len(name) >= 12:  # as tables show it
            runs = runs or [run for run in self.catalog.runs if run.id.startswith(name)]
        if not runs:
            registered = ", ".join(map(str, self.catalog.versions[-10:])) or "none"
            problem = f"there is no version, alias or run {name!r} (registered: {registered})"
            raise ProjectError(problem, "python -m mlops registry list; a run goes by its id in MLflow or DVC")
        return {run.id: run for run in runs}

    def is_orphan(self, version: Version) -> bool:
        """Return whether not all runs that made a version are known."""
        return not version.runs or not all(self.graph.runs_named([name]) for name in version.runs)

    def _exposed(self, membership: Membership) -> list[tuple[Run, Exposure]]:
        """Return the runs that know a subject, or hold an id like it; those that are unknown to all are left out."""
        return [
            (self._runs[run], exposure)
            for run, exposure in self._exposures(membership).items()
            if exposure is not Exposure.UNKNOWN or self.graph.nodes[run].complete
        ]

    def _members(self, runs: Iterable[str]) -> dict[str, Exposure]:
        """Return the subjects that any of the runs knows, as far as that can be determined."""
        nodes = [self.graph.nodes[run] for run in runs]
        direct = self.index.members(reduce(or_, (node.own for node in nodes), 0))
        inherited = self.index.members(reduce(or_, (node.inherited for node in nodes), 0))
        return dict.fromkeys(inherited, Exposure.INHERITED) | dict.fromkeys(direct, Exposure.DIRECT)

    def _unknown(self, runs: Iterable[str]) -> list[Row]:
        """Return the runs whose subjects can't be determined, and why."""
        return [self._row(self._runs[run], Membership()) for run in runs if not self.graph.nodes[run].complete]

    def _judge(self, verb: str, query: Query, registry: Registry | None, notes: list[str]) -> AuditReport:
        def rows() -> Iterator[Row]:
            for subject, membership in query.memberships.items():
                consent = query.consents[subject]
                for run, exposure in self._exposed(membership) if consent.status != "active" else ():
                    for deployment in query.targets.get(run.id, ()):
                        row = self._row(run, membership, subject=subject, exposure=exposure)
                        timing = consent.timing(run)
                        row |= {"timing": timing, "verdict": query.verdict(exposure, timing, deployment)}
                        yield row | ({"served_by": str(deployment)} if deployment else {})

        @cache  # thousands of subjects have the same
        def verdict_of(membership: Membership, consent: Consent) -> Verdict:
            verdicts = [
                query.verdict(exposure, consent.timing(self._runs[run]), deployment)
                for run, exposure in self._exposures(membership).items()
                for deployment in query.targets.get(run, ())
            ]
            if query.orphans and consent.status != "active":
                verdicts.append(Verdict.INCONCLUSIVE)
            return worst(verdicts)

        subjects: list[Row] = []
        for subject, membership in query.memberships.items():
            consent = query.consents[subject]
            row = {"subject": subject, "consent": consent.status, "ended_at": format_time(consent.ended)}
            runs = len(self._exposed(membership))
            subjects.append({**row, "runs": runs, "verdict": verdict_of(membership, consent)})
        unknown = query.unknown + [issue.row for issue in query.issues]
        notes = notes + [issue.note for issue in query.issues]
        source = {**self.source, "consent_sha256": registry.sha256} if registry else self.source
        if registry and (in_doubt := registry.doubts(query.memberships)):
            notes.append(in_doubt)
        unsure = [Verdict.INCONCLUSIVE] if query.issues or query.incomplete else []
        verdict = worst([*(row["verdict"] for row in subjects), *unsure])
        return AuditReport(verb, verdict, subjects, Rows(rows), unknown, notes, source)

    def _row(self, run: Run, membership: Membership, **columns: Any) -> Row:
        return {
            **columns,
            "run": run.id,
            "title": run.title,
            "experiment": run.experiment,
            "started_at": format_time(run.started),
            "ended_at": format_time(run.ended),
            "deleted": run.deleted,
            "versions": self._versions_of.get(run.id, []),
            "path": self.graph.path(run.id, membership),
        }


def _absent(memberships: dict[str, Membership]) -> list[str]:
    absent = [subject for subject, membership in memberships.items() if membership == Membership()]
    shown = ", ".join(map(repr, absent[:5])) + (", …" if absent[5:] else "")
    return [f"in no manifest: {len(absent)} ({shown}). Check that they are spelled as in the data"] if absent else []

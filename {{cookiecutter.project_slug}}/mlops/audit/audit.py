"""The questions: who is in which model, and may they be there.

An `Audit` reads MLflow and brings the index up to date; each question to it returns a `Report`. Nothing is changed, and
what can't be read is never taken for good: the verdict is INCONCLUSIVE then, or there is an error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..config import load_platform
from ..errors import ProjectError
from ..records.consent import Registry
from . import catalog, manifests
from .catalog_mlflow import Catalog, Doubt, Run, Version
from .cli_args import plain, read_registry
from .deployments import SERVING, Deployment
from .exposure import Exposure, Exposures
from .index import InconclusiveError, Index, Membership
from .policy import Consent, Timing, Verdict, judge, worst
from .report import AuditReport, Row, Rows, moment

NOBODY_KNOWS = "nobody knows all runs that made it"


@dataclass(frozen=True)
class Query:
    """What is to be judged.

    Args:
        held: The subjects, and which manifests hold them.
        consents: Of each subject.
        targets: The runs to look at, by id, and what serves each.
        unknown: Of which of these nobody can tell whom they know.
        served: Whether the question is if they may be served.
        orphans: Whether something is served of which the runs are not known.
        doubt: Whether the whole is in doubt: somebody may be known who is not among the subjects, or served what
            nobody told of.
    """

    held: dict[str, Membership]
    consents: dict[str, Consent]
    targets: Mapping[str, Sequence[Deployment | None]]
    unknown: list[Row]
    served: bool = False
    orphans: bool = False
    doubt: bool = False


class Audit:
    """The runs as they are now, and the index brought up to date with them.

    Args:
        there: What there is; by default, what MLflow has.
        index: By default the repository's.

    Attributes:
        made: The runs that made each version, as far as they are known: see `is_orphan`.

    Raises:
        NoAnswerError: MLflow can't be reached, or refuses.
        UndecidedError: The index can't be used.
    """

    def __init__(self, there: Catalog | None = None, index: Index | None = None) -> None:
        self.world = there or catalog.read()
        self.index = index or Index()
        wanted = {run.manifest for run in self.world.runs if run.manifest}
        self.lacking = manifests.ingest(self.index, wanted, self.world.places)
        self.numbers = self.index.numbers()
        self.exposures = Exposures(self.world.runs, self.numbers, self.lacking)
        self._runs = {run.id: run for run in self.world.runs}
        self.made = {version: self.exposures.runs(version.runs) for version in self._looked_at()}
        self._versions: dict[str, list[str]] = {}
        for version, made in self.made.items():
            for run in made:
                self._versions.setdefault(run.id, []).append(str(version))
        self._of: dict[Membership, dict[str, Exposure]] = {}  # thousands of subjects are in the same manifests

    def find(self, subjects: Iterable[str]) -> AuditReport:
        """Tell which runs, and so which versions and aliases, know the subjects, and how."""
        held = self.index.memberships(plain(subjects))

        def rows() -> Iterator[Row]:
            for subject, where in held.items():
                for run, exposure in self._listed(where):
                    yield self._row(subject, where, run, exposure)

        asked = [{"subject": subject, "runs": len(self._listed(where))} for subject, where in held.items()]
        undecided = any(Exposure.UNKNOWN in self._exposures(where).values() for where in held.values())
        doubts = [doubt for doubt in self.world.doubts if doubt.alias or doubt.cut]  # of runs, or of who has an alias
        verdict = Verdict.INCONCLUSIVE if undecided or doubts else None
        unknown = self._unknown(self._runs) + _unsettled(doubts)
        return self._report("find", verdict, asked, Rows(rows), unknown, _strangers(held) + _settle(doubts))

    def verify(self, subjects: Iterable[str], since: datetime | None = None) -> AuditReport:
        """Tell whether the runs that know the subjects were trained while they consented.

        Args:
            subjects: Their ids.
            since: Take it that their consent ended then, whatever the registry says.

        Raises:
            ProjectError: There is no registry, it is malformed, or no subject is named.
        """
        registry = None if since else read_registry()
        held = self.index.memberships(plain(subjects))
        consents = {one: Consent.of(one, registry) if registry else Consent("ended", since) for one in held}
        doubts = [doubt for doubt in self.world.doubts if doubt.cut]
        unknown = self._unknown(self._runs) + _unsettled(doubts)
        case = Query(held, consents, {run: [None] for run in self._runs}, unknown, doubt=bool(doubts))
        return self._judged("verify", case, registry, _strangers(held) + _settle(doubts))

    def deployed(self, subjects: Iterable[str] | None = None) -> AuditReport:
        """Tell whether what is served knows anybody who does not consent.

        Args:
            subjects: Ask for these only; by default for everybody whose consent ended, and everybody who is in what
                is served.

        Raises:
            ProjectError: There is no registry, it is malformed, or no subject is named.
        """
        registry = read_registry()
        served = [one for known in SERVING for one in known(self.world)]
        targets: dict[str, list[Deployment | None]] = {}
        for one in served:
            for run in self.made[one.version]:
                targets.setdefault(run.id, []).append(one)
        orphans = [{"served_by": str(one), "path": [NOBODY_KNOWS]} for one in served if self.is_orphan(one.version)]
        unknown, doubts = self._unknown(targets) + orphans, self.world.doubts
        doubt = bool(doubts) or (bool(unknown) and subjects is None)  # whom that knows need not be in the registry
        if subjects is None:
            people, _ = self._members(targets)
            asked = sorted({*registry.ended, *registry.doubtful, *(one for one in people if not registry.allows(one))})
        else:
            asked = plain(subjects)
        held = self.index.memberships(asked)
        consents = {one: Consent.of(one, registry) for one in held}
        notes = _settle(doubts) if served or doubts else ["nothing is served: no registered version has an alias"]
        unknown += _unsettled(doubts)
        case = Query(held, consents, targets, unknown, served=True, orphans=bool(orphans), doubt=doubt)
        return self._judged("deployed", case, registry, notes)

    def members(self, name: str) -> AuditReport:
        """Tell who is in a model or a run: a version, an alias or a run, see `named`."""
        found = self.named(name)
        people, whole = self._members(found)
        rows = [{"subject": subject, "exposure": exposure} for subject, exposure in sorted(people.items())]
        return self._report("list", None if whole else Verdict.INCONCLUSIVE, [], rows, self._unknown(found))

    def diff(self, one: str, other: str) -> AuditReport:
        """Tell who is in only one of two models or runs."""
        named = [self.named(name) for name in (one, other)]
        (before, whole), (after, too) = map(self._members, named)
        added, removed = after.keys() - before.keys(), before.keys() - after.keys()
        changes = dict.fromkeys(added, "added") | dict.fromkeys(removed, "removed")
        rows = [
            {"subject": subject, "change": change, "exposure": (before | after)[subject]}
            for subject, change in sorted(changes.items())
        ]
        verdict = None if whole and too else Verdict.INCONCLUSIVE
        return self._report("diff", verdict, [], rows, self._unknown(named[0] | named[1]))

    def named(self, name: str) -> dict[str, Run]:
        """Return the runs that a name means, by id.

        Args:
            name: `model/3`, `model@alias`, `models:/…`, `model` for all its versions; of the project's model just `3`
                or `alias`; or a run, by its id in MLflow or in DVC.

        Raises:
            ProjectError: Nothing has that name.
            UndecidedError: The runs of a version are not known, or MLflow and the log disagree about who has an alias.
        """
        text, model = name.removeprefix("models:/"), load_platform().project
        for doubt in self.world.doubts:
            if doubt.alias and text in (doubt.alias, f"{model}@{doubt.alias}"):
                raise InconclusiveError(doubt.problem, doubt.fix)
        versions = [version for version in self.world.versions if text in _names(version)]
        for version in versions:
            if self.is_orphan(version):
                raise InconclusiveError(f"{NOBODY_KNOWS}: {version}", "python -m mlops mirror repair, if it lost runs")
        found = [run for version in versions for run in self.made[version]] or self.exposures.runs([name])
        if not found:
            there = ", ".join(str(version) for version in self.world.versions[-10:]) or "none"
            problem = f"there is no version, alias or run {name!r} (registered: {there})"
            raise ProjectError(problem, "python -m mlops registry list; a run goes by its id in MLflow or DVC")
        return {run.id: run for run in found}

    def _looked_at(self) -> dict[Version, None]:
        """Return the versions, also those that only the log says are served."""
        return dict.fromkeys([*self.world.versions, *(doubt.version for doubt in self.world.doubts if doubt.version)])

    def is_orphan(self, version: Version) -> bool:
        """Return whether not all runs that made a version are known."""
        return not version.runs or not all(self.exposures.runs([name]) for name in version.runs)

    def _exposures(self, where: Membership) -> dict[str, Exposure]:
        if where not in self._of:
            self._of[where] = self.exposures.of(where)
        return self._of[where]

    def _listed(self, where: Membership) -> list[tuple[Run, Exposure]]:
        """Return the runs that know a subject, or hold an id like it; those that are unknown to all are left out."""
        return [
            (self._runs[run], exposure)
            for run, exposure in self._exposures(where).items()
            if exposure is not Exposure.UNKNOWN or self.exposures.reads(run)[2]
        ]

    def _members(self, found: Iterable[str]) -> tuple[dict[str, Exposure], bool]:
        """Return whom runs know, together, and whether that is all."""
        own, inherited, whole = 0, 0, True
        for run in found:
            reads = self.exposures.reads(run)
            own, inherited, whole = own | reads[0], inherited | reads[1], whole and reads[2]
        people = dict.fromkeys(self.index.members(inherited), Exposure.INHERITED)
        return people | dict.fromkeys(self.index.members(own), Exposure.DIRECT), whole

    def _unknown(self, found: Iterable[str]) -> list[Row]:
        nobody = Membership()
        whole = (run for run in found if not self.exposures.reads(run)[2])
        return [self._facts(self._runs[run]) | {"path": self.exposures.path(run, nobody)} for run in whole]

    def _judged(self, verb: str, case: Query, registry: Registry | None, notes: list[str]) -> AuditReport:
        def rows() -> Iterator[Row]:
            for subject, where in case.held.items():
                for run, exposure in self._listed(where) if case.consents[subject].status != "active" else ():
                    for one in case.targets.get(run.id, ()):
                        judged = self._timed(case, subject, run, exposure, one)
                        yield (
                            self._row(subject, where, run, exposure) | judged | ({"served_by": str(one)} if one else {})
                        )

        asked, verdicts = [], {}
        for subject, where in case.held.items():
            consent = case.consents[subject]
            if (where, consent) not in verdicts:
                verdicts[where, consent] = self._verdict(case, subject, where)
            told = {"subject": subject, "consent": consent.status, "ended_at": moment(consent.ended)}
            asked.append({**told, "runs": len(self._listed(where)), "verdict": verdicts[where, consent]})
        if registry and (doubts := registry.doubts(case.held)):
            notes = [*notes, doubts]
        doubt = [Verdict.INCONCLUSIVE] if case.doubt else []
        verdict = worst([*verdicts.values(), *doubt])
        return self._report(verb, verdict, asked, Rows(rows), case.unknown, notes, registry)

    def _verdict(self, case: Query, subject: str, where: Membership) -> Verdict:
        consent, found = case.consents[subject], list[Verdict]()
        for run, exposure in self._exposures(where).items():
            if run in case.targets:
                judged = judge(exposure, consent.timing(self._runs[run]), case.served)
                found.extend(_sure(judged, one) for one in case.targets[run])
        if case.orphans:
            found.append(judge(Exposure.UNKNOWN, Timing.ACTIVE if consent.status == "active" else Timing.NEVER, True))
        return worst(found)

    def _timed(self, case: Query, subject: str, run: Run, exposure: Exposure, served: Deployment | None) -> Row:
        timing = case.consents[subject].timing(run)
        return {"timing": timing, "verdict": _sure(judge(exposure, timing, case.served), served)}

    def _row(self, subject: str, where: Membership, run: Run, exposure: Exposure) -> Row:
        return {
            "subject": subject,
            "exposure": exposure,
            **self._facts(run),
            "path": self.exposures.path(run.id, where),
        }

    def _facts(self, run: Run) -> Row:
        return {
            "run": run.id,
            "title": run.title,
            "experiment": run.experiment,
            "started_at": moment(run.started),
            "ended_at": moment(run.ended),
            "deleted": run.deleted,
            "versions": self._versions.get(run.id, []),
        }

    def _report(
        self,
        verb: str,
        verdict: Verdict | None,
        asked: list[Row],
        rows: Iterable[Row],
        unknown: list[Row],
        notes: Iterable[str] = (),
        registry: Registry | None = None,
    ) -> AuditReport:
        read = {"runs": len(self.world.runs), "manifests": len({run.manifest for run in self.world.runs} - {None})}
        consents = {"consent_sha256": registry.sha256} if registry else {}
        return AuditReport(verb, verdict, asked, rows, unknown, list(notes), {**self.world.source, **read, **consents})


def _strangers(held: dict[str, Membership]) -> list[str]:
    nowhere = [subject for subject, where in held.items() if where == Membership()]
    shown = ", ".join(map(repr, nowhere[:5])) + (", …" if nowhere[5:] else "")
    return [f"in no manifest: {len(nowhere)} ({shown}). Are they written as in the data?"] if nowhere else []


def _sure(verdict: Verdict, served: Deployment | None) -> Verdict:
    """Return a verdict as sure as it is that the version is served: what only the log says is no FAIL."""
    return Verdict.INCONCLUSIVE if served and served.logged and verdict is Verdict.FAIL else verdict


def _unsettled(doubts: Iterable[Doubt]) -> list[Row]:
    return [{"served_by": doubt.what, "path": [doubt.problem]} for doubt in doubts]


def _settle(doubts: Iterable[Doubt]) -> list[str]:
    return [f"{doubt.what}: {doubt.problem}. Fix: {doubt.fix}" for doubt in doubts]


def _names(version: Version) -> set[str]:
    own = {str(version.number), *version.aliases} if version.model == load_platform().project else set()
    of_model = {f"{version.model}/{version.number}", *(f"{version.model}@{alias}" for alias in version.aliases)}
    return own | of_model | {version.model}

"""What answers somewhere: a registered version that an alias points at. Add to `SERVING` who else serves models.

Serving resolves MLflow's aliases; the log, the Git branch `lineage`, says who was promoted, and outlives an MLflow that
is lost. Where the two don't say the same, nobody can tell what is served, and that is no PASS.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..config import load_platform
from ..errors import ProjectError
from ..registry.aliases import ALIASES, FETCH_LOG, SYNC_LOG, alias_changes, alias_holders
from ..tracking import lineage_log
from ..tracking.lineage_log import REF
from ..tracking.sync_status import REPAIR
from .catalog_mlflow import Catalog, Doubt, Version

NO_LOG = Doubt("this clone has no log (the Git branch lineage), which says what was promoted", FETCH_LOG)

NO_RUNS = Doubt(
    "MLflow has no run of this project, and this clone has no log (the Git branch lineage) that says which there were",
    f"{FETCH_LOG}; see that MLflow is the right one (platform.yaml:tracking_uri)",
    cut=True,
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version that answers somewhere.

    Args:
        where: For people, such as `alias champion`.
        version: The version.
        logged: Whether only the log says so.
    """

    where: str
    version: Version
    logged: bool = False

    def __str__(self) -> str:
        return f"{self.where} ({self.version.model}/{self.version.number})"


def aliased(there: Catalog) -> Iterator[Deployment]:
    """Give the versions that have an alias."""
    for version in there.versions:
        for alias in version.aliases:
            yield Deployment(f"alias {alias}", version)


def logged(there: Catalog) -> Iterator[Deployment]:
    """Give the versions that have an alias in the log only."""
    for doubt in there.doubts:
        if doubt.version:
            yield Deployment(f"{doubt.alias} in the log", doubt.version, logged=True)


SERVING: list[Callable[[Catalog], Iterable[Deployment]]] = [aliased, logged]
"""Who knows what is served. Yours to add to."""


@dataclass(frozen=True)
class Log:
    """What the log says of the project's model.

    Args:
        versions: Those that were registered, by number; without aliases.
        aliases: The version of each alias; None when that can't be read.
        doubts: Why this may not be all.
        is_own: Whether this clone has a log of its own; else it is a Git remote's, as it was fetched, or none.
    """

    versions: dict[int, Version]
    aliases: dict[str, int] | None
    doubts: tuple[Doubt, ...]
    is_own: bool

    def lost(self, versions: Iterable[Version]) -> list[Version]:
        """Return the versions that were registered, and are not among those of MLflow."""
        numbers = {version.number for version in versions if version.model == load_platform().project}
        return [version for number, version in self.versions.items() if number not in numbers]


def read_log() -> Log:
    """Read the log: this clone's own, or, before it has one, that of a Git remote."""
    refs, registered = lineage_log.log_refs(), dict[int, Version]()
    is_own = REF in refs
    try:
        registered = _registered(lineage_log.log())
        if not refs:
            return Log(registered, None, (NO_LOG,), is_own)
        log_ref = REF if is_own else next((ref for ref in refs if not lineage_log.is_behind_remote(ref)), refs[0])
        log_moves = alias_changes(log_ref)
        elsewhere = {move.id for ref in refs for move in alias_changes(ref)} - {move.id for move in log_moves}
    except ProjectError as error:
        doubt = Doubt(error.problem, error.fix, cut=isinstance(error, lineage_log.ShallowCloneError))
        return Log(registered, None, (doubt,), is_own)
    aliases = {alias: numbers[-1] for alias, numbers in alias_holders(log_moves).items() if numbers}
    for number in aliases.values():  # one that was promoted without an entry of its registration
        registered.setdefault(number, Version(load_platform().project, number, (), ()))
    doubts = (Doubt("the log of a Git remote has promotions that this clone's lacks", SYNC_LOG),) if elsewhere else ()
    return Log(registered, aliases, doubts, is_own)


def _registered(log: Iterable[lineage_log.Entry]) -> dict[int, Version]:
    made: dict[int, list[str]] = {}
    for entry in log:
        if entry.version is not None:
            made.setdefault(entry.version, []).append(entry.run)
    name = load_platform().project
    return {number: Version(name, number, (), tuple(dict.fromkeys(made[number]))) for number in sorted(made)}


def compare(log: Log, versions: Iterable[Version]) -> tuple[Doubt, ...]:
    """Return what MLflow and the log don't agree on, and what of the log can't be read.

    Args:
        log: The log.
        versions: What MLflow has.
    """
    own = {version.number: version for version in versions if version.model == load_platform().project}
    in_mlflow = {alias: version for version in own.values() for alias in version.aliases}
    if NO_LOG in log.doubts and in_mlflow:
        return ()  # without a log, what MLflow says is all there is to judge
    if log.aliases is None:
        return log.doubts
    disputes = (_dispute(log, alias, own, in_mlflow.get(alias)) for alias in ALIASES)
    return (*log.doubts, *filter(None, disputes))


def _dispute(log: Log, alias: str, own: dict[int, Version], in_mlflow: Version | None) -> Doubt | None:
    number = (log.aliases or {}).get(alias)
    in_log = log.versions[number] if number is not None else None
    if in_log and _is_same(own.get(in_log.number), in_log):
        in_log = own[in_log.number]
    if in_mlflow == in_log:
        return None
    if in_mlflow and in_log and in_mlflow.number == in_log.number:
        problem = f"version {in_log.number} is {alias}, but in MLflow other runs made it than in the log"
        return Doubt(problem, "platform.yaml:tracking_uri: the server that this log is of", alias, in_log)
    words = [f"version {version.number}" if version else "none" for version in (in_mlflow, in_log)]
    problem = f"{alias} is {words[0]} in MLflow, and {words[1]} in the log"
    if in_mlflow:
        return Doubt(problem, SYNC_LOG, alias, in_log)
    repair = REPAIR if log.is_own else f"{FETCH_LOG}, then {REPAIR}"
    given_up = f"python -m mlops registry promote <another> --to {alias}"
    return Doubt(problem, f"{repair}; if that version was given up: {given_up}", alias, in_log)


def _is_same(in_mlflow: Version | None, in_log: Version) -> bool:
    """Return whether a version of MLflow's is that of the log: another server may give its number to another model."""
    if in_mlflow is None:
        return False
    return not (in_log.runs and in_mlflow.runs) or bool(set(in_log.runs) & set(in_mlflow.runs))

"""Everything that an audit looks at: runs, versions and what is served, from MLflow and from Git's and DVC's history.

The history is read when MLflow is lost or is to be checked. A training that failed, or whose results nobody committed,
has left only the commit that it read: its times are unknown, so it counts as trained after any revocation.

Serving resolves MLflow's aliases. The log, the Git branch `lineage`, records who promoted which version, and survives a
lost MLflow. If the two disagree, it is unknown what is served, and no answer is PASS. Add to `SERVING` what else serves
models.
"""

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ..config import load_platform
from ..errors import ProjectError
from ..files import read_json
from ..registry.aliases import ALIASES, FETCH_LOG, SYNC_LOG, alias_changes, alias_holders
from ..registry.versions import MODEL_URI
from ..tracking import dvc_remote, lineage_log
from ..tracking.git import GitError, git
from ..tracking.lineage_log import REF, KnownRun, ShallowCloneError
from ..tracking.run_files import LINEAGE
from ..tracking.sync_status import REPAIR
from . import catalog_mlflow
from .catalog_mlflow import Catalog, CatalogIssue, Run, Version
from .index import MANIFEST, Fetch, InconclusiveError

NO_LOG = CatalogIssue("this clone has no log (the Git branch lineage), which says what was promoted", FETCH_LOG)
NO_RUNS = CatalogIssue(
    "MLflow has no run of this project, and this clone has no log (the Git branch lineage) that says which there were",
    f"{FETCH_LOG}; see that MLflow is the right one (platform.yaml:tracking_uri)",
    incomplete=True,
)


def read(source: str = "mlflow", experiments: Sequence[str] = ()) -> Catalog:
    """Read all runs and versions; arguments and errors are those of `mlops.audit`.

    Raises:
        InconclusiveError: There is no run at all: an empty MLflow proves nothing.
        ShallowCloneError: This clone is shallow, and nothing else has a run.
    """
    if source == "dvc" and experiments:
        raise ProjectError("DVC's history has no MLflow experiments", "leave out --experiment, or --source dvc")
    catalog = read_all_history() if source == "dvc" else _read_mlflow(tuple(experiments))
    if not catalog.runs:
        raise InconclusiveError(
            f"there is no run in {' and '.join(map(str, filter(None, catalog.source.values())))}: nothing to look at",
            "see that it is the right one (platform.yaml:tracking_uri), and has what it had: mirror status",
        )
    return catalog


def _read_mlflow(experiments: tuple[str, ...]) -> Catalog:
    """Read MLflow; look up in DVC's history the trainings and versions that the log has and MLflow lacks."""
    catalog, log, project = catalog_mlflow.read(experiments), read_log(), load_platform().project
    issues = compare(log, catalog.versions)
    if not experiments and NO_LOG in log.issues and all(run.experiment != project for run in catalog.runs):
        issues = (NO_RUNS,)  # another server, or one that lost its runs
    numbers = {version.number for version in catalog.versions if version.model == project}
    lost_versions = [version for number, version in log.versions.items() if number not in numbers]
    catalog = replace(catalog, versions=[*catalog.versions, *lost_versions], issues=issues)
    if experiments and project not in experiments:
        return catalog
    try:
        lost = read_history(without={name for run in catalog.runs for name in run.names})
    except ShallowCloneError:
        if not catalog.runs:
            raise
        return catalog  # one of the issues says so

    def manifest_sources(sha256: str) -> Iterable[Fetch]:
        yield from catalog.manifest_sources(sha256)
        if any(run.manifest == sha256 for run in lost.runs):
            yield from lost.manifest_sources(sha256)

    return replace(catalog, runs=[*catalog.runs, *lost.runs], manifest_sources=manifest_sources)


def read_history(without: Collection[str] = ()) -> Catalog:
    """Read the runs in the history of this clone, also of branches and logs that were fetched; leave out `without`.

    Raises:
        ShallowCloneError: This clone is shallow.
    """
    known = {name: run for name, run in lineage_log.runs().items() if name not in without}
    log = lineage_log.log() if known or not without else []
    of_versions = _runs_of_versions(log)
    inputs = {entry.run: entry.commit for entry in log if entry.version is None}
    runs = [_run(run, inputs.get(name, ""), of_versions) for name, run in known.items()]

    def manifest_sources(sha256: str) -> Iterator[Fetch]:
        names = [run.id for run in runs if run.manifest == sha256]
        commits = [commit for name in names for commit in (*known[name].commits, inputs.get(name)) if commit]
        for commit in dict.fromkeys(commits):
            yield partial(_restore_manifest, commit)

    return Catalog(runs, [], manifest_sources)


def _restore_manifest(commit: str, folder: Path) -> Path:
    dvc_remote.restore(commit, (MANIFEST,), folder)
    return folder / MANIFEST


def read_all_history() -> Catalog:
    """Read the runs in the history and, from the log, the versions and their aliases."""
    catalog, log, refs = read_history(), read_log(), lineage_log.log_refs()
    holders = log.aliases or {}
    versions = [
        replace(version, aliases=tuple(alias for alias, holder in holders.items() if holder == number))
        for number, version in sorted(log.versions.items())
    ]
    tips = git("for-each-ref", "--format=%(objectname)", *refs).split() if refs else ["no log"]
    source = {"git": " ".join(dict.fromkeys(tips)), "experiments": None}
    return replace(catalog, versions=versions, source=source, issues=log.issues)


def _run(run: KnownRun, input_commit: str, of_versions: dict[int, list[str]]) -> Run:
    facts = _read_facts(run) or (_read_inputs(input_commit, of_versions) if input_commit else {})
    started, ended = (
        datetime.fromisoformat(facts[key]) if key in facts else None for key in ("started_at", "ended_at")
    )
    parents = None if facts.get("parents") is None else tuple(facts["parents"])
    project, manifest = load_platform().project, facts.get("manifest_sha256")
    return Run(run.run, (run.run,), run.name, project, started, ended, False, manifest, parents)


def _read_facts(run: KnownRun) -> dict[str, Any]:
    """Return what a run recorded, from the newest commit with its results that can be restored."""
    for commit in run.commits:
        with tempfile.TemporaryDirectory() as folder:
            try:
                dvc_remote.restore(commit, (LINEAGE.as_posix(),), Path(folder))
                facts: dict[str, Any] = read_json(Path(folder) / LINEAGE)
            except (ProjectError, OSError, ValueError):
                continue
        if facts.get("run") == run.run:
            return facts
    return {}


def _read_inputs(commit: str, of_versions: dict[int, list[str]]) -> dict[str, Any]:
    """Return the manifest and the parents of a training, from the commit that it read."""
    try:
        sha256 = json.loads(git("show", f"{commit}:./reports/manifest.json"))["sha256"][0]
        init_from = YAML(typ="safe").load(git("show", f"{commit}:./params.yaml"))["train"]["init_from"]
    except (GitError, ValueError, KeyError, TypeError):
        return {}
    if not init_from:
        return {"manifest_sha256": sha256, "parents": []}
    uri = MODEL_URI.fullmatch(init_from)
    runs = of_versions.get(int(uri["version"])) if uri and uri["name"] == load_platform().project else None
    return {"manifest_sha256": sha256, "parents": runs[:1] if runs else None}


@dataclass(frozen=True)
class Log:
    """What the log says of the project's model."""

    versions: dict[int, Version]  # registered versions by number, without aliases
    aliases: dict[str, int] | None  # the version of each alias; None if that can't be read
    issues: tuple[CatalogIssue, ...]  # why this may be incomplete


def read_log() -> Log:
    """Read the log: this clone's own or, before it has one, that of a Git remote."""
    project, refs = load_platform().project, lineage_log.log_refs()
    versions: dict[int, Version] = {}
    try:
        runs = _runs_of_versions(lineage_log.log())
        versions = {number: Version(project, number, (), tuple(dict.fromkeys(runs[number]))) for number in sorted(runs)}
        if not refs:
            return Log(versions, None, (NO_LOG,))
        log_ref = REF if REF in refs else next((ref for ref in refs if not lineage_log.is_behind_remote(ref)), refs[0])
        promotions = alias_changes(log_ref)
        is_behind = {move.id for ref in refs for move in alias_changes(ref)} > {move.id for move in promotions}
    except ProjectError as error:
        issue = CatalogIssue(error.problem, error.fix, incomplete=isinstance(error, ShallowCloneError))
        return Log(versions, None, (issue,))
    aliases = {alias: numbers[-1] for alias, numbers in alias_holders(promotions).items() if numbers}
    for number in aliases.values():  # a promotion without an entry of the registration
        versions.setdefault(number, Version(project, number, (), ()))
    behind = CatalogIssue("the log of a Git remote has promotions that this clone's lacks", SYNC_LOG)
    return Log(versions, aliases, (behind,) if is_behind else ())


def _runs_of_versions(log: Iterable[lineage_log.Entry]) -> dict[int, list[str]]:
    runs: dict[int, list[str]] = {}
    for entry in log:
        if entry.version is not None:
            runs.setdefault(entry.version, []).append(entry.run)
    return runs


def compare(log: Log, versions: Iterable[Version]) -> tuple[CatalogIssue, ...]:
    """Return what MLflow, which has `versions`, and the log disagree on, and what of the log can't be read."""
    own = {version.number: version for version in versions if version.model == load_platform().project}
    in_mlflow = {alias: version for version in own.values() for alias in version.aliases}
    if NO_LOG in log.issues and in_mlflow:
        return ()  # without a log, MLflow's aliases are all that can be judged
    if log.aliases is None:
        return log.issues
    differences = (_compare_alias(alias, log, own, in_mlflow.get(alias)) for alias in ALIASES)
    return (*log.issues, *filter(None, differences))


def _compare_alias(alias: str, log: Log, own: dict[int, Version], in_mlflow: Version | None) -> CatalogIssue | None:
    number = (log.aliases or {}).get(alias)
    in_log = log.versions[number] if number is not None else None
    known = own.get(in_log.number) if in_log else None
    # Another MLflow server may use the number for another model.
    if in_log and known and (not (in_log.runs and known.runs) or set(in_log.runs) & set(known.runs)):
        in_log = known
    if in_mlflow == in_log:
        return None
    if in_mlflow and in_log and in_mlflow.number == in_log.number:
        problem = f"version {in_log.number} is {alias}, but in MLflow other runs made it than in the log"
        return CatalogIssue(problem, "platform.yaml:tracking_uri: the server that this log is of", alias, in_log)
    holders = [f"version {version.number}" if version else "none" for version in (in_mlflow, in_log)]
    problem = f"{alias} is {holders[0]} in MLflow, and {holders[1]} in the log"
    if in_mlflow:
        return CatalogIssue(problem, SYNC_LOG, alias, in_log)
    repair = REPAIR if REF in lineage_log.log_refs() else f"{FETCH_LOG}, then {REPAIR}"
    promote = f"python -m mlops registry promote <another> --to {alias}"
    return CatalogIssue(problem, f"{repair}; if that version was given up: {promote}", alias, in_log)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version that is served."""

    where: str  # for people, such as `alias champion`
    version: Version
    only_logged: bool = False  # whether only the log says so

    def __str__(self) -> str:
        return f"{self.where} ({self.version.model}/{self.version.number})"


def with_alias(catalog: Catalog) -> list[Deployment]:
    """Return the versions that have an alias in MLflow."""
    return [Deployment(f"alias {alias}", version) for version in catalog.versions for alias in version.aliases]


def with_alias_in_log(catalog: Catalog) -> list[Deployment]:
    """Return the versions that have an alias only in the log."""
    return [Deployment(f"{issue.alias} in the log", issue.version, True) for issue in catalog.issues if issue.version]


SERVING: list[Callable[[Catalog], Iterable[Deployment]]] = [with_alias, with_alias_in_log]
"""Functions that list deployed versions. Extend this list."""

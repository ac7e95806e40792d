"""Everything that an audit looks at: runs, versions and what is served, from MLflow and from Git's and DVC's history.

The history is read when MLflow is lost or is to be checked. A training that failed, or whose results nobody committed,
has left only the commit that it read: its times are unknown, so it counts as trained after any revocation.

Serving resolves MLflow's aliases. The log, the Git branch `lineage`, records who promoted which version, and survives a
lost MLflow. If the two disagree, it is unknown what is served, and no answer is PASS. Add to `SERVING` what else serves
models.
"""

import contextlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .catalog_mlflow import Catalog, CatalogIssue, Run, Version, read_mlflow
from .index import MANIFEST, Fetch, InconclusiveError

NO_LOG = CatalogIssue("this clone has no log (the Git branch lineage), which says what was promoted", FETCH_LOG)
NO_RUNS = CatalogIssue(
    "MLflow has no run of this project, and this clone has no log (the Git branch lineage) that says which there were",
    f"{FETCH_LOG}; see that MLflow is the right one (platform.yaml:tracking_uri)",
    incomplete=True,
)


@dataclass(frozen=True)
class Log:
    """What the log says of the project's model."""

    inputs: dict[str, str]  # the commit that each training read, by run
    versions: dict[int, Version]  # registered versions by number, without aliases
    aliases: dict[str, int] | None  # the version of each alias; None if that can't be read
    issues: tuple[CatalogIssue, ...]  # why this may be incomplete


def read(source: str = "mlflow", experiments: Sequence[str] = ()) -> Catalog:
    """Read all runs and versions; arguments and errors are those of `mlops.audit`. An empty MLflow proves nothing."""
    if source == "dvc" and experiments:
        raise ProjectError("DVC's history has no MLflow experiments", "leave out --experiment, or --source dvc")
    mlflow = read_mlflow(tuple(experiments)) if source == "mlflow" else None
    project, log = load_platform().project, read_log()
    if mlflow:  # with the versions that it lacks, and what it and the log disagree on
        issues = tuple(compare(log, mlflow.versions))
        if not experiments and NO_LOG in log.issues and all(run.experiment != project for run in mlflow.runs):
            issues = (NO_RUNS,)  # another server, or one that lost its runs
        numbers = {version.number for version in mlflow.versions if version.model == project}
        lost = [version for number, version in log.versions.items() if number not in numbers]
        catalog = replace(mlflow, versions=[*mlflow.versions, *lost], issues=issues)
    else:
        versions = [
            replace(version, aliases=tuple(alias for alias, holder in (log.aliases or {}).items() if holder == number))
            for number, version in sorted(log.versions.items())
        ]
        refs = lineage_log.log_refs()
        tips = git("for-each-ref", "--format=%(objectname)", *refs).split() if refs else ["no log"]
        read_from = {"git": " ".join(dict.fromkeys(tips)), "experiments": None}
        catalog = Catalog([], versions, lambda sha256: (), read_from, log.issues)
    if not experiments or project in experiments:
        catalog = _add_history(catalog, log)
    if not catalog.runs:
        raise InconclusiveError(
            f"there is no run in {' and '.join(map(str, filter(None, catalog.source.values())))}: nothing to look at",
            "see that it is the right one (platform.yaml:tracking_uri), and has what it had: mirror status",
        )
    return catalog


def _add_history(catalog: Catalog, log: Log) -> Catalog:
    """Add the runs that the catalog lacks of those in this clone's history, also of branches that were fetched."""
    known_already = {name for run in catalog.runs for name in run.names}
    try:
        lost = {name: run for name, run in lineage_log.runs().items() if name not in known_already}
    except ShallowCloneError:
        if not catalog.runs:
            raise
        return catalog  # one of the issues says so
    runs = [_run(run, log) for run in lost.values()]

    def restore(commit: str, folder: str) -> Path:
        dvc_remote.restore(commit, (MANIFEST,), Path(folder))
        return Path(folder, MANIFEST)

    def manifest_sources(sha256: str) -> Iterator[Fetch]:
        yield from catalog.manifest_sources(sha256)
        names = [run.id for run in runs if run.manifest == sha256]
        commits = [commit for name in names for commit in (*lost[name].commits, log.inputs.get(name)) if commit]
        for commit in dict.fromkeys(commits):
            yield partial(restore, commit)

    return replace(catalog, runs=[*catalog.runs, *runs], manifest_sources=manifest_sources)


def _run(run: KnownRun, log: Log) -> Run:
    """Return what a run recorded, from the newest commit with its results that can be restored, or what it read."""
    for commit in run.commits:
        with contextlib.suppress(ProjectError, OSError, ValueError), tempfile.TemporaryDirectory() as folder:
            dvc_remote.restore(commit, (LINEAGE.as_posix(),), Path(folder))
            facts: dict[str, Any] = read_json(Path(folder) / LINEAGE)
            if facts.get("run") == run.run:
                break
    else:
        facts = _read_inputs(run, log)
    started, ended = (
        datetime.fromisoformat(facts[key]) if key in facts else None for key in ("started_at", "ended_at")
    )
    parents = None if facts.get("parents") is None else tuple(facts["parents"])
    project, manifest = load_platform().project, facts.get("manifest_sha256")
    dataset = facts.get("dataset_md5", ""), facts.get("data_version", "")
    return Run(run.run, (run.run,), run.name, project, started, ended, False, manifest, parents, *dataset)


def _read_inputs(run: KnownRun, log: Log) -> dict[str, Any]:
    """Return the manifest and the parents of a training, from the commit that it read, if the log names it."""
    if not (commit := log.inputs.get(run.run)):
        return {}
    try:
        sha256 = json.loads(git("show", f"{commit}:./reports/manifest.json"))["sha256"][0]
        init_from = YAML(typ="safe").load(git("show", f"{commit}:./params.yaml"))["train"]["init_from"]
    except (GitError, ValueError, KeyError, TypeError):
        return {}
    if not init_from:
        return {"manifest_sha256": sha256, "parents": []}
    uri = MODEL_URI.fullmatch(init_from)
    version = log.versions.get(int(uri["version"])) if uri and uri["name"] == load_platform().project else None
    return {"manifest_sha256": sha256, "parents": version.runs[:1] if version and version.runs else None}


def read_log() -> Log:
    """Read the log: this clone's own or, before it has one, that of a Git remote."""
    project, refs = load_platform().project, lineage_log.log_refs()
    inputs: dict[str, str] = {}
    versions: dict[int, Version] = {}
    try:
        runs: defaultdict[int, list[str]] = defaultdict(list)
        for entry in lineage_log.log():
            if entry.version is None:
                inputs[entry.run] = entry.commit
            else:
                runs[entry.version].append(entry.run)
        versions = {number: Version(project, number, (), tuple(dict.fromkeys(runs[number]))) for number in sorted(runs)}
        if not refs:
            return Log(inputs, versions, None, (NO_LOG,))
        log_ref = REF if REF in refs else next((ref for ref in refs if not lineage_log.is_behind_remote(ref)), refs[0])
        promotions = alias_changes(log_ref)
        is_behind = {move.id for ref in refs for move in alias_changes(ref)} > {move.id for move in promotions}
    except ProjectError as error:
        issue = CatalogIssue(error.problem, error.fix, incomplete=isinstance(error, ShallowCloneError))
        return Log(inputs, versions, None, (issue,))
    aliases = {alias: numbers[-1] for alias, numbers in alias_holders(promotions).items() if numbers}
    for number in aliases.values():  # a promotion without an entry of the registration
        versions.setdefault(number, Version(project, number, (), ()))
    behind = CatalogIssue("the log of a Git remote has promotions that this clone's lacks", SYNC_LOG)
    return Log(inputs, versions, aliases, (behind,) if is_behind else ())


def compare(log: Log, versions: Iterable[Version]) -> Iterator[CatalogIssue]:
    """Give what MLflow, which has `versions`, and the log disagree on, and what of the log can't be read."""
    own = {version.number: version for version in versions if version.model == load_platform().project}
    holders = {alias: version for version in own.values() for alias in version.aliases}
    if NO_LOG in log.issues and holders:
        return  # without a log, MLflow's aliases are all that can be judged
    yield from log.issues
    if log.aliases is None:
        return
    for alias in ALIASES:
        in_mlflow, in_log = holders.get(alias), log.versions.get(log.aliases.get(alias, 0))
        known = own.get(in_log.number) if in_log else None
        # Another MLflow server may use the number for another model.
        if in_log and known and (not (in_log.runs and known.runs) or set(in_log.runs) & set(known.runs)):
            in_log = known
        if in_mlflow == in_log:
            continue
        names = [f"version {version.number}" if version else "none" for version in (in_mlflow, in_log)]
        problem = f"{alias} is {names[0]} in MLflow, and {names[1]} in the log"
        if in_mlflow and in_log and in_mlflow.number == in_log.number:
            problem = f"{names[1]} is {alias}, but in MLflow other runs made it than in the log"
            fix = "platform.yaml:tracking_uri: the server that this log is of"
        elif in_mlflow:
            fix = SYNC_LOG
        else:
            repair = REPAIR if REF in lineage_log.log_refs() else f"{FETCH_LOG}, then {REPAIR}"
            fix = f"{repair}; if that version was given up: python -m mlops registry promote <another> --to {alias}"
        yield CatalogIssue(problem, fix, alias, in_log)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version that is served."""

    where: str  # for people, such as `alias champion`
    version: Version
    only_logged: bool = False  # whether only the log says so

    def __str__(self) -> str:
        return f"{self.where} ({self.version.model}/{self.version.number})"


def with_alias(catalog: Catalog) -> Iterator[Deployment]:
    """Give the versions that have an alias in MLflow, and those that have one only in the log."""
    for version in catalog.versions:
        yield from (Deployment(f"alias {alias}", version) for alias in version.aliases)
    for issue in catalog.issues:
        if issue.version:
            yield Deployment(f"{issue.alias} in the log", issue.version, True)


SERVING: list[Callable[[Catalog], Iterable[Deployment]]] = [with_alias]
"""Functions that list deployed versions. Extend this list."""

"""The history of the project in this clone: runs, versions and aliases, from Git, and from MLflow if it is there.

Git is the authority. MLflow adds its own ids of runs, the runs that other clones trained, and where its aliases are.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..config import load_platform
from ..errors import ProjectError
from ..registry.aliases import ALIASES, AliasChange, Registry, alias_changes, alias_holders
from ..registry.versions import MODEL_URI, TaggedVersion, tagged_versions
from ..tracking import lineage_log, mlflow_client, mlflow_reader
from ..tracking.lineage_log import KnownRun
from ..tracking.mlflow_reader import StoredRun, StoredVersion
from ..tracking.mlflow_sync import MIRROR_ID
from ..tracking.run_context import DATASET
from . import commits
from .commits import Pinned
from .objects import Objects

SNAPSHOT = re.compile(rb"What \S+ reads\s*")  # as tracking.run_context names it
PARENT = re.compile(rb"^parent ([0-9a-f]+)$", re.MULTILINE)
INIT_FROM = re.compile(r"^\s+init_from:\s*['\"]?(models:/[^\s'\"#]+)", re.MULTILINE)


@dataclass
class History:
    """What this clone knows of runs, versions and aliases; each part is read when it is asked for.

    Args:
        offline: Whether MLflow is left alone.
        notes: What could not be read, and why; it grows.
    """

    offline: bool = False
    notes: list[str] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list, init=False)  # MLflow's ids of the project's

    @cached_property
    def model(self) -> str:
        """Return the name of the registered model."""
        return load_platform().project

    @cached_property
    def objects(self) -> Objects:
        """Return the files that DVC keeps."""
        return Objects(Path())

    @cached_property
    def versions(self) -> dict[int, TaggedVersion]:
        """Return the versions that have a Git tag, by number."""
        return tagged_versions()

    @cached_property
    def runs(self) -> dict[str, KnownRun]:
        """Return the runs that the log or a commit names, by id."""
        return lineage_log.runs()

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Return the commit that each run of the log read, by run."""
        return {entry.run: entry.commit for entry in reversed(lineage_log.log()) if entry.version is None}

    @cached_property
    def changes(self) -> list[AliasChange]:
        """Return who moved which alias, the oldest first."""
        return alias_changes()

    @cached_property
    def pinned(self) -> dict[str, Pinned]:
        """Return what the commits pin that runs read, and those with results of runs and versions."""
        results = [run.commits[0] for run in self.runs.values() if run.commits]
        return commits.read([*self.inputs.values(), *results, *(version.commit for version in self.versions.values())])

    def pinned_at(self, commit: str) -> Pinned | None:
        """Return what a commit pins; None if this clone lacks it."""
        return self.pinned.get(commit) or commits.read([commit]).get(commit)

    @cached_property
    def mlflow_runs(self) -> dict[str, StoredRun]:
        """Return MLflow's runs of this project by the ids that they have in DVC; none where it can't be asked."""
        with self._noted(), mlflow_client.translate_errors(mlflow_client.RETRY):
            if reader := self.reader:
                return {run.facts.get(MIRROR_ID, run.id): run for run in reader.runs(self.experiments)}
        return {}

    @cached_property
    def mlflow_versions(self) -> dict[int, StoredVersion]:
        """Return MLflow's versions by number; none where it can't be asked."""
        with self._noted(), mlflow_client.translate_errors(mlflow_client.RETRY):
            if reader := self.reader:
                return {int(version.version): version for version in reader.versions(self.model)}
        return {}

    @cached_property
    def aliases(self) -> dict[str, int]:
        """Return the version of each alias in use: MLflow's, or the log's where MLflow can't be asked."""
        with self._noted(), mlflow_client.translate_errors(mlflow_client.RETRY):
            if reader := self.reader:
                return reader.aliases(self.model).get(self.model, {})
        return self.logged_aliases

    @cached_property
    def logged_aliases(self) -> dict[str, int]:
        """Return the version of each alias in the log."""
        return {alias: numbers[-1] for alias, numbers in alias_holders(self.changes).items() if numbers}

    @cached_property
    def holders(self) -> dict[str, int]:
        """Return the version of each alias: MLflow's, or the log's where it has none. Notes say where they differ."""
        in_mlflow, in_log = self.aliases, self.logged_aliases
        registry = Registry(self.model, self.mlflow_versions, in_mlflow, self.changes)
        for alias in ALIASES:
            with self._noted():
                if in_mlflow.get(alias) != in_log.get(alias):
                    where = f"{in_mlflow.get(alias, 'none')} in MLflow, and {in_log.get(alias, 'none')} in the log"
                    raise ProjectError(f"{alias} is version {where} of this clone", registry.fix_of(alias))
        return in_log | in_mlflow

    @cached_property
    def snapshots(self) -> dict[str, str]:
        """Return the commit of a person that each snapshot was made of which a run read."""
        parents = {}
        for commit, kind, content in commits.objects(dict.fromkeys(self.inputs.values())):
            header, _, message = content.partition(b"\n\n")
            if kind == b"commit" and SNAPSHOT.fullmatch(message) and (match := PARENT.search(header)):
                parents[commit] = match[1].decode()
        return parents

    @cached_property
    def reader(self) -> mlflow_reader.Reader | None:
        """Return what reads MLflow; None if it is left alone, or can't be reached."""
        if self.offline:
            return None
        with self._noted(), mlflow_client.translate_errors(mlflow_client.RETRY):
            reader = mlflow_reader.connect()
            self.experiments = [each.id for each in reader.experiments() if each.name == self.model]
            return reader
        return None

    def _noted(self) -> "_Noted":
        return _Noted(self.notes)

    def dataset_of(self, run: str) -> str:
        """Return the hash of the dataset that a run read; "" if it is unknown."""
        if pinned := self.pinned.get(self.inputs.get(run, "")):
            return pinned.quick_out(DATASET)
        stored = self.mlflow_runs.get(run)
        return stored.facts.get("dataset_md5", "") if stored else ""

    def started_from(self, run: str) -> int | None:
        """Return the version whose weights a run started from; None for none, or one of another model."""
        pinned = self.pinned.get(self.inputs.get(run, ""))
        match = INIT_FROM.search(pinned.texts.get("params.yaml", "")) if pinned else None
        uri = MODEL_URI.fullmatch(match[1]) if match else None
        return int(uri["version"]) if uri and uri["name"] == self.model else None

    def results(self, run: str) -> Pinned | None:
        """Return what the newest commit with the results of a run pins; None if they were never committed."""
        known = self.runs.get(run)
        of_versions = [version.commit for version in self.versions.values() if run in version.made_by]
        for commit in (*(known.commits if known else ()), *of_versions):
            pinned = self.pinned_at(commit)
            if pinned and pinned.report("run").get("run") == run:
                return pinned
        return None


class _Noted:
    """Writes a ProjectError of a block down as a note, once."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, _: object) -> bool:
        if not isinstance(error, ProjectError):
            return False
        if (note := f"{error.problem}. Fix: {error.fix}") not in self._notes:
            self._notes.append(note)
        return True

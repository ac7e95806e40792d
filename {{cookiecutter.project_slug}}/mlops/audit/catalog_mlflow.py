"""The runs, registered versions and aliases that MLflow has: all experiments, all pages, deleted runs too.

Missing information is unknown, never absent.
"""

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ..errors import ProjectError
from ..registry.versions import TAG_RUN_PREFIX
from ..tracking import mlflow_client, mlflow_reader
from ..tracking.git import without_credentials
from ..tracking.mlflow_sync import MIRROR_ID
from .index import MANIFEST, Fetch

RETRY = "see that the server is up (platform.yaml:tracking_uri); or ask Git's and DVC's history: audit … --source dvc"


@dataclass(frozen=True, slots=True)
class Run:
    """A training. None stands for what is unknown."""

    id: str  # in MLflow; if it was read from DVC's history, its id there
    names: tuple[str, ...]  # ids by which `parents` and tags of versions refer to it
    title: str  # for people
    experiment: str  # name of the MLflow experiment
    started: datetime | None  # UTC
    ended: datetime | None  # UTC; None, too, if it has not ended
    deleted: bool  # whether a person deleted it
    manifest: str | None  # SHA-256 of the manifest of the data that it was trained on
    parents: tuple[str, ...] | None  # runs that it was fine-tuned from
    dataset_md5: str = ""  # DVC's hash of the data
    data_version: str = ""  # their label, or the short hash


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version."""

    model: str
    number: int
    aliases: tuple[str, ...]
    runs: tuple[str, ...]  # that made it, each by one of its names

    def __str__(self) -> str:
        return f"{self.model}/{self.number}{''.join(f' @{alias}' for alias in self.aliases)}"

    @property
    def names(self) -> set[str]:
        """Return what it may be called: `model/3`, `model@alias`, or the model that it is of."""
        return {self.model, f"{self.model}/{self.number}", *(f"{self.model}@{alias}" for alias in self.aliases)}


@dataclass(frozen=True, slots=True)
class CatalogIssue:
    """Why it is unknown what is served, or whether all runs are known."""

    problem: str  # what disagrees, or can't be read
    fix: str  # the command that settles it
    alias: str = ""  # of the project's model; "" if it concerns all of them
    version: Version | None = None  # has the alias only in the log; it is audited too
    incomplete: bool = False  # whether runs may be missing from the catalog

    @property
    def row(self) -> dict[str, Any]:
        """Return it as a row of what is unknown."""
        return {"served_by": f"alias {self.alias}" if self.alias else "the log of this clone", "path": [self.problem]}

    @property
    def note(self) -> str:
        """Return it for people."""
        return f"{self.row['served_by']}: {self.problem}. Fix: {self.fix}"


@dataclass(frozen=True)
class Catalog:
    """Everything that an audit looks at."""

    runs: list[Run]  # every training, the first one first
    versions: list[Version]
    manifest_sources: Callable[[str], Iterable[Fetch]]  # where a manifest, by SHA-256, may be fetched, the best first
    source: dict[str, Any] = field(default_factory=dict)  # where this was read, for the report
    issues: tuple[CatalogIssue, ...] = ()  # what MLflow and the log disagree on, or what of the log can't be read


def read_mlflow(experiments: tuple[str, ...]) -> Catalog:
    """Read what MLflow has, of the experiments with these names or of all; raise MlflowError if it can't be reached."""
    with mlflow_client.translate_errors(RETRY):
        reader = mlflow_reader.connect()
        runs = read_runs(reader, experiments)
        aliases: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for model, holders in reader.aliases().items():
            for alias, number in holders.items():
                aliases[model, number].append(alias)
        made_by: dict[tuple[str, int], tuple[str, ...]] = {}
        for version in reader.versions():
            tagged = [tag.removeprefix(TAG_RUN_PREFIX) for tag in version.tags if tag.startswith(TAG_RUN_PREFIX)]
            names = filter(None, (version.run_id, version.tags.get("run"), *tagged))
            made_by[version.name, int(version.version)] = tuple(dict.fromkeys(names))
    # An alias of a version that MLflow does not list serves something all the same.
    keys = sorted({*made_by, *aliases})
    versions = [Version(*key, tuple(sorted(aliases[key])), made_by.get(key, ())) for key in keys]

    def manifest_sources(sha256: str) -> Iterator[Fetch]:
        for run in runs:
            if run.manifest == sha256:
                yield partial(_download, run.id)

    source = {"mlflow": without_credentials(mlflow_client.tracking_uri()), "experiments": list(experiments) or None}
    return Catalog(runs, versions, manifest_sources, source)


def _download(run: str, folder: str) -> str:
    return str(mlflow_client.client().download_artifacts(run, MANIFEST, folder))


def read_runs(reader: mlflow_reader.Reader, experiments: tuple[str, ...] = ()) -> list[Run]:
    """Return the trainings, the first one first; raise ProjectError if one of the experiments does not exist."""
    known = {each.id: each.name for each in reader.experiments()}
    if unknown := set(experiments) - set(known.values()):
        fix = f"--experiment with one of {', '.join(sorted(known.values()))}"
        raise ProjectError(f"MLflow has no experiment {', '.join(sorted(unknown))}", fix)
    names = {number: name for number, name in known.items() if not experiments or name in experiments}
    return [
        Run(
            id=run.id,
            names=tuple(dict.fromkeys(filter(None, (run.id, run.facts.get(MIRROR_ID))))),
            title=run.name or run.id,
            experiment=names[run.experiment],
            started=_time(run.started_ms),
            ended=_time(run.ended_ms),
            deleted=run.deleted,
            manifest=digest if re.fullmatch("[0-9a-f]{64}", digest := run.facts.get("manifest_sha256", "")) else None,
            parents=parse_parents(run.facts.get("parents", "")),
            dataset_md5=run.facts.get("dataset_md5", ""),
            data_version=run.facts.get("data_version", ""),
        )
        for run in reader.runs(names)
    ]


def parse_parents(text: str) -> tuple[str, ...] | None:
    """Return the runs that the param `parents` lists as JSON; None if it is no such list."""
    with contextlib.suppress(ValueError):
        parents = json.loads(text)
        if isinstance(parents, list) and all(isinstance(parent, str) and parent for parent in parents):
            return tuple(parents)
    return None


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None

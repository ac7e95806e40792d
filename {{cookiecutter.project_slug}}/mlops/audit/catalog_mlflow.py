"""The runs, registered versions and aliases that MLflow has, with what matters for an audit.

All experiments, all pages, deleted runs too. What a run does not say is unknown here, and never taken for nothing.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..registry.versions import TAG_RUN_PREFIX
from ..tracking import mlflow_client
from ..tracking.git import without_credentials
from ..tracking.mlflow_sync import MIRROR_ID
from .manifests import Fetch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PAGE = 1000
MANIFEST = "data/manifest.parquet"
RETRY = "see that the server is up (platform.yaml:tracking_uri); or ask Git's and DVC's history: audit … --source dvc"


@dataclass(frozen=True, slots=True)
class Run:
    """A training.

    Args:
        id: MLflow's id; DVC's history knows it by `names` alone, so its id is that there.
        names: What others call it: ids in their `parents`, and in tags of versions.
        title: For people.
        experiment: Name of its MLflow experiment.
        started: UTC; None when it does not say.
        ended: UTC; None when it has not ended, or does not say.
        deleted: Whether a person deleted it.
        manifest: SHA-256 of the manifest of what it was trained on; None when it does not say.
        parents: Runs that it was fine-tuned from; None when it does not say.
    """

    id: str
    names: tuple[str, ...]
    title: str
    experiment: str
    started: datetime | None
    ended: datetime | None
    deleted: bool
    manifest: str | None
    parents: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version.

    Args:
        model: Name of the registered model.
        number: Its number.
        aliases: What serves it.
        runs: Those that made it, by id or another name.
    """

    model: str
    number: int
    aliases: tuple[str, ...]
    runs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.model}/{self.number}{''.join(f' @{alias}' for alias in self.aliases)}"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why nobody can tell what is served, or which runs there were.

    Args:
        problem: Who says what.
        fix: The command that settles it.
        alias: An alias of the project's model; "" where it is about all of them.
        version: What only the log gives the alias to: it is looked at too.
        cut: Whether there may be runs, too, that nothing tells of.
    """

    problem: str
    fix: str
    alias: str = ""
    version: Version | None = None
    cut: bool = False

    @property
    def what(self) -> str:
        """Name what it is about."""
        return f"alias {self.alias}" if self.alias else "the log of this clone"


@dataclass(frozen=True)
class Catalog:
    """All that is asked about.

    Args:
        runs: Every training, the first one first.
        versions: Every registered version.
        places: Where a manifest may be had, the best first.
        source: Where this was read, for the record.
        doubts: What MLflow and the log don't agree on, or what of the log can't be read.
    """

    runs: list[Run]
    versions: list[Version]
    places: Callable[[str], Iterable[Fetch]]
    source: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()


def read(experiments: tuple[str, ...] = (), client: "MlflowClient | None" = None) -> Catalog:
    """Read what MLflow has.

    Args:
        experiments: Look at these experiments only, by name; by default at all.
        client: A connection.

    Raises:
        NoAnswerError: MLflow can't be reached, or refuses.
    """
    with mlflow_client.translate_errors(RETRY):
        client = client or mlflow_client.client()
        found = list(runs(client, experiments))
        versions = _versions(client)
    source = {"mlflow": without_credentials(str(client.tracking_uri)), "experiments": list(experiments) or None}
    return Catalog(found, versions, partial(_places, client, found), source)


def runs(client: "MlflowClient", experiments: tuple[str, ...] = ()) -> Iterator[Run]:
    """Give the trainings, the first one first."""
    from mlflow.entities import ViewType

    every = mlflow_client.pages(partial(client.search_experiments, ViewType.ALL))
    names = {one.experiment_id: one.name for one in every if not experiments or one.name in experiments}
    if unknown := set(experiments) - set(names.values()):
        raise ProjectError(f"MLflow has no experiment {', '.join(sorted(unknown))}", "see their names: make ui")
    order = ["attributes.start_time ASC"]  # a run that begins meanwhile doesn't move the pages
    if names:
        for one in mlflow_client.pages(partial(client.search_runs, list(names), "", ViewType.ALL, PAGE, order)):
            yield _run(one, names[one.info.experiment_id])


def _run(found: "MlflowRun", experiment: str) -> Run:
    info, params, tags = found.info, found.data.params, found.data.tags
    digest = params.get("manifest_sha256", "")
    return Run(
        id=info.run_id,
        names=tuple(dict.fromkeys((info.run_id, *filter(None, [tags.get(MIRROR_ID)])))),
        title=info.run_name or info.run_id,
        experiment=experiment,
        started=_time(info.start_time),
        ended=_time(info.end_time),
        deleted=info.lifecycle_stage == "deleted",
        manifest=digest if re.fullmatch("[0-9a-f]{64}", digest) else None,
        parents=parents_of(params.get("parents", "")),
    )


def parents_of(text: str) -> tuple[str, ...] | None:
    """Return what a run's param `parents` says, a list in JSON; None when that is no answer."""
    try:
        parents = json.loads(text)
    except ValueError:
        return None
    listed = isinstance(parents, list) and all(isinstance(parent, str) and parent for parent in parents)
    return tuple(parents) if listed else None


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _versions(client: "MlflowClient") -> list[Version]:
    aliases: dict[tuple[str, int], list[str]] = {}
    for model in mlflow_client.pages(client.search_registered_models):
        for alias, number in model.aliases.items():
            aliases.setdefault((model.name, int(number)), []).append(alias)
    found = []
    for one in mlflow_client.pages(client.search_model_versions):
        made = (
            one.run_id,
            one.tags.get("run"),
            *(tag.removeprefix(TAG_RUN_PREFIX) for tag in one.tags if tag.startswith(TAG_RUN_PREFIX)),
        )
        number = int(one.version)
        served = tuple(sorted(aliases.pop((one.name, number), ())))
        found.append(Version(one.name, number, served, tuple(dict.fromkeys(filter(None, made)))))
    # An alias of a version that MLflow does not show serves something all the same.
    found += [Version(name, number, tuple(sorted(served)), ()) for (name, number), served in aliases.items()]
    return sorted(found, key=lambda version: (version.model, version.number))


def _places(client: "MlflowClient", found: list[Run], sha256: str) -> Iterator[Fetch]:
    for run in found:
        if run.manifest == sha256:
            yield partial(_download, client, run.id)


def _download(client: "MlflowClient", run_id: str, folder: Path) -> Path:
    return Path(client.download_artifacts(run_id, MANIFEST, str(folder)))

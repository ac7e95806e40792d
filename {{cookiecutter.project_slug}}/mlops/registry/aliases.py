"""The versions and aliases that MLflow has, and how its aliases follow the log."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..config import load_platform
from ..errors import ProjectError
from ..tracking import lineage_log, mlflow_client
from ..tracking.sync_status import REPAIR
from .alias_log import ALIASES, CHALLENGER, CHAMPION, AliasChange, AliasState, alias_state, moves

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TAG = "move."  # a tag on the version that got the alias: a copy of the log's entry, for people
VERB = "python -m mlops registry"
RETRY = "see that the server is up (platform.yaml:tracking_uri), then the same command again"


@dataclass(frozen=True)
class Registry:
    """What MLflow and the log know of the project's model."""

    name: str
    versions: "dict[int, ModelVersion]"  # by number, in order
    aliases: dict[str, int]  # MLflow's
    log: list[AliasChange]  # of this clone

    @property
    def standing(self) -> AliasState:
        """Who has which alias, as the log says."""
        return alias_state(self.log)

    def find(self, text: str) -> "ModelVersion":
        """Return the version that a number or an alias names.

        Raises:
            ProjectError: None does.
        """
        number = int(text) if text.isdecimal() else self.aliases.get(text, 0)
        if number not in self.versions:
            there = ", ".join([*map(str, list(self.versions)[-10:]), *sorted(self.aliases)]) or "none"
            raise ProjectError(f"{self.name} has no version {text} in MLflow (it has {there})", f"{VERB} list")
        return self.versions[number]

    def check_agrees(self, move: AliasChange | None = None) -> None:
        """See that nobody moved an alias without this clone knowing: it would compare with the wrong champion, or none.

        Args:
            move: Look only at what matters to this one, which may have been interrupted after MLflow was told of it.

        Raises:
            ProjectError: Somebody did.
        """
        for alias in (CHAMPION,) if move and move.alias == CHAMPION else ALIASES:
            have, told = self.aliases.get(alias), self.standing.of(alias)
            right = {told if told in self.versions else None}  # MLflow takes a version's aliases away with it
            if have not in right | ({move.version} if move and move.alias == alias else set()):
                raise ProjectError(
                    f"{alias} is {have or 'none'} in MLflow, and {told or 'none'} in the log of this clone",
                    f"moved in another clone: there python -m mlops lineage push, here git fetch origin "
                    f"lineage:lineage (with entries of your own: lineage push). Moved by hand: {VERB} promote "
                    f"{have or '<version>'} --to {alias} records it. Lost by MLflow: python -m mlops mirror repair",
                )
        if CHAMPION not in self.aliases and lineage_log.is_behind_remote():
            raise ProjectError(
                "MLflow has no champion, and the log of a Git remote has entries that this clone's lacks: nobody can "
                "tell who is champion",
                "git fetch origin lineage:lineage (with entries of your own: python -m mlops lineage push)",
            )


def read() -> Registry:
    """Read what MLflow and the log know.

    Raises:
        ProjectError: MLflow can't be reached, nothing is registered yet, or the log can't be read.
    """
    import mlflow

    name, log = load_platform().project, moves()
    with mlflow_client.translate_errors(RETRY):
        models = mlflow_client.client().search_registered_models(f"name = '{name}'")
        if not models:
            problem = f"MLflow at {mlflow_client.tracking_uri()} has no registered model {name}"
            if numbers := {entry.version for entry in lineage_log.log() if entry.version is not None}:
                problem += f", and the log has its versions: {', '.join(map(str, sorted(numbers)))}"
                raise ProjectError(problem, f"{REPAIR}; or platform.yaml:tracking_uri: the server that has them")
            raise ProjectError(problem, "dvc repro: register makes it")
        found = {int(one.version): one for one in mlflow.search_model_versions(filter_string=f"name = '{name}'")}
    aliases = {alias: int(number) for alias, number in models[0].aliases.items()}
    return Registry(name, dict(sorted(found.items())), aliases, log)


def apply(registry: Registry, aliases: dict[str, int], log: Iterable[AliasChange]) -> None:
    """Set aliases in MLflow, and copy moves to it. Doing it again changes nothing."""
    with mlflow_client.translate_errors(RETRY):
        client = mlflow_client.client()
        for alias, number in aliases.items():
            client.set_registered_model_alias(registry.name, alias, str(number))
        if CHAMPION in aliases and registry.aliases.get(CHALLENGER) == aliases[CHAMPION]:  # it has won
            client.delete_registered_model_alias(registry.name, CHALLENGER)
        for move in log:
            if move.version in registry.versions and TAG + move.id not in registry.versions[move.version].tags:
                client.set_model_version_tag(registry.name, str(move.version), TAG + move.id, move.entry())


def replay() -> list[str]:
    """Give MLflow the aliases that the log tells of and it lacks, as after a wipe. Doing it again changes nothing.

    Returns:
        What was changed, a line each.

    Raises:
        ProjectError: MLflow can't be reached, or has an alias elsewhere: that stays, another clone may know better.
    """
    registry = read()
    wanted = {alias: number for alias in ALIASES if (number := registry.standing.of(alias)) in registry.versions}
    replace(registry, aliases={**wanted, **registry.aliases}).check_agrees()
    lacking = {alias: number for alias, number in wanted.items() if alias not in registry.aliases}
    apply(registry, lacking, registry.log)
    return [f"in MLflow {alias} is version {number}; it was none" for alias, number in lacking.items()]

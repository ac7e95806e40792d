"""The versions and aliases that MLflow has, and how they are made to say what the log says."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ProjectError
from ..settings import PACKAGE, load_platform
from ..tracking import server
from .moves import ALIASES, Move, Standing, moves, parse, standing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PAGE = 200
TAG = "move."  # a tag on the version that got the alias, with the move's id
LIST = f"python -m {PACKAGE} registry list"
RETRY = "see that the server is up (platform.yaml:tracking_uri), then the same command again"


@dataclass(frozen=True)
class Registry:
    """What MLflow and the log know of the project's model.

    Args:
        name: Name of the registered model.
        versions: By number, in order.
        aliases: MLflow's, with the numbers they point to.
        log: The moves in the log.
        foreign: Moves that MLflow's tags tell of and the log of this clone does not.
    """

    name: str
    versions: "dict[int, ModelVersion]"
    aliases: dict[str, int]
    log: list[Move]
    foreign: list[Move]

    @property
    def standing(self) -> Standing:
        """Who has which alias, as the log says."""
        return standing(self.log)

    def version(self, number: int) -> "ModelVersion":
        """Return a version.

        Raises:
            ProjectError: There is none with this number.
        """
        if number not in self.versions:
            raise ProjectError(f"{self.name} has no version {number} in MLflow ({_range(self.versions)})", LIST)
        return self.versions[number]

    def find(self, text: str) -> "ModelVersion":
        """Return the version that a number or an alias names.

        Raises:
            ProjectError: None does.
        """
        if text.isdecimal():
            return self.version(int(text))
        if text not in self.aliases:
            known = ", ".join(sorted(self.aliases)) or "none"
            raise ProjectError(f"{text!r} is neither a version's number nor an alias (aliases: {known})", LIST)
        return self.version(self.aliases[text])

    def of_run(self, run: str) -> "ModelVersion | None":
        """Return the version that holds the weights of a run, or None."""
        tag = f"made_by.{run}"
        found = (one for one in self.versions.values() if tag in one.tags or one.tags.get("run") == run)
        return next(found, None)

    def check_complete(self) -> None:
        """See that no other clone has moved an alias without this one knowing.

        Raises:
            ProjectError: One has.
        """
        if not self.foreign:
            return
        last = self.foreign[-1]
        raise ProjectError(
            f"{last.who} moved {last.alias} to version {last.version} on {last.when}, "
            "and the log of this clone does not tell of it",
            f"there: python -m {PACKAGE} lineage push. Here: git fetch origin lineage:lineage; where both have entries "
            f"of their own, python -m {PACKAGE} lineage push, which joins them",
        )


def read() -> Registry:
    """Read what MLflow and the log know.

    Raises:
        ProjectError: MLflow can't be reached, nothing is registered yet, or the log can't be read.
    """
    from mlflow.exceptions import MlflowException

    name, recorded = load_platform().project, moves()
    with server.answering(RETRY):
        client = server.client()
        try:
            model = client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ProjectError(
                f"MLflow at {server.tracking_uri()} has no registered model {name}", "dvc repro: register makes it"
            ) from error
        versions = {int(one.version): one for one in sorted(_versions(client, name), key=lambda one: int(one.version))}
    aliases = {alias: int(number) for alias, number in model.aliases.items()}
    return Registry(name, versions, aliases, recorded, _foreign(versions, recorded))


def replay() -> list[str]:
    """Make MLflow's aliases and tags say what the log says. Doing it again changes nothing.

    Returns:
        What was changed, a line each.

    Raises:
        ProjectError: MLflow can't be reached, lacks a version that has an alias, or tells of moves that the log of
            this clone lacks.
    """
    _tag_moves(read())
    # Tags are set before they are read again: of two clones that move an alias at once, one sees the other at least.
    registry = read()
    registry.check_complete()
    done = []
    with server.answering(RETRY):
        client = server.client()
        for alias in ALIASES:
            have, wanted = registry.aliases.get(alias), registry.standing.of(alias)
            if have == wanted:
                continue
            if wanted is None:
                client.delete_registered_model_alias(registry.name, alias)
            else:
                if wanted not in registry.versions:
                    raise ProjectError(
                        f"the log says that {registry.name} version {wanted} is {alias}, but MLflow does not have it",
                        f"python -m {PACKAGE} mirror repair; if it was deleted on purpose: "
                        f"python -m {PACKAGE} registry promote <another> --anyway --why …",
                    )
                client.set_registered_model_alias(registry.name, alias, str(wanted))
            done.append(f"in MLflow {alias} is {_said(wanted)}; it was {_said(have)}")
    return done


def _tag_moves(registry: Registry) -> None:
    with server.answering(RETRY):
        client = server.client()
        for move in registry.log:
            version = registry.versions.get(move.version)
            if version is not None and TAG + move.id not in version.tags:
                client.set_model_version_tag(registry.name, version.version, TAG + move.id, move.body())


def _versions(client: "MlflowClient", name: str) -> "Iterator[ModelVersion]":
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _foreign(versions: "dict[int, ModelVersion]", log: list[Move]) -> list[Move]:
    known = {move.id for move in log}
    found = [
        parse(text, f"tag {key} of version {number} in MLflow")
        for number, version in versions.items()
        for key, text in version.tags.items()
        if key.startswith(TAG) and key.removeprefix(TAG) not in known
    ]
    return sorted(found, key=lambda move: move.id)


def _range(versions: "dict[int, ModelVersion]") -> str:
    return f"it has {', '.join(map(str, list(versions)[-10:]))}" if versions else "it has none"


def _said(number: int | None) -> str:
    return "none" if number is None else f"version {number}"

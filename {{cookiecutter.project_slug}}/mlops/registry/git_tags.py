"""The registered versions that Git knows by their tags, and what MLflow's registry lacks of them and of aliases."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import load_platform
from ..errors import ProjectError
from ..tracking import lineage_log, mlflow_client
from ..tracking.git import git
from ..tracking.sync_status import REPAIR, Missing
from . import aliases
from .alias_log import ALIASES, moves
from .aliases import Registry
from .versions import TAG_RUN_PREFIX, tag_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = re.compile(r"(?P<tag>.+@v(?P<number>\d+)\.0\.0) (?P<commit>\w+)")
GIVEN_UP = (
    "not repairable: that version was given up; python -m mlops registry promote <another> "
    "(its tag may not have been fetched: git fetch --tags origin)"
)
NO_LOG = "this clone has none: git fetch origin lineage:lineage; before that, where it is: lineage push"
FETCH = (
    "moved in another clone: there python -m mlops lineage push, here git fetch origin lineage:lineage "
    "(with entries of your own: lineage push); moved by hand: python -m mlops registry promote records it"
)


@dataclass(frozen=True)
class TaggedVersion:
    """A registered version, as Git knows it."""

    number: int
    tag: str  # the Git tag
    commit: str  # with its data and results
    made_by: dict[str, str]  # runs, each with the commit that it read ("" when the log doesn't tell)

    @property
    def what(self) -> str:
        """Name it."""
        return f"version {self.number}"

    def lost(self, reason: str) -> Missing:
        """Say that it can't be rebuilt."""
        remedy = f"not repairable: {reason}. To give it up for good: git tag -d {self.tag}"
        return Missing(self.what, "impossible", "everything", remedy)


def releases() -> dict[int, TaggedVersion]:
    """Return the versions that have a tag, by number, in order."""
    shown = git("tag", "--list", tag_of(load_platform().project, "*"), "--format=%(refname:strip=2) %(*objectname)")
    log = lineage_log.log()
    read = {entry.run: entry.commit for entry in log if entry.version is None}
    made = {(entry.version, entry.run): read.get(entry.run, "") for entry in reversed(log)}
    tags = {int(match["number"]): match for match in map(TAG.fullmatch, shown.splitlines()) if match}
    return {
        number: TaggedVersion(
            number, tag["tag"], tag["commit"], {run: made[which, run] for which, run in made if which == number}
        )
        for number, tag in sorted(tags.items())
    }


def registry(client: "MlflowClient") -> Registry:
    """Return what MLflow has of the project's model; it may be nothing."""
    name = load_platform().project
    there = client.search_registered_models(f"name = '{name}'")
    return aliases.read() if there else Registry(name, {}, {}, moves())


def lacking(client: "MlflowClient", known: dict[int, TaggedVersion]) -> dict[str, Missing]:
    """Return what MLflow's registry lacks, by `version 2`, `alias champion`.

    Raises:
        ProjectError: It has other versions under the numbers of ours.
    """
    there = registry(client)
    judged = [*(_judge(release, there) for release in known.values()), *_aliases(there, known)]
    return {lack.what: lack for lack in judged if lack}


def _judge(release: TaggedVersion, there: Registry) -> Missing | None:
    version = there.versions.get(release.number)
    if version is None and release.number < max(there.versions, default=0):
        return release.lost("deleted by a person, or never there, and MLflow gives no number twice")
    if version is None:
        return Missing(release.what, "repair", "everything", REPAIR)
    commit = version.tags.get("result_commit", "none")
    if commit != release.commit:
        raise ProjectError(
            f"MLflow at {mlflow_client.tracking_uri()} has another model as {there.name} version {release.number} "
            f"(result commit {commit[:10]}) than Git ({release.tag}: {release.commit[:10]}), "
            "and versions can't be renumbered",
            "platform.yaml:tracking_uri: the server that these tags are of; or, to give ours up: "
            f"git tag -d {release.tag}",
        )
    lost = [run for run in release.made_by if TAG_RUN_PREFIX + run not in version.tags]
    return Missing(release.what, "repair", f"that {', '.join(lost)} made it", REPAIR) if lost else None


def _aliases(there: Registry, known: dict[int, TaggedVersion]) -> list[Missing]:
    if (known or there.versions) and not lineage_log.log_refs():  # whoever registered them wrote one
        return [Missing("aliases", "fetch", "what the log tells", NO_LOG)]
    if lineage_log.is_behind_remote():
        return [Missing("aliases", "fetch", "what the log of a Git remote tells, and this clone's doesn't", FETCH)]
    found = []
    for alias in ALIASES:
        want, have = there.standing.of(alias), there.aliases.get(alias)
        lacks = f"version {want or 'none'} as {alias}; it has {have or 'none'}"
        if have and have != want:
            found.append(Missing(f"alias {alias}", "fetch", lacks, FETCH))
        elif have != want and want in known:
            found.append(Missing(f"alias {alias}", "repair", lacks, REPAIR))
        elif have != want:
            found.append(Missing(f"alias {alias}", "impossible", lacks, GIVEN_UP))
    return found

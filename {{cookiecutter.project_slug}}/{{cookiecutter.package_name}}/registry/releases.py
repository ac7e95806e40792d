"""The registered versions that Git knows, by their tags, against those that MLflow has."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..settings import PACKAGE, load_platform
from ..tracking import history
from ..tracking.completeness import REPAIR, Lack
from ..tracking.git import git
from . import aliases
from .aliases import TAG, Registry
from .moves import ALIASES, moves, standing
from .versions import tag_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MADE_BY = "made_by."
USED = "numbers_used"  # a tag on the registered model: MLflow gives a number once, also when its version is deleted
NUMBER = re.compile(r"@v(\d+)\.0\.0$")


@dataclass(frozen=True)
class Release:
    """A registered version, as Git knows it.

    Args:
        number: Its number.
        tag: The Git tag.
        commit: The commit with its data and results.
        made_by: The runs that made it, each with the commit that it read ("" when the log doesn't tell).
    """

    number: int
    tag: str
    commit: str
    made_by: dict[str, str]


def releases() -> dict[int, Release]:
    """Return the versions that have a tag, by number, in order."""
    shown = git("tag", "--list", tag_of(load_platform().project, "*"), "--format=%(refname:strip=2) %(*objectname)")
    pairs = [line.rsplit(" ", 1) for line in shown.splitlines()]
    log = history.log()
    read = {entry.run: entry.commit for entry in log if entry.version is None}
    made: dict[int, dict[str, str]] = {}
    for entry in reversed(log):
        if entry.version is not None:
            made.setdefault(entry.version, {})[entry.run] = read.get(entry.run, "")
    found = [(int(match[1]), tag, commit) for tag, commit in pairs if (match := NUMBER.search(tag))]
    return {number: Release(number, tag, commit, made.get(number, {})) for number, tag, commit in sorted(found)}


def registry(client: "MlflowClient") -> Registry | None:
    """Return what MLflow has, or None when nothing is registered there."""
    found = client.search_registered_models(f"name = '{load_platform().project}'")
    return aliases.read() if found else None


def last_number(client: "MlflowClient", there: Registry | None) -> int:
    """Return the highest number that MLflow is known to have given; the version may be deleted since."""
    if there is None:
        return 0
    told = client.get_registered_model(there.name).tags.get(USED, "0")
    return max([int(told), *there.versions])


def lacking(client: "MlflowClient", known: dict[int, Release]) -> dict[str, Lack]:
    """Return what MLflow's registry lacks, by `version 2`, `alias champion`."""
    there = registry(client)
    last = last_number(client, there)
    judged = [
        _judge(release, there.versions.get(release.number) if there else None, last) for release in known.values()
    ]
    return {lack.what: lack for lack in (*judged, *_aliases(there, known)) if lack}


def foreign(release: Release, version: "ModelVersion") -> bool:
    """Return whether MLflow has something else under the number of a release."""
    return version.tags.get("result_commit") != release.commit


def _judge(release: Release, version: "ModelVersion | None", last: int) -> Lack | None:
    what = f"version {release.number}"
    if version is None and release.number <= last:
        reason = "deleted by a person, or never there: MLflow went on counting, and gives no number twice"
        return Lack(
            what, "impossible", "everything", f"not repairable: {reason}. To give it up: git tag -d {release.tag}"
        )
    if version is None:
        return Lack(what, "repair", "everything", REPAIR)
    if foreign(release, version):
        reason = f"MLflow has another model under this number (the tag {release.tag} is commit {release.commit[:10]})"
        return Lack(what, "impossible", "everything", f"not repairable: {reason}")
    lost = [run for run in release.made_by if MADE_BY + run not in version.tags]
    return Lack(what, "repair", f"that {', '.join(lost)} made it", REPAIR) if lost else None


def _aliases(there: Registry | None, known: dict[int, Release]) -> list[Lack]:
    """Compare the aliases with the log of moves."""
    remotes = history.unfetched()
    if remotes:
        fetch = f"git fetch {remotes[0]} lineage:lineage, or, with own entries here, python -m {PACKAGE} lineage push"
        return [Lack("aliases", "fetch", f"what the log of {remotes[0]} tells, which this clone has not", fetch)]
    if there and there.foreign:
        push = f"where they were made: python -m {PACKAGE} lineage push; here: git fetch"
        return [Lack("aliases", "fetch", "nothing: it tells of moves that the log of this clone has not", push)]
    log, have = (there.log, there.aliases) if there else (moves(), {})
    wanted = {alias: standing(log).of(alias) for alias in ALIASES}
    wrong = [
        _judge_alias(alias, want, have.get(alias), want is None or want in known)
        for alias, want in wanted.items()
        if want != have.get(alias)
    ]
    there_now = there.versions if there else {}
    lost = [one for one in log if one.version in there_now and TAG + one.id not in there_now[one.version].tags]
    return [*wrong, *([Lack("alias moves", "repair", f"{len(lost)} of them", REPAIR)] if lost else [])]


def _judge_alias(alias: str, want: int | None, have: int | None, possible: bool) -> Lack:
    lacks = f"version {want or 'none'} as {alias}; it has {have or 'none'}"
    if possible:
        return Lack(f"alias {alias}", "repair", lacks, REPAIR)
    other = f"not repairable: that version was given up; python -m {PACKAGE} registry promote <another>"
    return Lack(f"alias {alias}", "impossible", lacks, other)

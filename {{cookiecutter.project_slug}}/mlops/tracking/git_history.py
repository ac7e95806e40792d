"""What Git knows of runs: which trainings and registrations there were, and which commits hold their results.

All commits of this clone count: of branches, tags and experiments, also those that were fetched from elsewhere. A few
git processes read them all, however many there are.
"""

import re
from dataclasses import dataclass, replace

from ..config import home, load_platform
from ..errors import ProjectError
from .git import git
from .lineage_log import BRANCH, REF
from .snapshot import LOCK

RUN_JSON = "reports/run.json"
TRAINED = re.compile(r"train (?P<name>.+)")
REGISTERED = re.compile(r"register (?P<model>.+) version (?P<number>\d+)")
NAMED = re.compile(r'^at ([0-9a-f]+)\n\s*\{[^{}<]*?"run":\s*"([^"]+)"', re.MULTILINE)  # what `_committed` asks for


class CutError(ProjectError):
    """This clone is shallow, so what its history says may not be all."""


@dataclass(frozen=True)
class KnownRun:
    """A training that this clone knows of."""

    run: str  # its id
    name: str  # of the experiment, or the id again
    commits: tuple[str, ...] = ()  # with its results, the newest first; none when nobody committed them, or it failed


@dataclass(frozen=True)
class Entry:
    """One training or registration in the log."""

    run: str
    commit: str  # what the training read, or what the registered version is
    name: str  # of the experiment, or "" for a registration
    version: int | None  # number of the registered version, or None for a training


def runs() -> dict[str, KnownRun]:
    """Return the runs of this project that the log or a commit tells of, by id; the oldest of the log first.

    Raises:
        CutError: This clone is shallow.
    """
    found = {entry.run: KnownRun(entry.run, entry.name) for entry in reversed(log()) if entry.version is None}
    for run, commits in _committed().items():
        found[run] = replace(found.get(run, KnownRun(run, run)), commits=tuple(commits))
    return found


def log() -> list[Entry]:
    """Return the entries of this project in the branch `lineage`, ours and those fetched; the newest first.

    Raises:
        CutError: This clone is shallow.
    """
    check_whole()
    if not (refs := logs()):
        return []
    told = git("log", "--first-parent", "-z", "--grep=^run: ", "--format=%P%n%B", *refs)
    project = load_platform().project  # one repository may hold several
    found = dict.fromkeys(_entry(text, project) for text in told.split("\0") if text)
    return [entry for entry in found if entry]


def is_behind_remote(log_ref: str = REF) -> bool:
    """Return whether another log has entries that this clone's own, or `log_ref`, has not."""
    refs = logs()
    ours, others = [f"^{ref}" for ref in refs if ref == log_ref], [ref for ref in refs if ref != log_ref]
    return bool(others and git("rev-list", "--first-parent", "--max-count=1", *others, *ours))


def logs() -> list[str]:
    """Return the refs of the logs: this clone's own, and those of Git remotes."""
    return git("for-each-ref", "--format=%(refname)", REF, f"refs/remotes/*/{BRANCH}").split()


def check_whole() -> None:
    """See that the history of this clone is not cut: what is cut off looks as if it had never been.

    Raises:
        CutError: It is.
    """
    if git("rev-parse", "--is-shallow-repository", where=home()) == "true":
        raise CutError("this clone is shallow: its history is cut, and with it what there was", "git fetch --unshallow")


def _entry(text: str, project: str) -> Entry | None:
    parents, subject, *body = text.split("\n")
    told = dict(line.split(": ", 1) for line in body if ": " in line)
    trained, registered = TRAINED.fullmatch(subject), REGISTERED.fullmatch(subject)
    if trained and told.get("project", project) == project:
        return Entry(told["run"], parents.split()[1], trained["name"], None)
    if registered and registered["model"] == project:
        return Entry(told["run"], parents.split()[1], "", int(registered["number"]))
    return None


def _committed() -> dict[str, list[str]]:
    """Return the commits that name each run, the newest first; those that changed nothing of its results left out."""
    commits = git("log", "--all", "--full-history", "--format=%H", "--", RUN_JSON, LOCK).split()
    told = git("cat-file", "--batch=at %(rest)", stdin="".join(f"{one}:./{RUN_JSON} {one}\n" for one in commits))
    found: dict[str, list[str]] = {}
    for commit, run in NAMED.findall(told):
        found.setdefault(run, []).append(commit)
    return found

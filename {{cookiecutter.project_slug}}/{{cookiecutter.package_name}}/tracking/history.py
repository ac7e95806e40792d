"""What Git knows of runs: which trainings there were, and which commits hold their results.

All commits of this clone count: of branches, tags and experiments, also those that were fetched from elsewhere. A few
git processes read them all, however many there are.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..settings import load_platform
from .branch import BRANCH, REF
from .git import git
from .snapshot import LOCK

RUN_JSON = "reports/run.json"
TRAINED = re.compile(r"train (?P<name>.+)")
REGISTERED = re.compile(r"register (?P<model>.+) version (?P<number>\d+)")
OBJECT = re.compile(r"^([0-9a-f]{40,64})\n", re.MULTILINE)


@dataclass(frozen=True)
class PastRun:
    """A training that this clone knows of.

    Args:
        run: Its id.
        name: Of the experiment, or the id again.
        read: The commit that it read; "" when the log of this clone doesn't tell.
        commits: Those with its results, the newest first; none when nobody committed them, or it failed.
    """

    run: str
    name: str
    read: str = ""
    commits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One training or registration in the log.

    Args:
        run: Id of the run.
        commit: The commit that it names.
        name: Of the experiment, or "" for a registration.
        version: Number of the registered version, or None for a training.
    """

    run: str
    commit: str
    name: str
    version: int | None


def runs() -> dict[str, PastRun]:
    """Return the runs of this project that the log or a commit tells of, by id; the oldest of the log first."""
    found: dict[str, PastRun] = {}
    for entry in reversed(log()):
        known = found.setdefault(entry.run, PastRun(entry.run, entry.run))
        if entry.version is None:
            found[entry.run] = replace(known, name=entry.name, read=entry.commit)
    for run, commits in _committed().items():
        found[run] = replace(found.get(run, PastRun(run, run)), commits=tuple(commits))
    return found


def log() -> list[Entry]:
    """Return the trainings and registrations of this project in the branch `lineage`, here and as others published it.

    The newest are first.
    """
    refs = logs()
    if not refs:
        return []
    told = git("log", "--first-parent", "-z", "--grep=^run: ", "--format=%P%n%B", *refs)
    model = load_platform().project  # one repository may hold several projects
    found = dict.fromkeys(_entry(text, model) for text in told.split("\0") if text)
    return [entry for entry in found if entry]


def logs() -> list[str]:
    """Return the refs of the branch `lineage`: this clone's, when it has one, and those of Git remotes."""
    return git("for-each-ref", "--format=%(refname)", REF, f"refs/remotes/*/{BRANCH}").split()


def unfetched() -> list[str]:
    """Return the Git remotes whose log has entries that this clone's own has not."""
    ours = [f"^{REF}"] if REF in logs() else []
    others = [ref for ref in logs() if ref != REF]
    return [ref.split("/")[2] for ref in others if git("rev-list", "--first-parent", "--max-count=1", ref, *ours)]


def _entry(text: str, project: str) -> Entry | None:
    parents, subject, *body = text.split("\n")
    told = dict(line.split(": ", 1) for line in body if ": " in line)
    trained, registered = TRAINED.fullmatch(subject), REGISTERED.fullmatch(subject)
    whose = registered["model"] if registered else told.get("project", project)
    if whose != project or not (trained or registered):
        return None
    number = int(registered["number"]) if registered else None
    return Entry(told["run"], parents.split()[1], trained["name"] if trained else "", number)


def _committed() -> dict[str, list[str]]:
    """Return the commits that name each run; of those with the same results, the newest."""
    folder = git("rev-parse", "--show-prefix")
    commits = git("rev-list", "--all").split()
    named = _objects(f"{commit}:{folder}{RUN_JSON}" for commit in commits)
    locks = _objects(f"{commit}:{folder}{LOCK}" for commit in commits)
    texts = _texts({name for name in named if name})
    found: dict[str, dict[str, str]] = {}
    for commit, name, lock in zip(commits, named, locks, strict=True):
        if name and lock and (run := run_in(texts[name])):
            found.setdefault(run, {}).setdefault(lock, commit)
    return {run: list(by_lock.values()) for run, by_lock in found.items()}


def _objects(paths: Iterable[str]) -> list[str]:
    """Return the id of each file that is given as `commit:path`, and "" for one that isn't there."""
    asked = "".join(f"{path}\n" for path in paths)
    if not asked:
        return []
    told = git("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked).split("\n")
    return [line.partition(" ")[0] if line.endswith(" blob") else "" for line in told]


def _texts(objects: set[str]) -> dict[str, str]:
    """Return the contents of files by their ids."""
    if not objects:
        return {}
    told = git("cat-file", "--batch=%(objectname)", stdin="".join(f"{name}\n" for name in objects))
    parts = OBJECT.split(told)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run_in(text: str) -> str:
    """Return the run that a `reports/run.json` names; "" when it can't be read."""
    try:
        told = json.loads(text)
    except ValueError:  # a merge that someone committed with its conflict
        return ""
    run = told.get("run") if isinstance(told, dict) else None
    return run if isinstance(run, str) else ""

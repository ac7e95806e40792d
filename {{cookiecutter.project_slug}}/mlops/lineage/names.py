"""What a name means: a version, a run, a commit, a dataset or a subject, in any of the ways that people name them.

    models:/digits/3   digits/3   3   models:/digits@champion   champion   digits@v3.0.0
    4f1c0a9be2d1 (a run)   gouty-fifo (an experiment)   a1b2c3d (a commit)   data/v1.0   7a83…dir   models/model
    form-03 (a subject)

Where several things have a name, a prefix decides: `run:4f1c`, `commit:4f1c`, `data:4f1c`, `subject:form-03`.
"""

import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ProjectError
from ..registry.versions import TaggedVersion
from ..tracking.git import try_git
from ..tracking.run_context import DATASET
from .history import History
from .subjects import has_audit, known_to

VERSION = re.compile(r"(?:models:/)?(?:(?P<model>[^/@]+)[/@])?(?P<which>[^/@]+)")
RELEASE = re.compile(r"(?:.+=)?(?P<model>[^/@=]+)@v(?P<number>\d+)\.0\.0")
MODEL = "models/model"
SHOWN = 10  # names that an error lists


@dataclass(frozen=True)
class Target:
    """What a name means.

    Args:
        kind: version, run, commit, dataset or subject.
        id: A version's number, a run's id in DVC, a commit's id, DVC's hash of a dataset, a subject's id.
        alias: Of the version, where it was named by one.
    """

    kind: str
    id: str
    alias: str = ""

    @property
    def key(self) -> str:
        """Return its name in a graph."""
        return f"{self.kind}:{self.id}"


def find(name: str, history: History) -> Target:
    """Return what a name means.

    Raises:
        ProjectError: Nothing has the name, or several things have it.
    """
    if not name.strip():
        raise ProjectError("the name is empty", "name a version: python -m mlops registry list")
    prefix, _, rest = name.partition(":")
    if prefix in FINDERS and rest and not rest.startswith("/"):
        targets = FINDERS[prefix](rest, history)
    else:
        # A subject may be named like anything else, and to ask who it is takes the longest.
        targets = []
        for kind in ("version", "file", "data", "run", "commit"):
            targets += [target for target in FINDERS[kind](name, history) if target not in targets]
        if not targets and has_audit():
            targets = _subjects(name, history)
    if targets[1:] and not re.fullmatch("[0-9a-f]+", name):  # a tag of a version or a dataset is one of a commit, too
        targets = [target for target in targets if target.kind != "commit"]
    if len(targets) == 1:
        return targets[0]
    if targets:
        ways = [f"{'data' if target.kind == 'dataset' else target.kind}:{target.id}" for target in targets[:SHOWN]]
        raise ProjectError(f"{name!r} is the name of several things", f"take one of: {', '.join(ways)}")
    raise _unknown(name, history)


def _unknown(name: str, history: History) -> ProjectError:
    known = [*map(str, history.versions), *history.holders, *history.runs, *(run.name for run in history.runs.values())]
    near = difflib.get_close_matches(name, dict.fromkeys(known), 3)
    fix = (
        f"did you mean {' or '.join(near)}?" if near else "see what there is: python -m mlops registry list, data list"
    )
    problem = f"no version, run, commit, dataset, file or subject of this project is named {name!r}"
    if history.notes:
        problem += f"; not all could be searched: {history.notes[0].partition('. Fix: ')[0]}"
    return ProjectError(
        problem, f"{fix}; of another clone: git fetch --tags origin && git fetch origin lineage:lineage"
    )


def version_of(target: Target, history: History) -> TaggedVersion | None:
    """Return the version that a target is, or that a run or a commit of results made; None for none."""
    for number, version in history.versions.items():
        if target in (Target("version", str(number), target.alias), Target("commit", version.commit)):
            return version
        if target.kind == "run" and target.id in version.made_by:
            return version
    return None


def run_of(target: Target, history: History) -> str:
    """Return the run of a version, the first that made it; of a run itself; or of a commit with results.

    Raises:
        ProjectError: A target of another kind, or a commit without results.
    """
    if target.kind == "run":
        return target.id
    if (version := version_of(target, history)) and version.made_by:
        return next(iter(version.made_by))
    if target.kind == "commit" and (pinned := history.pinned_at(target.id)):
        by_commit = [run for run, commit in history.inputs.items() if commit == target.id]
        if run := (by_commit[-1] if by_commit else pinned.report("run").get("run")):
            return str(run)
    raise ProjectError(f"{target.kind} {target.id[:12]} is of no training", "name a version or a run: registry list")


def _versions(name: str, history: History) -> list[Target]:
    if release := RELEASE.fullmatch(name):
        name = f"{release['model']}/{release['number']}"
    if not (match := VERSION.fullmatch(name)):
        return []
    model, which = match["model"] or history.model, match["which"]
    is_uri = name.startswith("models:/")
    if model != history.model:
        if is_uri:
            problem = f"{name} is a model of another project: this one registers {history.model}"
            raise ProjectError(problem, "run the command in the project that registers it")
        return []
    if which in history.holders and not which.isdecimal():
        return [Target("version", str(history.holders[which]), which)]
    if which.isdecimal() and int(which) in {**history.versions, **history.mlflow_versions}:
        return [Target("version", str(int(which)))]
    return []


def _runs(name: str, history: History) -> list[Target]:
    runs = {run: known.name for run, known in history.runs.items()}
    if name in runs:
        return [Target("run", name)]
    if matches := [run for run, title in runs.items() if title == name]:
        return [Target("run", run) for run in matches]
    is_start, matches = re.fullmatch(r"[0-9a-f]{6,32}", name), list[str]()
    if is_start and (matches := [run for run in runs if run.startswith(name)]):
        return [Target("run", run) for run in matches]
    stored = {run: (run, each.id) for run, each in history.mlflow_runs.items()}
    if is_start:
        matches = [run for run, ids in stored.items() if any(each.startswith(name) for each in ids)]
    return [Target("run", run) for run in matches or stored if matches or history.mlflow_runs[run].name == name]


def _commits(name: str, history: History) -> list[Target]:
    commit = try_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return [Target("commit", commit)] if commit else []


def _datasets(name: str, history: History) -> list[Target]:
    label = name.removeprefix("data/")
    if commit := try_git("rev-parse", "--verify", "--quiet", f"refs/tags/data/{label}^{{commit}}"):
        pinned = history.pinned_at(commit)
        return [Target("dataset", md5)] if pinned and (md5 := pinned.out(DATASET)) else []
    if not re.fullmatch(r"[0-9a-f]{6,32}(\.dir)?", name):
        return []
    known = {pinned.quick_out(DATASET) for pinned in history.pinned.values()}
    return [Target("dataset", md5) for md5 in sorted(known) if md5.startswith(name)]


def _files(name: str, history: History) -> list[Target]:
    path = Path(name)
    if path.is_dir():
        hashes = {_md5(file) for file in path.rglob("*") if file.is_file()}
    elif path.is_file():
        hashes = {_md5(path)}
    else:
        return []
    targets: dict[Target, None] = {}
    commits = {version.commit: Target("version", str(number)) for number, version in history.versions.items()}
    for pinned in history.pinned.values():
        model = pinned.quick_out(MODEL)
        try:
            files = set(history.objects.listing(model).values()) if model else set()
        except ProjectError as error:
            history.notes.append(f"{error.problem}. Fix: {error.fix}")
            continue
        # A model's folder has small files, such as its labels, that others have too: all must be of this one.
        if hashes and hashes <= files:
            run = pinned.report("run").get("run")
            target = commits.get(pinned.commit) or (Target("run", run) if run else Target("commit", pinned.commit))
            targets[target] = None
    datasets = {pinned.quick_out(DATASET) for pinned in history.pinned.values()} - {""}
    for md5 in () if targets or not hashes else sorted(datasets):
        try:
            files = set(history.objects.listing(md5).values())
        except ProjectError as error:
            history.notes.append(f"{error.problem}. Fix: {error.fix}")
            continue
        if hashes <= files:
            targets[Target("dataset", md5)] = None
    versions = [target for target in targets if target.kind == "version"]
    return (versions or list(targets))[:SHOWN]


def _subjects(name: str, history: History) -> list[Target]:
    return [Target("subject", name)] if known_to(name, {}, []) else []


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


FINDERS: dict[str, Callable[[str, History], list[Target]]] = {
    **{"version": _versions, "run": _runs, "commit": _commits, "data": _datasets},
    **{"file": _files, "subject": _subjects},
}

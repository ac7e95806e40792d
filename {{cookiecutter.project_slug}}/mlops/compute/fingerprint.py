"""The inputs of a stage, as DVC records them before it runs: command, deps by hash, params, names of outs.

Stages with the same inputs share a job.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..contract import package_name
from ..errors import ProjectError
from ..tracking.checkout import Reader, ignored_by_dvc, shown
from ..tracking.git import git

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

Inputs = dict[str, Any]


class TrackedInput(NamedTuple):
    """A dep of a stage that DVC keeps: its path, and the address of the stage or `.dvc` file that has it as an out."""

    path: str
    address: str


@contextlib.contextmanager
def open_stage(name: str) -> Iterator[tuple["Repo", "PipelineStage"]]:
    """Give the DVC repository in the working directory, and one stage of it."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        yield repo, repo.stage.load_one(name=name)


def from_work_tree(stage: "PipelineStage") -> Inputs:
    """Return the inputs of a stage as they are in the work tree.

    Raises:
        ProjectError: A dep is missing.
    """
    from dvc.dependency.base import DependencyDoesNotExistError
    from dvc.stage.serialize import to_single_stage_lockfile

    try:
        stage.save_deps()
    except DependencyDoesNotExistError as error:
        raise ProjectError(
            f"{stage.name} reads {error.path}, which does not exist", f"dvc pull, or dvc repro {stage.name}"
        ) from error
    return from_entry(to_single_stage_lockfile(stage))


def from_entry(entry: dict[str, Any]) -> Inputs:
    """Return the part of an entry of `dvc.lock` that is known before the stage runs."""
    known: Inputs = {name: entry[name] for name in ("cmd", "deps", "params") if name in entry}
    return plain({**known, "outs": [out["path"] for out in entry["outs"]]})


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as JSON has it: keys and dates are text. The order of keys stays."""
    return dict(json.loads(json.dumps(entry, default=str)))


def digest(inputs: Inputs, *more: str) -> str:
    """Return 12 hexadecimal digits for inputs and what else makes a job what it is, such as its image."""
    deps = [{key: dep[key] for key in dep if key not in ("size", "nfiles")} for dep in inputs.get("deps", [])]
    return hashlib.sha256(_canonical([{**inputs, "deps": deps}, *more]).encode()).hexdigest()[:12]


def same(first: Any, second: Any) -> bool:
    """Return whether two values are equal, where NaN equals itself."""
    return _canonical(first) == _canonical(second)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def differences(first: Inputs, second: Inputs) -> list[str]:
    """Return what differs between two: "cmd" and "outs", then paths of deps, then params as `file:key`."""
    sides: list[dict[tuple[int, str], Any]] = []
    for inputs in (first, second):
        side: dict[tuple[int, str], Any] = {(0, name): inputs.get(name) for name in ("cmd", "outs")}
        side |= {(1, dep["path"]): dep for dep in inputs.get("deps", [])}
        for file, values in inputs.get("params", {}).items():
            side |= {(2, f"{file}:{key}"): value for key, value in values.items()}
        sides.append(side)
    keys = sorted(sides[0].keys() | sides[1].keys())
    return [key[1] for key in keys if not same(sides[0].get(key), sides[1].get(key))]


def tracked_inputs(repo: "Repo", stage: "PipelineStage") -> list[TrackedInput]:
    """Return the deps of a stage that DVC keeps; the others are Git's."""
    tracked = set()
    for dep in (dep for dep in stage.deps if dep.protocol == "local" and dep.def_path):
        for out in (out for out in repo.index.outs if out.use_cache):
            if repo.fs.isin_or_eq(dep.fs_path, out.fs_path):
                tracked.add(TrackedInput(dep.def_path, out.stage.addressing))
            elif repo.fs.isin(out.fs_path, dep.fs_path):
                tracked.add(TrackedInput(repo.fs.relpath(out.fs_path), out.stage.addressing))
    return sorted(tracked)


def check_in_project(repo: "Repo", stage: "PipelineStage") -> None:
    """Check that all files of Git's that a stage reads are below the project's root: a job has no others.

    Raises:
        ProjectError: A file is elsewhere, or no commit can hold it.
    """
    project, root = Path.cwd().resolve(), Path(git("rev-parse", "--show-toplevel")).resolve()
    reader = Reader(root, [Path(out.fs_path) for out in repo.index.outs], (), ignored_by_dvc(repo))
    deps = [Path(dep.fs_path) for dep in stage.deps if dep.protocol == "local"]
    for path in (project / package_name(), project / "mlops", *deps):
        reader.read(path)
    outside = [shown(path) for path in sorted(reader.files | reader.links) if not path.is_relative_to(project)]
    if outside:
        raise ProjectError(
            f"{stage.name} reads {', '.join(outside[:5])}, and a job has the project's own folder only",
            f"put a copy into the project; or run it here: take meta.job from dvc.yaml:stages.{stage.name}",
        )

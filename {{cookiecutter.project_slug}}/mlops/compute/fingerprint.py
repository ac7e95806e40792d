"""What a stage is before it runs, as DVC sees it: its command, its deps by hash, its params, the names of its outs.

The same inputs are the same job.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..contract import package_name
from ..errors import ProjectError
from ..tracking.checkout import Reader, shown
from ..tracking.git import git

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

Inputs = dict[str, Any]


class TrackedInput(NamedTuple):
    """Data that a stage reads and DVC keeps: where they are, and the stage or `.dvc` file they are of."""

    path: str
    address: str


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
            f"{stage.name} reads {error.path}, which is not there", f"dvc pull, or dvc repro {stage.name}"
        ) from error
    return from_entry(to_single_stage_lockfile(stage))


def from_entry(entry: dict[str, Any]) -> Inputs:
    """Return the part of an entry of `dvc.lock` that is known before the stage runs."""
    told: Inputs = {name: entry[name] for name in ("cmd", "deps", "params") if name in entry}
    return plain({**told, "outs": [out["path"] for out in entry["outs"]]})


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what is left of an entry in JSON: keys are texts, and so are dates. Their order stays."""
    left: dict[str, Any] = json.loads(json.dumps(entry, default=str))
    return left


def digest(inputs: Inputs, *more: str) -> str:
    """Return 12 hexadecimal digits that stand for inputs and what else makes a job what it is, such as its image."""
    deps = [{key: dep[key] for key in dep if key not in ("size", "nfiles")} for dep in inputs.get("deps", [])]
    return hashlib.sha256(_text([{**inputs, "deps": deps}, *more]).encode()).hexdigest()[:12]


def same(one: Any, other: Any) -> bool:
    """Return whether two are equal, and NaN is equal to itself."""
    return _text(one) == _text(other)


def differences(one: Inputs, other: Inputs) -> list[str]:
    """Return what differs between two, as paths and names of params; "cmd" and "outs" for those."""
    deps = [{dep["path"]: dep for dep in inputs.get("deps", [])} for inputs in (one, other)]
    params = [
        {f"{file}:{key}": value for file, values in inputs.get("params", {}).items() for key, value in values.items()}
        for inputs in (one, other)
    ]
    whole = [{name: inputs.get(name) for name in ("cmd", "outs")} for inputs in (one, other)]
    return [
        name
        for first, second in (whole, deps, params)
        for name in sorted(first.keys() | second.keys())
        if not same(first.get(name), second.get(name))
    ]


def kept_by_dvc(repo: "Repo", stage: "PipelineStage") -> list[TrackedInput]:
    """Return what a stage reads and DVC keeps; the rest of its deps is Git's."""
    found = set()
    for dep in (dep for dep in stage.deps if dep.protocol == "local" and dep.def_path):
        for out in (out for out in repo.index.outs if out.use_cache):
            if repo.fs.isin_or_eq(dep.fs_path, out.fs_path):
                found.add(TrackedInput(dep.def_path, out.stage.addressing))
            elif repo.fs.isin(out.fs_path, dep.fs_path):
                found.add(TrackedInput(repo.fs.relpath(out.fs_path), out.stage.addressing))
    return sorted(found)


def check_in_project(repo: "Repo", stage: "PipelineStage") -> None:
    """See that all that a stage reads of Git's files is in the project's folder, since a job has nothing else.

    Raises:
        ProjectError: A file is elsewhere, or no commit can hold it.
    """
    here, root = Path.cwd().resolve(), Path(git("rev-parse", "--show-toplevel")).resolve()
    reader = Reader(root, [Path(out.fs_path) for out in repo.index.outs], ())
    deps = [Path(dep.fs_path) for dep in stage.deps if dep.protocol == "local"]
    for path in (here / package_name(), here / "mlops", *deps):
        reader.read(path)
    outside = [shown(path) for path in sorted(reader.files | reader.links) if not path.is_relative_to(here)]
    if outside:
        raise ProjectError(
            f"{stage.name} reads {', '.join(outside[:5])}, and a job has the project's own folder only",
            f"put a copy into the project; or run it here: take meta.job from dvc.yaml:stages.{stage.name}",
        )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

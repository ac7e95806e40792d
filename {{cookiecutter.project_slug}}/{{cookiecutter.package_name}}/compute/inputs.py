"""What a stage is before it runs, as DVC sees it: its command, its deps by hash, its params, the names of its outs.

The same inputs are the same job, on whatever machine.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

Inputs = dict[str, Any]


def of(stage: "PipelineStage") -> Inputs:
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
    return before(to_single_stage_lockfile(stage))


def before(entry: dict[str, Any]) -> Inputs:
    """Return the part of an entry of `dvc.lock` that is known before the stage runs."""
    told = {name: entry[name] for name in ("cmd", "deps", "params") if name in entry}
    plain: Inputs = json.loads(json.dumps({**told, "outs": [out["path"] for out in entry.get("outs", [])]}))
    return plain


def digest(inputs: Inputs, *more: str) -> str:
    """Return 12 hexadecimal digits that stand for inputs and what else makes a job what it is, such as its image."""
    deps = [{key: dep[key] for key in dep if key not in ("size", "nfiles")} for dep in inputs.get("deps", [])]
    text = json.dumps([{**inputs, "deps": deps}, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(one: Inputs, other: Inputs) -> list[str]:
    """Return what differs between two, as paths and names of params; "cmd" and "outs" for those."""
    found = [name for name in ("cmd", "outs") if one.get(name) != other.get(name)]
    deps = [{dep["path"]: dep for dep in inputs.get("deps", [])} for inputs in (one, other)]
    found += sorted(path for path in deps[0].keys() | deps[1].keys() if deps[0].get(path) != deps[1].get(path))
    files = [inputs.get("params", {}) for inputs in (one, other)]
    for name in sorted(files[0].keys() | files[1].keys()):
        params = [told.get(name, {}) for told in files]
        keys = sorted(params[0].keys() | params[1].keys())
        found += [f"{name}:{key}" for key in keys if params[0].get(key) != params[1].get(key)]
    return found


def data(repo: "Repo", stage: "PipelineStage") -> dict[str, str]:
    """Return the deps that DVC keeps, and not Git: each path with the address of the stage or `.dvc` file it is of."""
    kept = [out for out in repo.index.outs if out.use_cache]
    return {
        dep.def_path: out.stage.addressing
        for dep in stage.deps
        if dep.protocol == "local" and dep.def_path
        for out in kept
        if repo.fs.isin_or_eq(dep.fs_path, out.fs_path) or repo.fs.isin_or_eq(out.fs_path, dep.fs_path)
    }

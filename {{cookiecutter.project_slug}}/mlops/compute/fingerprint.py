"""The inputs of a stage, as DVC records them before it runs: command, deps by hash, params, names of outs.

Stages with the same inputs share a job.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..contract import package_name
from ..errors import ProjectError
from ..pipeline import load_stage
from ..tracking.checkout import Reader, ignored_by_dvc, shown
from ..tracking.git import git
from ..tracking.inputs import relative, tracked

Stage = Any  # dvc.stage.PipelineStage, which has no types and takes long to import
Inputs = dict[str, Any]


@contextlib.contextmanager
def open_stage(name: str) -> Iterator[Stage]:
    """Give a stage of the DVC repository in the working directory; its `repo` is open meanwhile.

    Raise ProjectError if `dvc.yaml` has it no more: a person may edit that while a job runs.
    """
    from dvc.repo import Repo

    load_stage(name)
    with Repo(os.getcwd()) as repo:
        yield repo.stage.load_one(name=name)


def from_work_tree(stage: Stage) -> Inputs:
    """Return the inputs of a stage as they are in the work tree; raise ProjectError if one is missing or damaged."""
    from dvc.exceptions import DvcException
    from dvc.stage.serialize import to_single_stage_lockfile

    try:
        stage.save_deps()
    except DvcException as error:  # its kinds do not have the path
        missing, outs = [relative(dep) for dep in stage.deps if not dep.exists], tracked(stage)
        problem, fix = f"the inputs of {stage.name} can't be read: {error}", f"correct dvc.yaml:stages.{stage.name}"
        if missing:
            problem = f"{stage.name} reads {', '.join(missing)}, which is not there"
            fix = f"git checkout -- {' '.join(missing)}; or correct dvc.yaml:stages.{stage.name}.deps"
        if made := [path for path in missing if path in outs]:
            stages = sorted({outs[path].stage.addressing for path in made if outs[path].stage.cmd})
            fix = ", or ".join(f"dvc {verb} {' '.join(of)}" for verb, of in (("pull", made), ("repro", stages)) if of)
        raise ProjectError(problem, fix) from error
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

    def parts(inputs: Inputs) -> dict[tuple[int, str], Any]:
        params = inputs.get("params", {})
        return {
            **{(0, name): inputs.get(name) for name in ("cmd", "outs")},
            **{(1, dep["path"]): dep for dep in inputs.get("deps", [])},
            **{(2, f"{file}:{key}"): value for file in params for key, value in params[file].items()},
        }

    before, after = parts(first), parts(second)
    return [key[1] for key in sorted(before | after) if not same(before.get(key), after.get(key))]


def check_in_project(repo: Any, stage: Stage) -> None:
    """Raise ProjectError if a job could not have what a stage reads.

    That is a file of Git's which is not below the project's root, or in no commit; or an output of its last run.
    """
    if persistent := [relative(out) for out in stage.outs if out.persist]:
        problem = f"{stage.name} goes on from its last {', '.join(persistent)} (persist: true), which a job lacks"
        fix = f"take `persist` from dvc.yaml:stages.{stage.name}, or meta.job, to run it here"
        raise ProjectError(problem, fix)
    project, root = Path.cwd().resolve(), Path(git("rev-parse", "--show-toplevel")).resolve()
    reader = Reader(root, [Path(out.fs_path) for out in repo.index.outs], (), ignored_by_dvc(repo))
    deps = [Path(dep.fs_path) for dep in stage.deps if dep.protocol == "local"]
    for path in (project / package_name(), project / "mlops", *deps):
        reader.read(path)
    outside = [shown(path) for path in sorted(reader.files | reader.links) if not path.is_relative_to(project)]
    if outside:
        problem = f"{stage.name} reads {', '.join(outside[:5])}, and a job has the project's own folder only"
        fix = f"put a copy into the project; or run it here: take meta.job from dvc.yaml:stages.{stage.name}"
        raise ProjectError(problem, fix)

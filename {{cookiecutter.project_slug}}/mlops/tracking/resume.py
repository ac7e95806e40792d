"""A training that was cut off and goes on from a checkpoint: when that belongs to it, and what becomes of its record.

The weights go on wherever the inputs are the same. The run goes on when it is the same one: SageMaker starts a job
again under the id that was handed over, and a clone asks for the same commit and the same experiment again. Otherwise a
new run begins that names the earlier one, and has its curves so far.
"""

import json
from pathlib import Path
from typing import Any

from .. import pipeline
from ..config import read_machines, read_params
from ..environment import differences
from ..files import sha256
from . import run_context
from .live import Live
from .run_files import LINEAGE, RUN_DIR


def inputs() -> dict[str, Any]:
    """Return what the result of `train` follows from, by name: deps, params, packages.

    On SageMaker also the run: a checkpoint is not deleted there at the end, and must serve no other.
    """
    stage = pipeline.running_stage()
    deps = [Path(dep) for dep in stage.deps]
    files = [file for dep in deps for file in ([dep] if dep.is_file() else sorted(dep.rglob("*"))) if file.is_file()]
    packages = {name: installed for name, (_, installed) in differences().items()}
    told = run_context.from_job() if read_machines()["keeps_checkpoints"] else None
    return {
        **{file.as_posix(): sha256(file) for file in files},
        **{f"params.yaml:{name}": read_params()[name] for name in stage.params},
        "other packages than in environment.json": packages,
        "run": told.run if told else "",
    }


def files(live: Live) -> dict[str, bytes]:
    """Return the run's files so far, by their names in its folder."""
    live.write()
    found = sorted(path for path in RUN_DIR.rglob("*") if path.is_file())
    return {path.relative_to(RUN_DIR).as_posix(): path.read_bytes() for path in found}


def restore(kept: dict[str, bytes]) -> None:
    """Write what `files` gave."""
    for name, content in kept.items():
        path = RUN_DIR / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def facts_of(kept: dict[str, bytes]) -> dict[str, Any]:
    """Return the facts of the run whose files these are; none for no files."""
    return dict(json.loads(kept[LINEAGE.name])) if kept else {}


def is_same(earlier: dict[str, Any], commit: str, dvc_exp_name: str) -> bool:
    """Return whether a training that a clone asks for is the one with the facts `earlier`."""
    return (earlier.get("data_git_commit_id"), earlier.get("dvc_exp_name")) == (commit, dvc_exp_name)


def with_history(facts: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a run that goes on: begun when the training was, with the times at which it went on."""
    if not earlier:
        return facts
    same = facts["run"] == earlier["run"]
    before = earlier.get("resumed_from") if same else earlier["run"]
    cpus = dict.fromkeys([*earlier["cpu_capability"].split(", then "), facts["cpu_capability"]])
    return {
        **facts,
        "started_at": earlier["started_at"],
        "resumed_at": [*earlier.get("resumed_at", []), facts["started_at"]],
        **({"resumed_from": before} if before else {}),
        "cpu_capability": ", then ".join(cpus),  # weights from two kinds are the same as neither's
    }

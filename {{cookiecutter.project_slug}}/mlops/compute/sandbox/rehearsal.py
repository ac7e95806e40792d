"""Run every stage that has a `meta.job` in the sandbox, and report what each took and what other backends need.

    make rehearse

It is an experiment of DVC's in a throw-away copy: the work tree and `dvc.lock` stay as they are. The training is a real
one, and is in MLflow and in the lineage log as such.
"""

import os
import subprocess
import sys
import time

from tabulate import tabulate

from ... import pipeline
from ...errors import ProjectError
from ...files import read_json
from ...tracking.run_context import snapshot
from ..backend import backends
from ..spec import job_stages, spec_of
from ..worker import RESULT
from .backend import Sandbox

EXPERIMENT = "rehearsal-of-jobs"
COLUMNS = ("stage", "job", "pull s", "run s", "push s", "memory GB", "read MB", "made MB")


def rehearse() -> str:
    """Run every job stage in the sandbox and return a report."""
    if not (stages := job_stages()):
        raise ProjectError("no stage has a meta.job", "dvc.yaml:stages.train.meta.job: {kind: training}")
    specs = {stage: spec_of(stage) for stage in stages}
    snapshot(stages[-1])  # refuses a file that Git does not track, and that the copy would lack
    begin, sandbox = time.time(), Sandbox()
    _dvc("exp", "remove", EXPERIMENT, quiet=True)  # of an earlier rehearsal that was killed
    failed = _dvc("exp", "run", "--quiet", "--temp", "--force", "--name", EXPERIMENT, *stages)
    _dvc("exp", "remove", EXPERIMENT, quiet=True)
    if failed:
        raise ProjectError("the rehearsal failed", "correct what it says above, then: make rehearse")
    names = [name for name in sandbox.names() if (sandbox.folder() / name).stat().st_mtime >= begin]
    rows: list[tuple[str, ...]] = []
    for name in (name for name in names if sandbox.context_of(name).dvc_exp_name == EXPERIMENT):
        stage, result = sandbox.describe(name)["stage"], read_json(sandbox.out_dir(name) / RESULT)
        spec, peak_bytes = specs[stage], sandbox.ending_of(name)["peak_bytes"]
        machine = spec.instance_type if spec.instance_count == 1 else f"{spec.instance_count} x {spec.instance_type}"
        seconds = [f"{result['seconds'][part]:.1f}" for part in ("pull", "stage", "push")]
        megabytes = [f"{result['bytes'][way] / 1e6:.1f}" for way in ("down", "up")]
        rows.append((stage, f"{spec.kind} on {machine}", *seconds, f"{peak_bytes / 1e9:.1f}", *megabytes))
    lines = [tabulate(rows, COLUMNS, tablefmt="plain", disable_numparse=True, colalign=["left"] * 2 + ["right"] * 6)]
    for name, backend in backends().items():
        needs = backend().needs(specs)
        lines += ["", f"To run them on {name}:", *(f"- {need}" for need in needs)] if needs else []
    local = ", ".join(stage for stage in pipeline.load_stages() if stage not in specs)
    return "\n".join([*lines, f"- this machine for: {local or 'nothing but to start jobs and take results'}"])


def _dvc(*arguments: str, quiet: bool = False) -> int:
    environment = {**os.environ, "RUN_ON": Sandbox.NAME, "JOB_FRESH": "1"}
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], env=environment, capture_output=quiet).returncode

"""Run a stage as a job, from the clone in which `dvc repro` works.

The name of a job is made of the stage's inputs, so launchers of the same thing share one job: a second launcher, and
one that was killed and is started again. `JOB_FRESH=1 dvc repro -f` starts a new one.
"""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .. import pipeline
from ..config import load_platform
from ..errors import ProjectError
from ..tracking import dvc_remote, run_context, uploader
from . import fingerprint, results, transfer
from .backend import Backend, State, attempt_of, backends, current_backend
from .spec import job_stem, spec_of

log = logging.getLogger(__name__)


def run(stage: str, publish: Callable[[str], None]) -> None:
    """Run a stage as a job and take over its results; `publish` does what needs Git, which a job has not.

    Raise ProjectError if it can't run as a job, or the job failed or was stopped; or see `results`.
    """
    if not os.environ.get("DVC_STAGE"):
        raise ProjectError(f"{stage} was started by hand, and only DVC can start a job", f"dvc repro {stage}")
    backend = current_backend()
    backend.check()
    name = _find_or_start(stage, backend)
    try:
        backend.follow(name)
    finally:
        _upload(backend.context_of(name).run)
    results.apply_results(stage, backend.out_dir(name))
    publish(stage)
    results.check(stage, backend.out_dir(name))  # last: after it, DVC looks at the work tree
    log.info("%s has the results of job %s", stage, name)


def dry_run(stage: str, backend_name: str | None = None) -> str:
    """Return the request that would start the job of a stage on a backend, by default the first that makes requests.

    Raise ProjectError if the stage can't run as a job there, or the backend makes no requests.
    """
    planning = [name for name, backend in backends().items() if backend.plan is not Backend.plan]
    if not planning or (backend_name and backend_name not in planning):
        problem = (
            f"backend {backend_name} has no dry run" if backend_name else "no backend of this project has a dry run"
        )
        others = [f"python -m mlops jobs dry-run {stage} --backend {name}" for name in planning]
        raise ProjectError(problem, ", or ".join(others) or "make rehearse, which runs the jobs on this machine")
    os.environ.update(RUN_ON=backend_name or planning[0], DVC_STAGE=stage)  # as DVC would start it
    backend = current_backend()
    backend.check()
    base, description = _describe(stage)
    name, context = f"{base}-1", run_context.collect(stage)
    with tempfile.TemporaryDirectory() as scratch:
        return backend.plan(Path(scratch), name, {"name": name, **description, "origin": dataclasses.asdict(context)})


def _describe(stage: str) -> tuple[str, dict[str, Any]]:
    """Return a stage as a job.

    The first is the name of its jobs, without the number of the attempt; the second is what the job's file holds, but
    for the job's name and the run's context: no secret.
    """
    spec = spec_of(stage)
    with fingerprint.open_stage(stage) as loaded:
        if elsewhere := [str(out) for out in loaded.outs if out.use_cache and (out.remote or not out.can_push)]:
            problem = f"a job can't bring {', '.join(elsewhere)} back: it is not for the default DVC remote"
            raise ProjectError(problem, f"take `remote` and `push` from dvc.yaml:stages.{stage}.outs")
        fingerprint.check_in_project(loaded.repo, loaded)
        inputs = fingerprint.from_work_tree(loaded)
    platform, remote = load_platform(), transfer.public_remote()
    digest = fingerprint.digest(inputs, spec.image or "", platform.run_on, remote["url"])
    description = {"stage": stage, "inputs": inputs, "remote": remote, "spec": spec.model_dump()}
    return f"{job_stem(stage)}-{digest}", description


def _find_or_start(stage: str, backend: Backend) -> str:
    """Return the name of a job that runs, or has succeeded, for the same inputs; start a job if there is none."""
    base, description = _describe(stage)
    backend.folder().mkdir(parents=True, exist_ok=True)
    lock = FileLock(backend.folder() / f"{base}.lock")  # launchers of the same job share it
    try:
        acquired = lock.acquire(timeout=0.5)
    except Timeout:
        log.info("another launcher is starting the same job: waiting for it")
        acquired = lock.acquire()
    with acquired:
        last = backend.last(base)
        state = backend.state(last) if last else None
        if last and _is_reusable(stage, backend, last, state):
            return last
        attempts = attempt_of(last) if last else 0
        name = last if last and state is State.PREPARED else f"{base}-{attempts + 1}"
        context = run_context.collect(stage)  # it may refuse: before large data are pushed
        if backend.is_described(name):  # reuse the run's id of a launcher that was killed before the job started
            earlier = backend.context_of(name)
            if earlier.commit == context.commit:
                context = dataclasses.replace(context, run=earlier.run, name=earlier.name or context.name)
        dvc_remote.push_inputs(stage, for_job=True)
        backend.prepare(name, {"name": name, **description, "origin": dataclasses.asdict(context)})
        if pipeline.load_stage(stage).is_training:
            run_context.log_training(context)
        log.info("job %s starts", name)
        backend.start(name)
        return name


def _is_reusable(stage: str, backend: Backend, name: str, state: State | None) -> bool:
    """Return whether a job's results can be, or soon will be, taken over."""
    if os.environ.get("JOB_FRESH", "0") != "0" or state not in (State.RUNNING, State.COMPLETED):
        return False
    if state is State.RUNNING:
        log.info("job %s is at it already: following it", name)
        return True
    if pipeline.load_stage(stage).always_changed:
        log.info("job %s is done, and %s is to run each time (always_changed): starting anew", name, stage)
        return False
    if missing := results.missing_outputs(stage, backend.out_dir(name)):
        log.info("job %s has done it, but the DVC remote lost %s of its results: starting anew", name, len(missing))
        return False
    log.info("job %s has done it already: taking over its results (to do it again: JOB_FRESH=1 dvc repro -f)", name)
    return True


def _upload(run: str) -> None:
    """Send to MLflow what the job could not send; also of a training that failed, or was stopped."""
    if run in uploader.waiting():
        try:
            uploader.upload(uploader.folder() / run)
        except ProjectError as error:
            if run in uploader.waiting():  # else another launcher of the same job has sent it
                log.warning("%s. The run is kept. Fix: %s", error.problem, error.fix)

"""Run a stage as a job, from the clone that `dvc repro` works in.

A job's name is made of the stage's inputs. So whoever starts the same thing shares the job that is there: a second
launcher, and one that was killed and is started again. `JOB_FRESH=1 dvc repro -f` starts anew.
"""

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import pipeline
from ..config import load_platform
from ..errors import ProjectError
from ..tracking import dvc_remote, run_context, uploader
from ..tracking.run_context import RunContext
from . import fingerprint, remote, results
from .backend import Backend, current_backend, next_attempt
from .spec import JobSpec, spec_of
from .state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be run.

    Args:
        stage: Of `dvc.yaml`.
        spec: How its job is asked for.
        inputs: As they are now.
        upstream: The stages and `.dvc` files that these are of.
        remote: Where its results go: what a job may know of the DVC remote.
    """

    stage: str
    spec: JobSpec
    inputs: fingerprint.Inputs
    upstream: tuple[str, ...]
    remote: dict[str, str]

    @property
    def base(self) -> str:
        """Return the name of its jobs, but for the number of the attempt."""
        platform = load_platform()
        digest = fingerprint.digest(self.inputs, self.spec.image or "", platform.run_on, self.remote["url"])
        return f"{platform.project}-{self.stage}-{digest}"


def run(stage: str, publish: Callable[[str], None]) -> None:
    """Run `stage` as a job and take over what it made.

    Args:
        stage: One of `dvc.yaml`.
        publish: What is left to do with its results, since a job has no Git.

    Raises:
        ProjectError: It can't run as a job, or the job failed or was stopped; or see `adopt`.
    """
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] != stage:
        raise ProjectError(f"{stage} was not started as this stage of DVC's, as a job must be", f"dvc repro {stage}")
    backend = current_backend()
    backend.check()
    name = _find_or_start(_request(stage), backend)
    try:
        backend.follow(name)
    finally:
        _deliver(backend.origin_of(name).run)
    results.apply_results(stage, backend.out_dir(name))
    publish(stage)
    results.check(stage, backend.out_dir(name))  # the last act: next, DVC looks at the work tree
    log.info("%s has the results of job %s", stage, name)


def dry_run(stage: str) -> str:
    """Return what SageMaker would be asked for to run a stage, as JSON; nothing is started or sent.

    Raises:
        ProjectError: It can't run as a job.
    """
    from .sagemaker import backend

    os.environ.update(RUN_ON="sagemaker", DVC_STAGE=stage)  # as DVC would start it
    backend.check()
    request = _request(stage)
    name = next_attempt(request.base, None)
    with tempfile.TemporaryDirectory() as scratch:
        backend.plan(Path(scratch), name, _description(request, name, run_context.collect(stage)))
        return Path(scratch, backend.REQUEST).read_text(encoding="utf-8")


def _request(stage: str) -> Request:
    from dvc.repo import Repo

    spec = spec_of(stage)
    with Repo(os.getcwd()) as repo:
        loaded = repo.stage.load_one(name=stage)
        elsewhere = [str(out) for out in loaded.outs if out.use_cache and (out.remote or not out.can_push)]
        if elsewhere:
            raise ProjectError(
                f"a job can't bring {', '.join(elsewhere)} back: it is not for the default DVC remote",
                f"take `remote` and `push` from dvc.yaml:stages.{stage}.outs",
            )
        fingerprint.check_in_project(repo, loaded)
        upstream = tuple(sorted({one.address for one in fingerprint.kept_by_dvc(repo, loaded)}))
        return Request(stage, spec, fingerprint.from_work_tree(loaded), upstream, remote.public())


def _find_or_start(request: Request, backend: Backend) -> str:
    """Return the name of a job that runs, or has run well, for the same inputs; start one where there is none."""
    with _only_one(backend.folder() / f"{request.base}.lock"):
        last = backend.last(request.base)
        state = backend.state(last) if last else None
        if last and _usable(request, backend, last, state):
            return last
        name = last if last and state is State.PREPARED else next_attempt(request.base, last)
        start = _origin(request.stage, backend, name)  # it may refuse, and data can be large: so before they are pushed
        if request.upstream:
            dvc_remote.push(list(request.upstream))
        _start(request, backend, name, start)
        return name


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        log.info("another launcher starts the same job: waiting for that")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _usable(request: Request, backend: Backend, name: str, state: State | None) -> bool:
    if os.environ.get("JOB_FRESH", "0") != "0":
        return False
    if state is State.RUNNING:
        log.info("job %s is at it already: following it", name)
        return True
    if state is not State.COMPLETED:
        return False
    gone = results.missing_outputs(request.stage, backend.out_dir(name))
    if gone:
        log.info("job %s has done it, but the DVC remote lost %s of its results: starting anew", name, len(gone))
        return False
    log.info("job %s has done it already: taking over its results (to do it again: JOB_FRESH=1 dvc repro -f)", name)
    return True


def _start(request: Request, backend: Backend, name: str, start: RunContext) -> None:
    """Describe the job, and start it; no secret is in the description."""
    backend.prepare(name, _description(request, name, start))
    if pipeline.load_stage(request.stage).is_training:
        run_context.log_training(start)
    log.info("job %s starts", name)
    backend.start(name)


def _description(request: Request, name: str, start: RunContext) -> dict[str, Any]:
    return {
        "name": name,
        "stage": request.stage,
        "inputs": request.inputs,
        "origin": dataclasses.asdict(start),
        "remote": request.remote,
        "spec": request.spec.model_dump(),
    }


def _origin(stage: str, backend: Backend, name: str) -> RunContext:
    """Ask where the job is started; a launcher that was killed before it started the same has given the run its id."""
    asked = run_context.collect(stage)
    before = backend.origin_of(name) if backend.is_described(name) else asked
    return dataclasses.replace(asked, run=before.run) if before.commit == asked.commit else asked


def _deliver(run: str) -> None:
    """Send to MLflow what the job could not; also of a training that failed, or was stopped."""
    if run not in uploader.waiting():
        return
    try:
        uploader.upload(uploader.folder() / run)
    except ProjectError as error:
        if run in uploader.waiting():  # else another launcher of the same has sent it
            log.warning("%s. The run is kept. Fix: %s", error.problem, error.fix)

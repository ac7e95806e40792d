"""Run a stage as a job, from the clone that `dvc repro` works in.

A job's name is made of the stage's inputs. So whoever starts the same thing shares the job that is there: a second
launcher, and one that was killed and is started again. `JOB_FRESH=1 dvc repro -f` starts anew.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ProjectError
from ..settings import load_platform
from ..tracking import branch, origin, outbox, storage
from . import inputs, remote, sandbox
from .adopt import adopt, lost
from .spec import JobSpec, spec_of
from .state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be run: a stage, its inputs as they are now, and the stages and `.dvc` files that these are of."""

    stage: str
    spec: JobSpec
    inputs: inputs.Inputs
    upstream: tuple[str, ...]

    @property
    def base(self) -> str:
        """Return the name of its jobs, but for the number of the attempt."""
        digest = inputs.digest(self.inputs, self.spec.image or "")
        return f"{load_platform().project}-{self.stage}-{digest}"


def run(stage: str) -> None:
    """Run `stage` as a job and take over what it made.

    Raises:
        ProjectError: It can't run as a job, or the job failed or was stopped; or see `adopt`.
    """
    if not os.environ.get("DVC_STAGE"):
        raise ProjectError(f"{stage} was started by hand, and a job's results need DVC", f"dvc repro {stage}")
    request = _request(stage)
    name = _find_or_start(request)
    sandbox.follow(name)
    result = adopt(stage, sandbox.out_dir(name))
    if not result["mirrored"]:
        _deliver()
    log.info("%s has the results of job %s", stage, name)


def _request(stage: str) -> Request:
    from dvc.repo import Repo

    spec = spec_of(stage)
    with Repo(os.getcwd()) as repo:
        loaded = repo.stage.load_one(name=stage)
        upstream = tuple(sorted(set(inputs.data(repo, loaded).values())))
        return Request(stage, spec, inputs.of(loaded), upstream)


def _find_or_start(request: Request) -> str:
    """Return the name of a job that runs, or has run well, for the same inputs; start one where there is none."""
    with _only_one(request.base):
        last = sandbox.last(request.base)
        state = sandbox.state(last) if last else State.FAILED
        if last and not os.environ.get("JOB_FRESH") and _usable(request, last, state):
            return last
        name = last if last and state is State.PREPARED else _next(request.base, last)
        if state is not State.PREPARED:
            sandbox.prepare(name, _describe(request, name))
        _start(request, name)
        return name


@contextlib.contextmanager
def _only_one(base: str) -> Iterator[None]:
    from filelock import FileLock

    folder = sandbox.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{base}.lock"):
        yield


def _usable(request: Request, name: str, state: State) -> bool:
    if state is State.RUNNING:
        log.info("job %s is at it already: following it", name)
        return True
    if state is not State.COMPLETED:
        return False
    gone = lost(request.stage, sandbox.out_dir(name))
    if gone:
        log.info("job %s has done it, but the DVC remote lost %s of its results: starting anew", name, len(gone))
        return False
    log.info("job %s has done it already: taking over its results (to do it again: JOB_FRESH=1 dvc repro -f)", name)
    return True


def _next(base: str, last: str | None) -> str:
    number = int(last.removeprefix(f"{base}-")) if last else 0
    return f"{base}-{number + 1}"


def _describe(request: Request, name: str) -> dict[str, Any]:
    """Return what the job is told, from inside and outside; no secret is in it."""
    return {
        "name": name,
        "stage": request.stage,
        "inputs": request.inputs,
        "origin": origin.ask(request.stage).as_json(),
        "remote": remote.public(),
        "spec": request.spec.model_dump(),
        "patience_s": request.spec.patience_s,
    }


def _start(request: Request, name: str) -> None:
    if request.upstream:
        storage.push(list(request.upstream))
    if request.stage == "train":
        start = sandbox.origin_of(name)
        if not branch.has(f"run: {start.run}"):  # else a launcher was killed after it wrote that
            origin.log_training(start)
    log.info("job %s starts", name)
    sandbox.start(name)


def _deliver() -> None:
    """Send the run to MLflow, which the job could not reach."""
    try:
        outbox.deliver()
    except ProjectError as error:
        log.warning("%s. The run is kept. Fix: %s", error.problem, error.fix)

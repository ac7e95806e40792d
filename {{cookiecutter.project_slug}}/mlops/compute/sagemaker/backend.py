"""Start, find, follow and stop jobs on SageMaker.

SageMaker knows the jobs; this machine keeps, in a folder for each, what the job was told, what it was asked with, and
what it handed back. All of that can be had again from SageMaker and S3, by any clone.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from ...config import home, load_platform
from ...errors import ProjectError
from ...files import read_json, write_json
from ...tracking import uploader
from ...tracking.run_context import RunContext
from .. import archive
from ..spec import JobSpec
from ..state import State
from ..worker import RESULT
from . import client, image, storage, wait
from .entrypoint import RUN
from .logs import all_of
from .request import CODE, DESCRIPTION, JobRequest, request, results_uri, role_arn

REQUEST, OUT = "request.json", "out"


def folder() -> Path:
    """Return where this machine keeps what it knows of jobs, also for a throw-away experiment."""
    return home() / ".dvc" / "tmp" / "jobs" / "sagemaker"


def check() -> None:
    """See that a job can be started from here.

    Raises:
        ProjectError: A setting is missing, or AWS does not know us.
    """
    storage.jobs_uri()
    role_arn()


def last(base: str) -> str | None:
    """Return the name of the last attempt at something, of whichever clone."""
    known = [path.parent.name for path in folder().glob(f"{base}-*/{DESCRIPTION}")]
    found = [name for name in {*known, *client.names(f"{base}-")} if name.removeprefix(f"{base}-").isdigit()]
    return max(found, key=lambda name: int(name.rpartition("-")[2]), default=None)


def state(name: str) -> State:
    """Return what became of a job.

    Raises:
        ProjectError: There is no such job.
    """
    found = find(name)
    if found:
        return found.state
    if is_described(name):
        return State.PREPARED
    raise _unknown(name)


def find(name: str) -> client.Job | None:
    """Return a job as SageMaker has it."""
    return client.describe(name, describe(name)["spec"]["kind"] if is_described(name) else None)


def _started(name: str) -> client.Job:
    found = find(name)
    if not found:
        raise _unknown(name)
    return found


def _unknown(name: str) -> ProjectError:
    return ProjectError(f"SageMaker has no job {name!r} in {load_platform().region}", "python -m mlops jobs list")


def is_described(name: str) -> bool:
    """Return whether this machine has what a job of this name was told, or is to be told."""
    return (folder() / name / DESCRIPTION).exists()


def describe(name: str) -> dict[str, Any]:
    """Return what a job was told; another clone's is fetched.

    Raises:
        ProjectError: There is no such job.
    """
    if not is_described(name):
        found = client.describe(name)
        if not found:
            raise _unknown(name)
        _learn(found)
    told: dict[str, Any] = read_json(folder() / name / DESCRIPTION)
    return told


def origin_of(name: str) -> RunContext:
    """Return where a job was started."""
    return RunContext(**describe(name)["origin"])


def _learn(job: client.Job) -> None:
    """Write down what a job that is there was told."""
    if job.kind == "training":
        inputs = {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"] for one in job.told["InputDataConfig"]}
    else:
        inputs = {one["InputName"]: one["S3Input"]["S3Uri"] for one in job.told["ProcessingInputs"]}
    if not storage.get(inputs.get("job", ""), folder() / job.name):
        raise ProjectError(f"what job {job.name} was told is no longer in S3", "JOB_FRESH=1 with the same command")


def prepare(name: str, description: dict[str, Any]) -> None:
    """Write down what the job is told and asked with, and bring it and the code to S3.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses, or a setting is missing.
    """
    place = folder() / name
    shutil.rmtree(place, ignore_errors=True)  # of a launcher that was killed before it started the job
    place.mkdir(parents=True)
    asked = plan(place, name, description)
    for file, uri in ((place / CODE, asked.code), (place / DESCRIPTION, asked.description)):
        storage.put(file, f"{uri}{file.name}", asked.spec.kms_key)


def plan(place: Path, name: str, description: dict[str, Any]) -> JobRequest:
    """Write code, description and request of a job into a folder, and nothing anywhere else."""
    spec = JobSpec(**description["spec"])
    archive.pack(description["origin"]["commit"], place / CODE)
    uri, install = image.of(spec)
    write_json(place / DESCRIPTION, {**description, "image": uri})
    digest = {file: storage.sha256(place / file) for file in (CODE, DESCRIPTION)}
    asked = JobRequest(
        name=name,
        stage=description["stage"],
        spec=spec,
        # Names made of contents: the code of one commit is there once, and a job's description is its own for good.
        code=f"{storage.jobs_uri()}/code/{digest[CODE]}/",
        description=f"{storage.jobs_uri()}/jobs/{name}/{digest[DESCRIPTION][:16]}/",
        image=uri,
        install=install,
        tags={"commit": description["origin"]["commit"], "run": description["origin"]["run"]},
    )
    write_json(place / REQUEST, request(asked))
    return asked


def start(name: str) -> None:
    """Start a prepared job. If another clone has just started the same, that one is it.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses the request.
    """
    place = folder() / name
    kind = describe(name)["spec"]["kind"]
    if not client.create(kind, read_json(place / REQUEST)):
        found = client.describe(name, kind)
        if found:
            _learn(found)


def follow(name: str) -> None:
    """Show what a job prints until it ends, and fetch what it hands back.

    Raises:
        KeyboardInterrupt: It was stopped by Ctrl-C.
        ProjectError: It failed, or was stopped otherwise; or AWS refuses.
    """
    job, asked = wait.follow(_started(name))
    out = wait.retry_forever(partial(out_dir, name))
    _keep_run(name, out)
    if asked:
        raise KeyboardInterrupt
    if job.state is not State.COMPLETED:
        raise wait.failure(job, out)


def out_dir(name: str) -> Path:
    """Return the folder of what an ended job handed back, fetched where it is not here yet.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    from filelock import FileLock

    out = folder() / name / OUT
    with FileLock(folder() / f"{name}.out.lock"):  # another launcher may follow the same job
        if not (out / RESULT).exists():
            _fetch(name, out)
    return out


def _fetch(name: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    storage.get(f"{results_uri(describe(name)['spec']['kind'], name)}/", out)
    packed = out / "output.tar.gz"  # a training's folder comes as one file
    if packed.exists():
        archive.unpack(packed, out)
        packed.unlink()


def _keep_run(name: str, out: Path) -> None:
    """Put the run of a training into the outbox of this clone, when MLflow does not have all of it."""
    if (out / RUN).exists():
        archive.unpack(out / RUN, uploader.folder() / origin_of(name).run)
        (out / RUN).unlink()


def names(everyones: bool = False) -> list[str]:
    """Return the names of this clone's jobs, or of all that the project has in the account; the oldest first."""
    known = sorted(folder().glob(f"*/{DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
    mine = [path.parent.name for path in known]
    others = [name for name in client.names(f"{load_platform().project}-") if name not in mine] if everyones else []
    return [*others, *mine]


def row(name: str) -> str:
    """Return what there is to say of a job, in a line.

    Raises:
        ProjectError: AWS can't be asked.
    """
    found = find(name)
    if not found:
        return f"{State.PREPARED:<11} {name}"
    cost = "" if found.billable_s is None else f"  {found.billable_s} s on {found.machines}"
    why = f"  {found.reason}" if found.state in (State.FAILED, State.STOPPED) else ""
    return f"{found.state:<11} {name}{cost}{why}"


def log_of(name: str) -> str:
    """Return what a job printed.

    Raises:
        ProjectError: There is no such job, or AWS can't be asked.
    """
    return "".join(f"{line}\n" for line in all_of(_started(name)))


def stop(name: str) -> None:
    """Ask a job to stop: its training ends as after Ctrl-C. Nothing happens to one that has ended.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: There is no such job, or AWS refuses.
    """
    client.stop(_started(name))

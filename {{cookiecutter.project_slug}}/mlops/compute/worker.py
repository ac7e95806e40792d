"""Inside a job: pull what the stage reads, run it as it runs anywhere, push what it made, hand back the rest.

    python -m mlops jobs run JOB_FILE OUT_DIR

There is no Git here. The working directory holds the files of one commit; `JOB_FILE` says what to do.
"""

import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..files import read_json, write_json
from ..tracking import dvc_remote
from . import fingerprint

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

log = logging.getLogger(__name__)

RESULT, SMALL, FAILURE = "result.json", "small.tar", "failure.json"
PAUSE_S, LONGEST_S = 1.0, 30.0  # between two tries to push


def run(job_file: Path, out: Path) -> None:
    """Do the job; its results, or the reason of its failure, are in `out`.

    Args:
        job_file: What the clone that starts the job wrote (`launch.py`).
        out: A folder whose content is brought back: `small.tar` with the outputs that Git keeps, and at last
            `result.json` with the entry for `dvc.lock`.

    Raises:
        SystemExit: The inputs are not to be had, or others than those that the job was started for; the stage failed;
            or its outputs can't be pushed. The clone that started the job tells of it.
    """
    _hear()
    job = read_json(job_file)
    try:
        _run(job, out)
    except ProjectError as error:
        write_json(out / FAILURE, {"reason": error.problem, "fix": error.fix})
        raise SystemExit(2) from error


def assist(job_file: Path) -> None:
    """Take part in a training that another machine of the job leads; that one alone writes.

    Raises:
        SystemExit: The training has ended here.
    """
    from dvc.repo import Repo

    _hear()
    job = read_json(job_file)
    _configure(job["remote"])
    with Repo(os.getcwd()) as repo:
        _pull(repo, repo.stage.load_one(name=job["stage"]), job["inputs"])
    raise SystemExit(subprocess.run([sys.executable, "-m", "mlops", "stage", job["stage"]]).returncode)


def _hear() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background lets it be ignored


def _interrupt(*_: object) -> None:
    """Do what Ctrl-C does: the stage ends its run in MLflow, and writes down that it was stopped."""
    os.killpg(os.getpgrp(), signal.SIGINT)


def _run(job: dict[str, Any], out: Path) -> None:
    from dvc.repo import Repo

    # After the import, which sets it too. What it tells, the DVC that started us has told.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    _configure(job["remote"])
    clock = [time.monotonic()]
    with Repo(os.getcwd()) as repo:
        stage = repo.stage.load_one(name=job["stage"])
        down = _pull(repo, stage, job["inputs"])
        clock.append(time.monotonic())
        _reproduce(repo, stage)
        clock.append(time.monotonic())
    with Repo(os.getcwd()) as repo:  # its lock file is another one now
        stage = repo.stage.load_one(name=job["stage"])
        up = _push(repo, stage, job["spec"]["patience_s"])
        clock.append(time.monotonic())
        _hand_back(stage, out, clock, {"down": down, "up": up})


def _configure(remote: dict[str, str]) -> None:
    """Make the DVC configuration the job's own: no Git, the remote without secrets, a cache in this folder."""
    name = remote.pop("name")
    file = Path(".dvc", "config")
    file.unlink(missing_ok=True)
    sections: dict[str, dict[str, Any]] = {
        "core": {"remote": name, "no_scm": True, "analytics": False},
        f'remote "{name}"': {**remote, "url": dvc_remote.config_url(remote["url"], file)},
        # Nobody else uses this cache, so files can be linked and needn't be copied.
        "cache": {"dir": "cache", "type": ["reflink", "hardlink", "copy"]},
    }
    dvc_remote.write_config(file, sections)


def _pull(repo: "Repo", stage: "PipelineStage", wanted: fingerprint.Inputs) -> int:
    """Bring the deps here, and see that they are those of the clone; return their bytes."""
    paths = [one.path for one in fingerprint.kept_by_dvc(repo, stage)]
    try:
        if paths:
            repo.pull(targets=paths)
    except Exception as error:  # each kind of remote lets its own kinds of errors through
        raise ProjectError(
            f"the DVC remote does not give what {stage.name} reads ({', '.join(paths)}): {error.__cause__ or error}",
            "dvc push, where they are; then the same command",
        ) from error
    found = fingerprint.from_work_tree(stage)
    if not fingerprint.same(found, wanted):
        raise ProjectError(
            "the job has other inputs than the clone that started it: "
            f"{', '.join(fingerprint.differences(wanted, found))}",
            "commit them to Git, or dvc add them, without attributes that change or leave out files (.gitattributes)",
        )
    return sum(dep.meta.size or 0 for dep in stage.deps if dep.def_path in paths and dep.meta)


def _reproduce(repo: "Repo", stage: "PipelineStage") -> None:
    from dvc.exceptions import DvcException

    try:
        repo.reproduce(targets=[stage.addressing], single_item=True)
    except DvcException as error:
        raise ProjectError(
            f"the stage {stage.name} failed ({error.__cause__ or error}); its own words are above",
            "mend what it says, then the same command: it starts a new job",
        ) from error


def _push(repo: "Repo", stage: "PipelineStage", patience_s: float) -> int:
    """Push the outputs, and go on trying: they are all that there is of the work. Return their bytes."""
    deadline, pause = time.monotonic() + patience_s, PAUSE_S
    while True:
        try:
            repo.push(targets=[stage.addressing])
            return sum(out.meta.size or 0 for out in stage.outs if out.use_cache and out.meta)
        except Exception as error:  # each kind of remote lets its own kinds of errors through
            if time.monotonic() + pause > deadline:
                raise ProjectError(
                    f"the DVC remote did not take the outputs for {patience_s:.0f} s: {error.__cause__ or error}",
                    "mend the connection; platform.yaml:job.patience_s lets a job try longer",
                ) from error
            log.warning("the DVC remote does not take the outputs: %s. Trying again", error.__cause__ or error)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_S)


def _hand_back(stage: "PipelineStage", out: Path, clock: list[float], moved: dict[str, int]) -> None:
    from dvc.utils.serialize import load_yaml

    with tarfile.open(out / SMALL, "w") as packed:
        for small in (one for one in stage.outs if not one.use_cache):
            packed.add(small.def_path)
    seconds = {name: round(clock[n + 1] - clock[n], 2) for n, name in enumerate(("pull", "stage", "push"))}
    entry = fingerprint.plain(load_yaml("dvc.lock")["stages"][stage.name])
    write_json(out / RESULT, {"entry": entry, "seconds": seconds, "bytes": moved})

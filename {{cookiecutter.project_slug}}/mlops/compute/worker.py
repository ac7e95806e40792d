"""Inside a job: pull what the stage reads, run the stage as anywhere, push its outputs, hand back the rest.

    python -m mlops jobs run JOB_FILE OUT_DIR

A job has no Git. Its working directory holds the files of one commit; `JOB_FILE` describes the job.
"""

import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..files import read_json, write_json
from ..tracking import dvc_remote, inputs
from . import fingerprint, transfer
from .fingerprint import Stage, open_stage

log = logging.getLogger(__name__)

RESULT, SMALL, FAILURE = "result.json", "small.tar", "failure.json"


def run(job_file: Path, out: Path) -> None:
    """Run the job that a clone described in `job_file` (`submit.py`); exit with code 2 when it fails.

    The backend returns the content of the folder `out` to the clone: `small.tar` with the outputs that Git keeps and at
    last `result.json` with the entry for `dvc.lock`, or `failure.json` with the reason.
    """
    _forward_signals()
    try:
        _run(read_json(job_file), out)
    except ProjectError as error:
        write_json(out / FAILURE, {"reason": error.problem, "fix": error.fix})
        raise SystemExit(2) from error


def assist(job_file: Path) -> None:
    """Take part in a training of several machines that another one leads, which alone writes results; then exit."""
    _forward_signals()
    job = read_json(job_file)
    _configure(job["remote"])
    with open_stage(job["stage"]) as stage:
        _pull(stage, job["inputs"])
    process = subprocess.Popen([sys.executable, "-m", "mlops", "stage", job["stage"]])
    while True:
        try:
            raise SystemExit(process.wait())
        except KeyboardInterrupt:  # the stage got it too, and ends when the first process of all has
            continue


def _forward_signals() -> None:
    """Let SIGTERM do what Ctrl-C does: the stage ends its run in MLflow, and records that it was stopped."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(os.getpgrp(), signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background may ignore it


def _run(job: dict[str, Any], out: Path) -> None:
    import dvc.repo  # noqa: F401 (it sets the level of its logger)
    from dvc.exceptions import DvcException
    from dvc.stage.exceptions import StageCmdFailedError
    from dvc.utils.serialize import load_yaml

    logging.getLogger("dvc").setLevel(logging.WARNING)  # the launcher's DVC has printed the rest
    _configure(job["remote"])
    begin = time.monotonic()
    with open_stage(job["stage"]) as stage:
        pulled_bytes = _pull(stage, job["inputs"])
        pulled = time.monotonic()
        try:
            stage.repo.reproduce(targets=[stage.addressing], single_item=True)
        except DvcException as error:
            cause = error.__cause__ or error
            why = "" if isinstance(cause, StageCmdFailedError) else f" ({cause})"
            problem = f"the stage {stage.name} failed{why}; what it printed is above"
            raise ProjectError(problem, "correct that, then the same command: it starts a new job") from error
        ran = time.monotonic()
    with open_stage(job["stage"]) as stage:  # again: its entry in dvc.lock is new
        pushed_bytes = _push(stage, job["spec"]["patience_s"])
        pushed = time.monotonic()
    with tarfile.open(out / SMALL, "w") as packed:
        for small in (output for output in stage.outs if not output.use_cache):
            packed.add(os.path.relpath(small.fs_path))
    seconds = {"pull": pulled - begin, "stage": ran - pulled, "push": pushed - ran}
    result = {
        "entry": fingerprint.plain(load_yaml("dvc.lock")["stages"][stage.name]),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "bytes": {"down": pulled_bytes, "up": pushed_bytes},
    }
    write_json(out / RESULT, result)


def _configure(remote: dict[str, str]) -> None:
    """Configure DVC for the job: no Git, the remote without secrets, a cache in this folder, patience with S3."""
    if remote["url"].startswith(transfer.S3):
        import s3fs

        # Where many jobs start at once, S3 is busy for a while. Its answer to a HEAD says so by the status alone, which
        # s3fs takes for final. Now s3fs tries each request 5 times, and botocore each of these 5 times: for 39 s on
        # average, and 77 s at most. (A push is tried again after that.)
        s3fs.set_custom_error_handler(lambda error: "(503)" in str(error))
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


def _pull(stage: Stage, expected: fingerprint.Inputs) -> int:
    """Pull the deps, and check that they are those of the clone; return their bytes."""
    outs = inputs.tracked(stage)
    # What comes from elsewhere was brought to the remote for this job: its source may be out of reach here.
    brought = {out for out in outs.values() if inputs.is_elsewhere(out)}
    with transfer.explain_errors(
        f"the DVC remote does not give what {stage.name} reads ({', '.join(outs)})",
        "dvc push, in the clone that has it; then the same command",
    ):
        if paths := [path for path, out in outs.items() if out not in brought]:
            stage.repo.pull(targets=paths)
        if brought:
            dvc_remote.fetch(stage.repo, list(brought))
        for out in brought:
            out.checkout(force=True)
    read = fingerprint.from_work_tree(stage)
    if not fingerprint.same(read, expected):
        raise ProjectError(
            "the job has other inputs than the clone that started it: "
            f"{', '.join(fingerprint.differences(expected, read))}",
            "commit them and each .dvcignore to Git, or dvc add them; .gitattributes must not change or omit them",
        )
    return sum(dep.meta.size or 0 for dep in stage.deps if inputs.relative(dep) in outs and dep.meta)


def _push(stage: Stage, patience_s: float) -> int:
    """Push the outputs, and keep trying, since they exist nowhere else; return their bytes."""
    deadline, pause_s = time.monotonic() + patience_s, 1.0
    with transfer.explain_errors(
        f"the DVC remote did not take the outputs for {patience_s:.0f} s",
        "correct the connection; platform.yaml:job.patience_s lets a job try longer",
    ):
        while True:
            try:
                stage.repo.push(targets=[stage.addressing])
                return sum(out.meta.size or 0 for out in stage.outs if out.use_cache and out.meta)
            except Exception as error:  # each kind of remote raises its own kinds of errors
                if time.monotonic() + pause_s > deadline:
                    raise
                log.warning("the DVC remote does not take the outputs: %s. Trying again", error.__cause__ or error)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 30.0)

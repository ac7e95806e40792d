"""One training run: its identity, what it is made from, and its record.

Everything about the run goes to files in `reports/train`, which DVC keeps; MLflow gets a copy while it goes on.
"""

import contextlib
import getpass
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..environment import differences
from ..errors import ProjectError
from ..files import read_json, write_json
from ..settings import PACKAGE, home, load_platform, read_params
from . import branch, label, outbox, storage
from .git import GitError, git, head, remote_url
from .live import Live
from .record import LINEAGE, RUN_DIR
from .sidecar import Sidecar
from .snapshot import snapshot

log = logging.getLogger(__name__)

RUN_PATH = Path("reports/run.json")
UPSTREAM = ["prepare", "manifest"]
RESOURCES = Path("/opt/ml/input/config/resourceconfig.json")
MADE_BY = ("data", "split", "train")  # the sections of params.yaml that can change the model


@contextlib.contextmanager
def training_run(parents: list[str]) -> Iterator[Live]:
    """Record what happens in the block as one run.

    Before the block, a Git commit pins code, parameters and data, and the data are pushed to the DVC remote.

    Args:
        parents: Runs whose weights this one starts from; empty for none.

    Yields:
        The DVCLive logger of the run, which writes to `reports/train`.
    """
    _check_upstream()
    facts = _facts(parents)
    branch.record(
        facts["data_git_commit_id"], f"train {facts['name']}\n\nrun: {facts['run']}\nproject: {facts['project']}\n"
    )
    facts["data_pushed"] = storage.push_or_owe(UPSTREAM)
    write_json(RUN_PATH, {"run": facts["run"]})
    with recorded(facts) as live:
        live.log_params({name: values for name, values in read_params().items() if name in MADE_BY})
        yield live


@contextlib.contextmanager
def recorded(facts: dict[str, Any]) -> Iterator[Live]:
    """Write the files of a run, while a sidecar copies them to MLflow.

    When MLflow can't be reached, training succeeds all the same, and `mirror sync` sends the rest.

    Args:
        facts: The run's identity and what it is made from.

    Yields:
        The logger.
    """
    with outbox.training(facts["run"]):
        shutil.rmtree(RUN_DIR, ignore_errors=True)
        write_json(LINEAGE, facts)
        sidecar = _start_mirror(facts["run"])
        status = "FAILED"
        try:
            live = Live(str(RUN_DIR), save_dvc_exp=False, dvcyaml=None, report=None)
            try:
                yield live
            finally:
                live.end()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            write_json(LINEAGE, {**facts, "status": status, "ended_at": _now()})
            if not _end_mirror(facts["run"], sidecar):
                log.warning("MLflow does not have all of the run yet. To see to it: python -m %s mirror sync", PACKAGE)


def _start_mirror(run: str) -> Sidecar | None:
    try:
        outbox.gather(run)
        return Sidecar(run)
    except OSError as error:  # no space, no process: nothing that a training should end for
        log.warning("nothing copies the run to MLflow while it trains: %s", error)
        return None


def _end_mirror(run: str, sidecar: Sidecar | None) -> bool:
    try:
        outbox.gather(run)
    except OSError as error:
        log.warning("the outbox does not take the last files of the run, which are in %s: %s", RUN_DIR, error)
    return sidecar is not None and sidecar.close()


def _check_upstream() -> None:
    """See that what `dvc.lock` names is what is there: the run will name it as what it was made from.

    Raises:
        ProjectError: The stage was not started by DVC, or an earlier one is out of date.
    """
    from dvc.repo import Repo

    if not os.environ.get("DVC_STAGE"):
        raise ProjectError("train was started by hand, so dvc.lock does not say what it reads", "dvc repro train")
    with Repo(os.getcwd()) as repo:
        found = repo.status(targets=UPSTREAM)
    changed = [stage for stage, changes in found.items() if _modified(changes)]
    if changed:
        raise ProjectError(f"{' and '.join(changed)} changed and did not run since: {found}", "dvc repro train")


def _modified(changes: Any) -> bool:
    # What is deleted here, such as raw data that were never pulled, can't have been read in another form.
    if isinstance(changes, dict):
        return any(map(_modified, changes.values()))
    return any(map(_modified, changes)) if isinstance(changes, list) else changes not in ("deleted", "not in cache")


def _facts(parents: list[str]) -> dict[str, Any]:
    import torch

    run = uuid.uuid4().hex[:12]
    experiment = os.environ.get("DVC_EXP_NAME", "")
    commit = snapshot("train")
    dataset_md5 = label.dataset_md5()
    return {
        "run": run,
        "name": experiment or run,
        "project": load_platform().project,
        "user": _user(),
        "started_at": _now(),
        "data_git_commit_id": commit,
        "git_remote_url": remote_url(home()),
        "git_branch": git("branch", "--show-current", where=home()),
        "baseline_commit": os.environ.get("DVC_EXP_BASELINE_REV") or head(),
        "dataset_path": label.DATASET,
        "dataset_md5": dataset_md5,
        "data_version": label.of(dataset_md5),
        "manifest_sha256": read_json(Path("reports/manifest.json"))["sha256"][0],
        "consent_sha256": read_json(Path("reports/prepare.json"))["consent_sha256"][0],
        "dvc_exp_name": experiment,
        "dvc_remote_url": storage.remote_url(),
        "parents": parents,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment_differences": [f"{name} {have}" for name, (_, have) in differences().items()],
        **_place(),
    }


def _user() -> str:
    try:
        return git("config", "user.name", where=home())
    except GitError:
        pass
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user without a name
        return "unknown"


def _place() -> dict[str, str]:
    """Return the job and its instance type, inside a SageMaker job.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
    """
    job = os.environ.get("TRAINING_JOB_NAME", "")
    config = read_json(RESOURCES) if RESOURCES.exists() else {}
    place = {"job": job, "instance_type": config.get("current_instance_type", "")}
    return {name: value for name, value in place.items() if value}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

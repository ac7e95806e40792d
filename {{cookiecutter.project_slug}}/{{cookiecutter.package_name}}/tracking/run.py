"""One training run: its identity, what it is made from, and its record.

Everything about the run goes to files in `reports/train`, which DVC keeps; MLflow gets a copy while it goes on.
"""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..environment import differences
from ..files import read_json, write_json
from ..settings import PACKAGE, job_file, load_platform, read_machines, read_params
from . import label, origin, outbox, resume, server, storage
from .live import Live
from .origin import Origin
from .record import LINEAGE, RUN_DIR
from .sidecar import Sidecar

log = logging.getLogger(__name__)

RUN_PATH = Path("reports/run.json")
MADE_BY = ("data", "split", "train")  # the sections of params.yaml that can change the model


@contextlib.contextmanager
def training_run(parents: list[str], kept: dict[str, bytes]) -> Iterator[Live]:
    """Record what happens in the block as one run.

    Before the block, a Git commit pins code, parameters and data, and the data are pushed to the DVC remote.

    Args:
        parents: Runs whose weights this one starts from; empty for none.
        kept: Files of the run to go on with, as `resume.files` gave them; empty to start one.

    Yields:
        The DVCLive logger of the run, which writes to `reports/train`.
    """
    earlier = resume.facts_of(kept)
    start, pushed = _start(earlier)
    facts = resume.with_history({**_facts(start, parents), "data_pushed": pushed}, earlier)
    write_json(RUN_PATH, {"run": facts["run"]})
    with recorded(facts, kept) as live:
        live.log_params({name: values for name, values in read_params().items() if name in MADE_BY})
        yield live


def _start(earlier: dict[str, Any]) -> tuple[Origin, bool]:
    """Return where the training was started, and whether its data are in the DVC remote.

    Args:
        earlier: Facts of the run whose checkpoint it goes on from; none when it begins.
    """
    handed_over = origin.handed_over()
    if handed_over:
        return handed_over, True  # a job reads them from there
    asked = origin.ask("train")
    if resume.is_same(earlier, asked.commit, asked.dvc_exp_name):
        asked = dataclasses.replace(asked, run=earlier["run"])
    origin.log_training(asked)
    return asked, storage.push_or_owe(origin.UPSTREAM)


@contextlib.contextmanager
def recorded(facts: dict[str, Any], kept: dict[str, bytes] | None = None) -> Iterator[Live]:
    """Write the files of a run, while a sidecar copies them to MLflow.

    When MLflow can't be reached, training succeeds all the same, and `mirror sync` sends the rest.

    Args:
        facts: The run's identity and what it is made from.
        kept: Its files, or an earlier run's, when it goes on with them.

    Yields:
        The logger.
    """
    with outbox.training(facts["run"]):
        shutil.rmtree(RUN_DIR, ignore_errors=True)
        resume.restore(kept or {})
        write_json(LINEAGE, facts)
        sidecar = _start_mirror(facts["run"])
        status = "FAILED"
        try:
            live = Live(str(RUN_DIR), bool(kept), save_dvc_exp=False, dvcyaml=None, report=None)
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
            if not _end_mirror(facts["run"], sidecar) and server.in_sight():
                log.warning("MLflow does not have all of the run yet. To see to it: python -m %s mirror sync", PACKAGE)


def _start_mirror(run: str) -> Sidecar | None:
    if not server.in_sight():
        log.info("MLflow gets run %s when the job's results are taken over", run)
        return None
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


def _facts(start: Origin, parents: list[str]) -> dict[str, Any]:
    import torch

    prepared = read_json(Path("reports/prepare.json"))
    return {
        "run": start.run,
        "name": start.name,
        "project": load_platform().project,
        "user": start.user,
        "started_at": _now(),
        "data_git_commit_id": start.commit,
        "git_remote_url": start.git_remote_url,
        "git_branch": start.git_branch,
        "baseline_commit": start.baseline_commit,
        "dataset_path": label.DATASET,
        "dataset_md5": label.dataset_md5(),
        "data_version": start.data_version,
        "manifest_sha256": read_json(Path("reports/manifest.json"))["sha256"][0],
        "consent_sha256": prepared["consent_sha256"][0],
        "consent_excluded": prepared["excluded"],
        "dvc_exp_name": start.dvc_exp_name,
        "dvc_remote_url": start.dvc_remote_url,
        "parents": parents,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment_differences": [f"{name} {have}" for name, (_, have) in differences().items()],
        **_place(),
    }


def _place() -> dict[str, str]:
    """Return the job that the training runs in, and when SageMaker runs it, the image and the instance type."""
    told = job_file()
    job = read_json(told) if told else {}
    machine = read_machines().get("current_instance_type", "")
    place = {"job": job.get("name", ""), "image": job.get("image", ""), "instance_type": machine}
    return {name: value for name, value in place.items() if value}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""One training run: its identity, what it is made from, and its record.

Everything about the run goes to files in `reports/train`, which DVC keeps; MLflow gets a copy while it goes on.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dvclive

from .. import pipeline
from ..config import job_file, load_platform, read_machines, read_params
from ..environment import differences
from ..files import read_json, write_json
from ..records import manifest
from ..training.checkpoint import Checkpoints
from ..training.distributed import SINGLE_PROCESS, ProcessGroup
from . import dataset_tags, dvc_remote, mlflow_client, resume, run_context, upload_queue
from .live import Live
from .run_context import RunContext
from .run_files import LINEAGE, RUN_DIR
from .uploader import Sidecar

log = logging.getLogger(__name__)

RUN_PATH = Path(pipeline.RUN_REPORT)
MANIFEST = "data/manifest.parquet"


@dataclass(frozen=True)
class RegisteredModel:
    """A registered version to start from.

    Args:
        model_dir: The model's directory, as `train` wrote it, downloaded.
        run: The run that trained it (its `mirror_id`).
    """

    model_dir: Path
    run: str


class TrainingRun:
    """What a training loop tells of itself, and what it goes on from.

    `training_run` gives one that records. `TrainingRun()` records nothing, as that of every process but the first.

    Attributes:
        group: The processes that train together, and which of them this is.
        live: DVCLive's logger, for the callbacks of frameworks; None where nothing is recorded.
        summary: Figures of the whole run, by name, which MLflow and DVC show beside the curves' last values.
    """

    def __init__(
        self,
        group: ProcessGroup = SINGLE_PROCESS,
        checkpoints: Checkpoints | None = None,
        live: dvclive.Live | None = None,
    ) -> None:
        self.group, self._checkpoints, self.live = group, checkpoints or Checkpoints(), live
        self._unrecorded: dict[str, Any] = {}

    @property
    def summary(self) -> dict[str, Any]:
        """Return the figures of the whole run, to add to."""
        return self._unrecorded if self.live is None else self.live.summary  # DVCLive makes a new dict at times

    def log(self, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve, `{"train/loss": 0.3}`, and end the step (an epoch, say)."""
        if self.live is not None:
            for name, value in metrics.items():
                self.live.log_metric(name, value, timestamp=True)
            self.live.next_step()

    def log_image(self, name: str, image: Any) -> None:
        """Keep a picture with the run: one of Pillow's, an array, or a path; `name` has a suffix, such as `.png`."""
        if self.live is not None:
            self.live.log_image(name, image)

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """Return the state to go on from; None where the training begins."""
        return self._checkpoints.state

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Save a state where it is time to, if `CHECKPOINT_DIR` is set; every process calls it after the same epoch.

        Args:
            state: Tensors, numbers and texts in dicts and lists; `epochs` is how many are done.
        """
        self._checkpoints.save(state)

    def restore_random_numbers(self) -> None:
        """Set the generators of random numbers to where the checkpoint was saved: the last thing to restore."""
        self._checkpoints.restore_random_numbers()


@contextlib.contextmanager
def training_run(
    group: ProcessGroup = SINGLE_PROCESS, parents: Sequence[RegisteredModel] = ()
) -> Iterator[TrainingRun]:
    """Record what happens in the block as one run.

    Before the block, a Git commit pins code, parameters and data, the data are pushed to the DVC remote, and the data
    manifest is compared with the dataset. With `CHECKPOINT_DIR`, a training that was cut off goes on.

    Args:
        group: The processes that train; the first one records.
        parents: Registered versions whose weights this training starts from, as `load_version` returned them.

    Yields:
        The run, which writes to `reports/train`; MLflow gets a copy meanwhile.

    Raises:
        ProjectError: The stage was not started by DVC, a commit can't hold what it reads, or the manifest is not the
            dataset's.
    """
    checkpoints = _open_checkpoints(group)
    if group.rank > 0:
        yield TrainingRun(group, checkpoints, None)
        return
    manifest.check_dataset(Path(dataset_tags.DATASET), Path(MANIFEST), Path("reports/manifest.json"))
    earlier = resume.facts_of(checkpoints.files)
    start, pushed = _start(earlier)
    facts = {**_facts(start, [parent.run for parent in parents]), "data_pushed": pushed}
    facts = resume.with_history(facts, earlier)
    write_json(RUN_PATH, {"run": facts["run"]})
    with recorded(facts, checkpoints.files) as live:
        sections = pipeline.running_stage().params_of_all()
        live.log_params({name: values for name, values in read_params().items() if name in sections})
        checkpoints.carry = lambda: resume.files(live)
        yield TrainingRun(group, checkpoints, live)
    if not read_machines()["keeps_checkpoints"]:  # there, a job may still be cut off while it pushes the model
        checkpoints.clear()


def _open_checkpoints(group: ProcessGroup) -> Checkpoints:
    folder = os.environ.get("CHECKPOINT_DIR")
    if not folder:
        return Checkpoints()
    inputs = resume.inputs() if group.rank == 0 else None  # they are read whole; the first process alone needs them
    return Checkpoints(Path(folder), inputs, group)


def _start(earlier: dict[str, Any]) -> tuple[RunContext, bool]:
    """Return where the training was started, and whether its data are in the DVC remote.

    Args:
        earlier: Facts of the run whose checkpoint it goes on from; none when it begins.
    """
    handed_over = run_context.from_job()
    if handed_over:
        return handed_over, True  # a job reads them from there
    stage = pipeline.running_stage()
    asked = run_context.collect(stage.name)
    if resume.is_same(earlier, asked.commit, asked.dvc_exp_name):
        asked = dataclasses.replace(asked, run=earlier["run"])
    run_context.log_training(asked)
    return asked, dvc_remote.push_or_owe(list(stage.upstream))


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
    with upload_queue.training(facts["run"]):
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
            if not _end_mirror(facts["run"], sidecar) and mlflow_client.is_reachable():
                log.warning("MLflow does not have all of the run yet. To send the rest: python -m mlops mirror sync")


def _start_mirror(run: str) -> Sidecar | None:
    if not mlflow_client.is_reachable():
        log.info("MLflow gets run %s when the job's results are taken over", run)
        return None
    try:
        upload_queue.stage_files(run)
        return Sidecar(run)
    except OSError as error:  # no space, no process: nothing that a training should end for
        log.warning("nothing copies the run to MLflow while it trains: %s", error)
        return None


def _end_mirror(run: str, sidecar: Sidecar | None) -> bool:
    try:
        upload_queue.stage_files(run)
    except OSError as error:
        log.warning("the outbox does not take the last files of the run, which are in %s: %s", RUN_DIR, error)
    return sidecar is not None and sidecar.close()


def _facts(start: RunContext, parents: list[str]) -> dict[str, Any]:
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
        "dataset_path": dataset_tags.DATASET,
        "dataset_md5": dataset_tags.dataset_md5(),
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
    machine = read_machines()["instance_type"]
    place = {"job": job.get("name", ""), "image": job.get("image", ""), "instance_type": machine}
    return {name: value for name, value in place.items() if value}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

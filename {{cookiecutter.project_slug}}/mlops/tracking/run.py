"""One training run: its identity, what it is made from, and its record in `reports/train`, which DVC keeps.

An interrupted training continues from a checkpoint wherever the inputs are the same. It continues as the same run where
a backend starts the job again under its run id, or a clone starts the same commit and experiment again. Otherwise it is
a new run that names the earlier one, and begins with its curves.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dvclive

from .. import pipeline
from ..config import job_file, load_platform, other_packages, read_machines, read_params
from ..errors import ProjectError
from ..files import read_json, write_json
from ..records import manifest
from ..training.checkpoint import Checkpoints
from ..training.device import device_facts
from . import dvc_remote, mlflow_client, run_context, uploader
from .live import Live
from .run_context import DATASET
from .run_files import INPUT_FILES, LINEAGE, RUN_DIR, WEIGHTS

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

log = logging.getLogger(__name__)

MANIFEST, MANIFEST_REPORT = map(Path, INPUT_FILES)
# Weights that were made on two kinds of machines equal those of neither: a run that was resumed names both.
KINDS = ("cpu_capability", "device", "device_name", "capability", "driver", "processes")


@dataclass(frozen=True)
class RegisteredModel:
    """A registered version to start from."""

    model_dir: Path  # its directory, as `train` wrote it, downloaded
    run: str  # the run that trained it (its `mirror_id`)


class TrainingRun:
    """Records a training loop, and holds the state that it continues from.

    `training_run` yields one that records. `TrainingRun()` records nothing, like those of all processes but the first.

    Attributes:
        live: DVCLive's logger, for the callbacks of frameworks; None where nothing is recorded.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None = None,
        live: dvclive.Live | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self._checkpoints, self.live = checkpoints or Checkpoints(), live
        self._facts = {} if facts is None else facts  # those that `recorded` writes at the end
        self._unrecorded: dict[str, Any] = {}

    @property
    def summary(self) -> dict[str, Any]:
        """Figures of the whole run, by name, to add to; MLflow and DVC show them beside the last values of curves."""
        return self._unrecorded if self.live is None else self.live.summary  # DVCLive makes a new dict at times

    def log(self, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve, `{"train/loss": 0.3}`, and end the step (an epoch, say)."""
        if self.live is not None:
            for name, value in metrics.items():
                self.live.log_metric(name, value, timestamp=True)
            self.live.next_step()

    def log_image(self, name: str, image: Any) -> None:
        """Log a Pillow image, an array, or the path of a file; `name` has a suffix, such as `.png`."""
        if self.live is not None:
            self.live.log_image(name, image)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the run, such as its device: texts and numbers, by names. MLflow shows them as tags.

        A fact that is another one after a resume, on another machine, says both: `AVX2, then AVX512`.
        """
        if self.live is None:
            return
        noted = self._facts.get("noted", [])
        if reserved := facts.keys() & (self._facts.keys() - set(noted)):
            raise ValueError(f"the run has other facts named {', '.join(sorted(reserved))}")
        self._facts |= {name: then(self._facts.get(name, value), value) for name, value in facts.items()}
        self._facts["noted"] = sorted({*noted, *facts})
        write_json(LINEAGE, self._facts)

    def log_weights(self, state: Mapping[str, "Tensor"]) -> None:
        """Add the hash of this epoch's weights, a `state_dict`, to `reports/train/weights.tsv`; once in each epoch."""
        if self.live is not None:
            from ..training.numerics import weights_hash

            if not WEIGHTS.exists():
                WEIGHTS.write_text("step\tsha256\n", encoding="utf-8", newline="\n")
            step = WEIGHTS.read_bytes().count(b"\n") - 1
            with WEIGHTS.open("ab") as file:
                file.write(f"{step}\t{weights_hash(state)}\n".encode())

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """Return the state to continue from; None for a new training."""
        return self._checkpoints.state

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Save a state if `CHECKPOINT_DIR` is set and a save is due; every process calls it after the same epoch.

        It holds tensors, numbers and texts in dicts and lists; `epochs` is the number of epochs done.
        """
        self._checkpoints.save(state)


@contextlib.contextmanager
def training_run(fabric: "Fabric", parents: Sequence[RegisteredModel] = ()) -> Iterator[TrainingRun]:
    """Record the training in the block as one run, in `reports/train`; MLflow gets a copy meanwhile.

    Before the block, a Git commit pins code, parameters and data, the data are pushed to the DVC remote, and the data
    manifest is compared with the dataset. With `CHECKPOINT_DIR`, an interrupted training continues.

    Args:
        fabric: The processes that train; the first one records, the others get a run that records nothing.
        parents: Registered versions whose weights this training starts from, as `load_version` returned them.

    Raises:
        ProjectError: The stage was not started by DVC, a commit can't hold what it reads, or the manifest is not the
            dataset's.
    """
    checkpoints = Checkpoints()
    if folder := os.environ.get("CHECKPOINT_DIR"):
        inputs = checkpoint_inputs() if fabric.is_global_zero else None  # only the first process compares them
        checkpoints = Checkpoints(Path(folder), inputs, fabric)
    if not fabric.is_global_zero:
        yield TrainingRun(checkpoints)
        return
    manifest.verify(MANIFEST, Path(DATASET), MANIFEST_REPORT)
    earlier = json.loads(checkpoints.files[LINEAGE.name]) if checkpoints.files else {}
    facts = with_history(_start(device_facts(fabric), earlier, [parent.run for parent in parents]), earlier)
    write_json(Path(pipeline.RUN_REPORT), {"run": facts["run"]})
    with recorded(facts, checkpoints.files) as live:
        stage, stages = pipeline.running_stage(), pipeline.load_stages()
        sections = {section for name in (*stage.upstream, stage.name) for section in stages[name].params}
        live.log_params({name: values for name, values in read_params().items() if name in sections})
        checkpoints.extra_files = lambda: files_so_far(live)
        yield TrainingRun(checkpoints, live, facts)
    if not read_machines()["keeps_checkpoints"]:  # there, a job may still be interrupted while it pushes the model
        checkpoints.clear()


def checkpoint_inputs() -> dict[str, Any]:
    """Return what the result of the running stage depends on, by name: deps, params, packages.

    Where the backend keeps checkpoints after the end, also the run: they must serve no other.
    """
    from dvc.repo import Repo

    stage = pipeline.running_stage()
    with Repo(os.getcwd()) as repo:
        loaded = repo.stage.load_one(name=stage.name)
        loaded.save_deps()  # hashes what DVC does not ignore
        deps = {dep.def_path: dep.hash_info.value for dep in loaded.deps if dep.def_path in stage.deps}
    context = run_context.from_job() if read_machines()["keeps_checkpoints"] else None
    return {
        **deps,
        **{f"params.yaml:{name}": read_params()[name] for name in stage.params},
        "other packages than in environment.json": {name: have for name, (_, have) in other_packages().items()},
        "run": context.run if context else "",
    }


def files_so_far(live: Live) -> dict[str, bytes]:
    """Return the content of the run's files so far, by their names in its folder."""
    live.write()
    paths = sorted(path for path in RUN_DIR.rglob("*") if path.is_file())
    return {path.relative_to(RUN_DIR).as_posix(): path.read_bytes() for path in paths}


def with_history(facts: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a run that continues one with the facts `earlier`: its start, and when it was resumed."""
    if not earlier:
        return facts
    resumed_from = earlier.get("resumed_from") if facts["run"] == earlier["run"] else earlier["run"]
    noted = earlier.get("noted", [])
    history = {name: then(earlier.get(name, "none"), facts.get(name, "none")) for name in KINDS}
    return {
        **facts,
        **{name: earlier[name] for name in noted},
        **({"noted": noted} if noted else {}),
        "started_at": earlier["started_at"],
        "resumed_at": [*earlier.get("resumed_at", []), facts["started_at"]],
        **({"resumed_from": resumed_from} if resumed_from else {}),
        **{name: value for name, value in history.items() if value != "none"},
    }


def then(before: Any, value: Any) -> Any:
    """Return a fact of a run that had it as `before`; two values that differ are both named."""
    values = dict.fromkeys([*str(before).split(", then "), str(value)])
    return value if before == value else ", then ".join(values)


def is_same_training(earlier: dict[str, Any], commit: str, dvc_exp_name: str) -> bool:
    """Return whether a training that a clone starts is the one with the facts `earlier`."""
    return (earlier.get("data_git_commit_id"), earlier.get("dvc_exp_name")) == (commit, dvc_exp_name)


def _start(device: dict[str, Any], earlier: dict[str, Any], parents: list[str]) -> dict[str, Any]:
    """Push the data, write the training to the log, and return its facts."""
    import torch

    context, pushed = run_context.from_job(), True  # a job pulled its data from the DVC remote
    if context is None:
        stage = pipeline.running_stage()
        context = run_context.collect(stage.name)
        if is_same_training(earlier, context.commit, context.dvc_exp_name):
            context = dataclasses.replace(context, run=earlier["run"], name=earlier["name"])
        try:
            dvc_remote.push_inputs(stage.name)
        except dvc_remote.ArtifactMissingError:
            raise
        except ProjectError as error:
            log.warning("%s. Training goes on; `register` pushes the data.", error.problem)
            pushed = False
        run_context.log_training(context)
    prepared, job_path = read_json(Path("reports/prepare.json")), job_file()
    job = read_json(job_path) if job_path else {}
    machine = {"job": job.get("name"), "image": job.get("image"), "instance_type": read_machines()["instance_type"]}
    inherited = ["run", "name", "user", "git_remote_url", "git_branch", "baseline_commit", "dvc_exp_name"]
    inherited += ["dvc_remote_url", "data_version", "stage_metrics", "inputs_elsewhere"]
    return {
        **{name: getattr(context, name) for name in inherited},
        "data_git_commit_id": context.commit,
        "project": load_platform().project,
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "dataset_path": DATASET,
        "dataset_md5": run_context.dataset_md5(),
        "manifest_sha256": read_json(MANIFEST_REPORT)["sha256"][0],
        "consent_sha256": prepared["consent_sha256"][0],
        "consent_excluded": prepared["excluded"],
        "parents": parents,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment_differences": [f"{name} {have}" for name, (_, have) in other_packages().items()],
        **device,
        **{name: value for name, value in machine.items() if value},
        "data_pushed": pushed,
    }


@contextlib.contextmanager
def recorded(facts: dict[str, Any], earlier_files: dict[str, bytes] | None = None) -> Iterator[Live]:
    """Write the files of a run with these facts, while another process copies them to MLflow; give the logger.

    When MLflow can't be reached, training succeeds all the same, and `mirror sync` sends the rest. `earlier_files` are
    those of the run that it continues, itself or an earlier one; content by name.
    """
    run, status = facts["run"], "FAILED"
    with uploader.training(run):
        shutil.rmtree(RUN_DIR, ignore_errors=True)
        for name, content in (earlier_files or {}).items():
            (RUN_DIR / name).parent.mkdir(parents=True, exist_ok=True)
            (RUN_DIR / name).write_bytes(content)
        write_json(LINEAGE, facts)
        process: uploader.UploadProcess | None = None
        try:
            if mlflow_client.is_reachable():
                uploader.stage_files(run)
                process = uploader.UploadProcess(run)
            else:
                log.info("MLflow gets run %s when the results of the job are applied", run)
        except OSError as error:  # no space, no process: no reason to end a training
            log.warning("nothing copies the run to MLflow while it trains: %s", error)
        try:
            live = Live(str(RUN_DIR), bool(earlier_files), save_dvc_exp=False, dvcyaml=None, report=None)
            try:
                yield live
            finally:
                live.end()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            ended_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            write_json(LINEAGE, {**facts, "status": status, "ended_at": ended_at})
            try:
                uploader.stage_files(run)
            except OSError as error:
                log.warning("the outbox does not take the last files of the run, which are in %s: %s", RUN_DIR, error)
            if not (process and process.close()) and mlflow_client.is_reachable():
                log.warning("MLflow does not have all of the run yet. To send the rest: python -m mlops mirror sync")

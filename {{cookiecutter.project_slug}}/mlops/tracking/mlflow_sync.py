"""Copy a run's files to MLflow. DVC's files are the truth, MLflow is a mirror: copying again changes nothing.

The same engine follows a run while it trains (`sidecar.py`) and completes it afterwards (`outbox.py`). It sends at
least once, and looks at what MLflow has before it sends again what may have arrived: each point is there exactly once.

    python -m mlops mirror sync
"""

import bisect
import itertools
import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from . import mlflow_client, plots, run_files
from .metrics_reader import Curves

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

MIRROR_ID = "mirror_id"  # the tag by which a run is found: MLflow's own id never enters a DVC output
BATCH = 1000  # points in one request: MLflow's limit
PARAMS_BATCH = 100
TAG_CHARACTERS = 5000
KEY_CHARACTERS = 230  # MLflow takes 250, also with what is put before
ENDED = ("FINISHED", "FAILED", "KILLED")
TAGS = {  # the first four are what MLflow's pages show as user, source and commit
    "mlflow.user": "user",
    "mlflow.source.git.commit": "data_git_commit_id",
    "mlflow.source.git.branch": "git_branch",
    "mlflow.source.git.repoURL": "git_remote_url",
    MIRROR_ID: "run",
    "dvc_exp_name": "dvc_exp_name",
    "baseline_commit": "baseline_commit",
    "job": "job",
    "image": "image",
    "instance_type": "instance_type",
    "resumed_from": "resumed_from",
}


class RunDeletedError(ProjectError):
    """A person deleted the run in MLflow; it is not brought back behind their back."""


def sync(root: Path = Path()) -> str:
    """Send to MLflow what it lacks of an ended run.

    Args:
        root: The work tree, or another folder with the files of one run.

    Returns:
        MLflow's id of the run.

    Raises:
        RunDeletedError: A person deleted the run there.
        ProjectError: There is no run, MLflow can't be reached, or the manifest in the work tree is another run's.
    """
    run_files.read_facts(root)
    with mlflow_client.translate_errors("python -m mlops mirror sync"):
        mirror = Mirror(root, mlflow_client.client())
        if not mirror.ended():
            run_files.check_manifest(root)
            mirror.finish()
    return mirror.run_id


class Mirror:
    """One run on its way to one MLflow.

    After an error, `push` or `finish` again goes on where it stopped.

    Args:
        root: The folder whose `reports/train` the run writes, or wrote.
        client: A connection to MLflow.
    """

    def __init__(self, root: Path, client: "MlflowClient") -> None:
        facts = run_files.read_facts(root)
        self._root, self._client = root, client
        self._curves = Curves(root / run_files.RUN_DIR, run_files.milliseconds(facts["started_at"]))
        self._there: dict[str, set[tuple[int, int, str]]] = {}  # the points of a curve that need not be sent
        self._resumed = [run_files.milliseconds(moment) for moment in facts.get("resumed_at", [])]
        self._first: dict[str, dict[int, int]] = {}  # of a run that went on: the first attempt that sent a step
        self._sent: dict[str, Any] = {}  # params, tags and files that MLflow has confirmed
        self.run_id = find(client, facts["run"], facts["project"]) or self._create(facts)

    def _create(self, facts: dict[str, Any]) -> str:
        source = {"mlflow.source.type": "JOB" if facts.get("job") else "LOCAL", "mlflow.source.name": "dvc.yaml: train"}
        run = self._client.create_run(
            mlflow_client.experiment_id(self._client, facts["project"]),
            start_time=run_files.milliseconds(facts["started_at"]),
            run_name=facts["name"],
            tags={**source, **{tag: facts[fact] for tag, fact in TAGS.items() if facts.get(fact)}},
        )
        return str(run.info.run_id)

    def ended(self) -> bool:
        """Return whether MLflow has the whole run: its status is set last."""
        info = self._client.get_run(self.run_id).info
        # Of a run that went on after an end, MLflow may have that end, and not this one.
        return info.status in ENDED and (not self._resumed or info.end_time == run_files.end(self._root)[1])

    def reopen(self) -> None:
        """Show as running a run that goes on after an end."""
        if self._client.get_run(self.run_id).info.status in ENDED:
            self._client.update_run(self.run_id, "RUNNING")

    def check_not_deleted(self) -> None:
        """See that nobody deleted the run in MLflow meanwhile.

        Raises:
            RunDeletedError: A person did.
        """
        facts = run_files.read_facts(self._root)
        find(self._client, facts["run"], facts["project"])

    def push(self) -> None:
        """Send what is new."""
        self._send_params()
        self._send_dataset()
        self._send_rows()
        self._send_files()

    def finish(self) -> None:
        """Send what is new, and then how the run ended."""
        self.push()
        status, ended_ms = run_files.end(self._root)
        self._send_summary(ended_ms)
        self._send_file(self._root / run_files.LINEAGE)
        self._client.set_terminated(self.run_id, status, ended_ms)

    def _send_rows(self) -> None:
        from mlflow.entities import Metric

        rows = self._curves.new_rows()
        while batch := list(itertools.islice(rows, BATCH)):
            numbers, texts = [], {}
            for row in batch:
                if isinstance(row.value, str):  # MLflow's metrics are numbers
                    texts[f"metric.{_key(row.name)}"] = row.value
                else:
                    numbers.append(Metric(_key(row.name), row.value, row.timestamp, row.step))
            self._send_points(numbers)
            self._set_tags(texts)
            for row in batch:
                self._curves.done(row)
        self._there = {key: set() for key in self._there}  # whatever comes now is new

    def _send_points(self, points: list["Metric"]) -> None:
        keys = {point.key for point in points}
        for key in keys - self._there.keys():  # another process began it, or a request got no answer
            history = self._client.get_metric_history(self.run_id, key)
            self._there[key] = {_identity(point) for point in history}
            self._first[key] = self._attempts(history) if self._resumed else {}
        new = [point for point in points if self._is_lacking(point)]
        known = {key: self._there.pop(key) for key in keys}
        if new:
            self._client.log_batch(self.run_id, metrics=new)
        self._there |= known

    def _is_lacking(self, point: "Metric") -> bool:
        """Return whether MLflow lacks a point.

        What was sent after the last checkpoint is there already, when a training that went on computes it again.
        """
        if _identity(point) in self._there[point.key]:
            return False
        return self._attempt(point) <= self._first[point.key].get(point.step, sys.maxsize)

    def _attempts(self, history: "list[Metric]") -> dict[int, int]:
        last_first = sorted(history, key=lambda point: -point.timestamp)
        return {point.step: self._attempt(point) for point in last_first}

    def _attempt(self, point: "Metric") -> int:
        return bisect.bisect_right(self._resumed, point.timestamp)

    def _send_summary(self, ended_ms: int) -> None:
        """Send the figures that are no curves, such as those of the test set."""
        from mlflow.entities import Metric

        figures = run_files.summary(self._root)
        alone = figures.keys() - self._curves.names()
        self._send_points([Metric(_key(name), figures[name], ended_ms, 0) for name in sorted(alone)])

    def _send_params(self) -> None:
        from mlflow.entities import Param

        params = {_key(name): value for name, value in run_files.params(self._root).items()}
        if self._sent.get("params") == params:
            return
        have = self._client.get_run(self.run_id).data.params
        new = [Param(name, value) for name, value in params.items() if name not in have]
        for start in range(0, len(new), PARAMS_BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + PARAMS_BATCH])
        # Params are write-once in MLflow.
        changed = {name for name in have.keys() & params.keys() if have[name] != params[name]}
        self._set_tags({f"param_changed.{name}": params[name] for name in changed})
        self._sent["params"] = params

    def _set_tags(self, tags: dict[str, str]) -> None:
        for name, value in tags.items():
            if self._sent.get(name) != value:
                self._client.set_tag(self.run_id, name, value[:TAG_CHARACTERS])
                self._sent[name] = value

    def _send_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        from .dataset import DvcDatasetSource

        if "dataset" in self._sent:
            return
        facts, inputs = run_files.read_facts(self._root), self._client.get_run(self.run_id).inputs
        if not (inputs and inputs.dataset_inputs):
            source = DvcDatasetSource(
                facts["git_remote_url"], facts["data_git_commit_id"], facts["dataset_path"], facts["dvc_remote_url"]
            )
            name = f"{facts['project']}-{facts['data_version']}"
            shown = Dataset(name, facts["dataset_md5"], "dvc", source.to_json())
            # The tags say in plain words what only this project's code can read from the source.
            read = {name: str(facts[name]) for name in ("manifest_sha256", "consent_sha256", "consent_excluded")}
            tags = {"mlflow.data.context": "training", **source.to_dict(), **read}
            told = [InputTag(key, value) for key, value in tags.items() if value]
            self._client.log_inputs(self.run_id, [DatasetInput(shown, told)])
        self._sent["dataset"] = True

    def _send_files(self) -> None:
        for name in run_files.ARTIFACTS:
            if (self._root / name).exists():
                self._send_file(self._root / name, Path(name).parent)
        for path, config in run_files.files(self._root).items():
            self._send_file(path, path.parent.relative_to(self._root / run_files.RUN_DIR), config)

    def _send_file(self, path: Path, folder: Path | None = None, config: dict[str, Any] | None = None) -> None:
        state = path.stat()
        version = (state.st_size, state.st_mtime_ns)
        if self._sent.get(str(path)) != version:
            if config is not None and folder:
                self._send_picture(path, folder, config)
            self._client.log_artifact(self.run_id, str(path), folder.as_posix() if folder else None)
            self._sent[str(path)] = version

    def _send_picture(self, plot: Path, folder: Path, config: dict[str, Any]) -> None:
        """Draw a plot of DVCLive's: MLflow shows pictures, and not its JSON."""
        with tempfile.TemporaryDirectory() as scratch:
            picture = Path(scratch, f"{plot.stem}.png")
            try:
                plots.render(plot, config, picture)
            except ProjectError as error:
                log.warning("%s", error.problem)
            else:
                self._client.log_artifact(self.run_id, str(picture), folder.as_posix())


def find(client: "MlflowClient", run: str, project: str) -> str | None:
    """Return MLflow's id of the run of a project whose tag `mirror_id` is `run`, or None.

    Raises:
        RunDeletedError: A person deleted it.
    """
    from mlflow.entities import ViewType

    query = f"tags.{MIRROR_ID} = '{run}'"
    found = client.search_runs([mlflow_client.experiment_id(client, project)], query, run_view_type=ViewType.ALL)
    if not found:
        return None
    info = min((run.info for run in found), key=lambda info: info.lifecycle_stage == "deleted")
    if info.lifecycle_stage == "deleted":
        raise RunDeletedError(
            f"run {run} was deleted in MLflow", f"to have it back: mlflow runs restore --run-id {info.run_id}"
        )
    return str(info.run_id)


def _identity(point: "Metric") -> tuple[int, int, str]:
    # Stores give infinity back as the largest number, and NaN is not equal to itself.
    limit = sys.float_info.max
    return point.timestamp, point.step, repr(max(min(point.value, limit), -limit))


def _key(name: str) -> str:
    """Return a name as MLflow takes it: what it refuses, such as the @ of `acc@5`, becomes an underscore."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:KEY_CHARACTERS]

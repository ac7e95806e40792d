"""Copy a run's files to MLflow. DVC's files are the truth, MLflow is a mirror: copying again changes nothing.

The same code follows a run while it trains and completes it afterwards (`uploader.py`). Everything is sent at least
once, and what may have arrived is looked up before it is sent again: each point is in MLflow exactly once.

    python -m mlops mirror sync

What MLflow gets of a run:

    name       of its experiment in DVC, else one of the same kind: `run_context.py:collect`
    params     `params.yaml`, the sections of the stages that lead to it; and `run_files.py:FACTS`
    tags       `TAGS`, below; what the training noted; its description
    metrics    the curves, a point a row; the figures of the summary that are no curve, at the end; and, as
               `<stage>.<name>`, the metrics of other stages: those before it at its start, those after it when they end
    dataset    its hash, where it is in Git and DVC, and the digests of manifest and registry
    artifacts  `run_files.py:files`: manifest, reports, plots as data and as pictures, images; and at the end
               `weights.tsv` and `lineage.json`

`register` adds the model, and the tag `model_version` (`registry/versions.py`).
"""

import bisect
import itertools
import json
import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from . import descriptions, mlflow_client, run_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

MIRROR_ID = "mirror_id"  # the tag that identifies a run: MLflow's own id never enters a DVC output
BATCH = 1000  # points in one request: MLflow's limit
PARAMS_BATCH = 100
MAX_TAG_CHARACTERS = 5000
ENDED = ("FINISHED", "FAILED", "KILLED")
NOTE = "mlflow.note.content"  # the tag with the description of a run
TAGS = {  # MLflow's pages show the first four as user, source and commit
    "mlflow.user": "user",
    "mlflow.source.git.commit": "data_git_commit_id",
    "mlflow.source.git.branch": "git_branch",
    "mlflow.source.git.repoURL": "git_remote_url",
    MIRROR_ID: "run",
    **{name: name for name in ("dvc_exp_name", "baseline_commit", "job", "image", "instance_type", "resumed_from")},
    **{name: name for name in ("git_remote_url", "dvc_remote_url", "consent_excluded", "cpu_capability")},
    **{name: name for name in ("device", "device_name", "capability", "driver", "precision", "processes", "threads")},
    **{name: name for name in ("environment_differences", "inputs_elsewhere")},
}


class RunDeletedError(ProjectError):
    """A person deleted the run in MLflow; deleted runs are not re-created."""


def sync(root: Path = Path()) -> str:
    """Send to MLflow what it lacks of the ended run below `root`; return MLflow's id of it, or raise ProjectError."""
    run_files.read_facts(root)
    with mlflow_client.translate_errors(mlflow_client.RETRY):
        mirror = Mirror(root, mlflow_client.client())
        if not mirror.has_ended():
            run_files.check_manifest(root)
            mirror.finish()
    return mirror.run_id


class Mirror:
    """One run below `root`, copied to one MLflow. After an error, another `push` or `finish` sends the rest."""

    def __init__(self, root: Path, client: "MlflowClient") -> None:
        facts = self._facts = run_files.read_facts(root)
        self._root, self._client = root, client
        self._started_ms = run_files.milliseconds(facts["started_at"])
        self._curves = run_files.Curves(root / run_files.RUN_DIR, self._started_ms)
        self._points: dict[str, set[tuple[int, int, str]]] = {}  # the points of a curve that need not be sent
        self._resumed = [run_files.milliseconds(moment) for moment in facts.get("resumed_at", [])]
        self._attempts: dict[str, dict[int, int]] = {}  # of a resumed run: the first attempt that sent a step
        self._sent: dict[str, Any] = {}  # params, tags and files that MLflow has confirmed
        run_id = find(client, facts["run"], facts["project"])
        if run_id is None:
            experiment = mlflow_client.experiment_id(client, facts["project"])
            run_id = str(client.create_run(experiment, self._started_ms, tags(facts), facts["name"]).info.run_id)
        self.run_id = run_id

    def has_ended(self) -> bool:
        """Return whether MLflow has the whole run: its status is sent last."""
        info = self._client.get_run(self.run_id).info
        # Of a run that was resumed after an end, MLflow may have the earlier end.
        return info.status in ENDED and (not self._resumed or info.end_time == run_files.end(self._root)[1])

    def reopen(self) -> None:
        """Show a run that is resumed after an end as running."""
        if self._client.get_run(self.run_id).info.status in ENDED:
            self._client.update_run(self.run_id, "RUNNING")

    def check_not_deleted(self) -> None:
        """Raise RunDeletedError if a person deleted the run in MLflow meanwhile."""
        find(self._client, self._facts["run"], self._facts["project"])

    def push(self) -> None:
        """Send what is new."""
        self._send_params()
        self._set_tags(noted(run_files.read_facts(self._root)))
        self._send_stage_metrics()
        self._send_dataset()
        self._send_rows()
        for path, folder, config in run_files.files(self._root):
            self._send_file(path, folder, config)

    def finish(self) -> None:
        """Send what is new, and then how the run ended."""
        from mlflow.entities import Metric

        self.push()
        status, ended_ms = run_files.end(self._root)
        figures = run_files.summary(self._root)
        names = sorted(figures.keys() - self._curves.sent.keys())  # no curves, such as the figures of the test set
        self._send_points([Metric(_key(name), figures[name], ended_ms, 0) for name in names])
        for path in (self._root / name for name in (run_files.WEIGHTS, run_files.LINEAGE)):
            if path.exists():
                self._send_file(path)
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
        self._points = {key: set() for key in self._points}  # every later row is new

    def _send_points(self, points: list["Metric"]) -> None:
        keys = {point.key for point in points}
        for key in keys - self._points.keys():  # another process began the curve, or the reply to a request was lost
            history = self._client.get_metric_history(self.run_id, key)
            self._points[key] = {_identity(point) for point in history}
            if self._resumed:
                oldest_last = sorted(history, key=lambda point: -point.timestamp)
                self._attempts[key] = {point.step: self._attempt(point) for point in oldest_last}
        new = []
        for point in points:
            # A resumed training computes the steps after its checkpoint again; MLflow has the first attempt's points.
            first = self._attempts.get(point.key, {}).get(point.step, sys.maxsize)
            if _identity(point) not in self._points[point.key] and self._attempt(point) <= first:
                new.append(point)
        known = {key: self._points.pop(key) for key in keys}
        if new:
            self._client.log_batch(self.run_id, metrics=new)
        self._points |= known

    def _attempt(self, point: "Metric") -> int:
        return bisect.bisect_right(self._resumed, point.timestamp)

    def _send_params(self) -> None:
        from mlflow.entities import Param

        params = {_key(name): value for name, value in run_files.params(self._root).items()}
        if self._sent.get("params") == params:
            return
        data = self._client.get_run(self.run_id).data
        logged = data.params
        new = [Param(name, value) for name, value in params.items() if name not in logged]
        for start in range(0, len(new), PARAMS_BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + PARAMS_BATCH])
        # Params are write-once in MLflow.
        changed = {name for name in logged.keys() & params.keys() if logged[name] != params[name]}
        self._set_tags({f"param_changed.{name}": params[name] for name in changed})
        # They may differ in a run that is resumed, or that an earlier version began. A person may edit the note.
        differing = {name: value for name, value in tags(self._facts).items() if data.tags.get(name) != value}
        self._set_tags({name: value for name, value in differing.items() if name != NOTE or NOTE not in data.tags})
        self._sent["params"] = params

    def _set_tags(self, tags: dict[str, str]) -> None:
        for name, value in tags.items():
            if self._sent.get(name) != value:
                self._client.set_tag(self.run_id, name, value[:MAX_TAG_CHARACTERS])
                self._sent[name] = value

    def _send_stage_metrics(self) -> None:
        from mlflow.entities import Metric

        if "stage metrics" not in self._sent:
            metrics = self._facts.get("stage_metrics", {}).items()
            self._send_points([Metric(_key(name), value, self._started_ms, 0) for name, value in metrics])
            self._sent["stage metrics"] = True

    def _send_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if "dataset" in self._sent:
            return
        facts, inputs = self._facts, self._client.get_run(self.run_id).inputs
        if not (inputs and inputs.dataset_inputs):
            source = {
                "url": facts["git_remote_url"],
                "rev": facts["data_git_commit_id"],
                "path": facts["dataset_path"],
                "remote_url": facts["dvc_remote_url"],
            }
            name = f"{facts['project']}-{facts['data_version']}"
            dataset = Dataset(name, facts["dataset_md5"], "dvc", json.dumps(source))
            versions = {name: str(facts[name]) for name in ("manifest_sha256", "consent_sha256", "consent_excluded")}
            tags = {"mlflow.data.context": "training", **source, **versions}
            input_tags = [InputTag(key, value) for key, value in tags.items() if value]
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, input_tags)])
        self._sent["dataset"] = True

    def _send_file(self, path: Path, target: str | None = None, config: dict[str, Any] | None = None) -> None:
        """Send a file that is new or changed to the folder `target`; of a plot, `config` says how to draw it."""
        stat = path.stat()
        version = (stat.st_size, stat.st_mtime_ns)
        if self._sent.get(str(path)) == version:
            return
        if config is not None:
            with tempfile.TemporaryDirectory() as scratch:
                picture = Path(scratch, f"{path.stem}.png")
                try:
                    run_files.render(path, config, picture)
                    self._client.log_artifact(self.run_id, str(picture), target)
                except ProjectError as error:  # of `render`
                    log.warning("%s", error.problem)
        self._client.log_artifact(self.run_id, str(path), target)
        self._sent[str(path)] = version


def send_stage_metrics(client: "MlflowClient", run_id: str, metrics: dict[str, float]) -> None:
    """Send what stages after the training measured to an ended run.

    A value that differs from the last one becomes the curve's next step; the same one is not sent again.
    """
    from mlflow.entities import Metric

    run, points = client.get_run(run_id), []
    for name, value in metrics.items():
        point = Metric(_key(name), value, run.info.end_time, 0)  # the time does not tell when it was sent
        if point.key in run.data.metrics:
            last = max(client.get_metric_history(run_id, point.key), key=lambda point: point.step)
            point = Metric(point.key, value, run.info.end_time, last.step + 1)
            if _identity(point)[2] == _identity(last)[2]:
                continue
        points.append(point)
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])


def tags(facts: dict[str, Any]) -> dict[str, str]:
    """Return the tags of a run with these facts."""
    values = {tag: facts.get(fact) for tag, fact in TAGS.items()}
    kind = "JOB" if facts.get("job") else "LOCAL"
    return {
        **_texts(values),
        "mlflow.source.type": kind,
        "mlflow.source.name": "dvc.yaml: train",
        NOTE: descriptions.of_run(facts),
    }


def noted(facts: dict[str, Any]) -> dict[str, str]:
    """Return the tags of what the training noted so far (`TrainingRun.note`)."""
    return _texts({_key(name): facts[name] for name in facts.get("noted", [])})


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: v if isinstance(v, str) else json.dumps(v) for name, v in values.items() if v not in (None, "", [])}


def find(client: "MlflowClient", run: str, project: str) -> str | None:
    """Return MLflow's id of the run with the tag `mirror_id`, or None; raise RunDeletedError if it was deleted."""
    from mlflow.entities import ViewType

    query = f"tags.{MIRROR_ID} = '{run}'"
    matches = client.search_runs([mlflow_client.experiment_id(client, project)], query, run_view_type=ViewType.ALL)
    if not matches:
        return None
    info = min((match.info for match in matches), key=lambda info: info.lifecycle_stage == "deleted")
    if info.lifecycle_stage == "deleted":
        fix = f"to have it back: {mlflow_client.command(f'runs restore --run-id {info.run_id}')}"
        raise RunDeletedError(f"run {run} was deleted in MLflow", fix)
    return str(info.run_id)


def _identity(point: "Metric") -> tuple[int, int, str]:
    # Stores return infinity as the largest number, and NaN is not equal to itself.
    limit = sys.float_info.max
    return point.timestamp, point.step, repr(max(min(point.value, limit), -limit))


def _key(name: str) -> str:
    """Return a name as MLflow takes it: characters that it refuses, such as the @ of `acc@5`, become underscores."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:230]  # MLflow takes 250, prefixes included

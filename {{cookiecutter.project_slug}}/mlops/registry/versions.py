"""Registered versions: one for each pair of weights and dataset, in MLflow's model registry and as a tag of Git.

A model is logged as data, with the code that reads it beside it and no pickle. That code stands under a name made of
its own digest, and its imports are relative: a model always runs the code that it was logged with, also in a process
that has nothing of this project, inside the project years later, and beside another version of itself.
"""

import atexit
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from .. import pipeline
from ..config import home, job_file, load_platform, read_params
from ..contract import interface, load_model, package_name
from ..errors import ProjectError
from ..files import read_json, sha256, write_json
from ..records import consent
from ..tracking import dataset_tags, descriptions, dvc_remote, lineage_log, mlflow_client, publishing, run_context
from ..tracking.git import GitError, exists, git
from ..tracking.mlflow_sync import NOTE
from ..tracking.run_context import snapshot
from ..tracking.run_files import read_facts
from ..tracking.sync_status import REPAIR
from ..tracking.uploader import upload
from . import pyfunc

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from ..tracking.mlflow_reader import StoredVersion
    from ..tracking.run import RegisteredModel

REGISTERED = Path(pipeline.REGISTER_REPORT)
MANIFEST = Path("data/manifest.parquet")
METRICS = Path(pipeline.METRICS_REPORT)  # of the weights
MODEL_DATA = "data/model"  # where the model directory is inside an MLflow model
LOADER = "_pyfunc"  # the module of its code that MLflow calls
TAG_RUN_PREFIX = "made_by."  # tags of a version, one for each run that made it
TAG_REGISTERED = "registered_at"  # of a version: MLflow's own time is that of a repair, and can't be set
TAG_MODEL_VERSION = "model_version"  # a tag of a run: the version that it made
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
GIT_TAG = re.compile(r"(?P<tag>.+@v(?P<number>\d+)\.0\.0) (?P<commit>\w+) (?P<when>\d+)")


def register(model_dir: Path) -> int:
    """Register the model that the run in the work tree trained, and return the version's number.

    Before that, every subject of the dataset must have consent today, and what the model is made from is pushed to the
    DVC remote. The same weights from the same dataset and manifest are the same version, whichever run made them; the
    same weights from another dataset (without a withdrawn test record, say) are a new one. `reports/register.json` says
    which version it is, and so does Git; a job, which has no Git, leaves that to the clone that started it (`publish`).

    Args:
        model_dir: The model's directory, as the stage that trains wrote it.

    Raises:
        ProjectError: A subject has no consent, the remote or MLflow can't be reached, or the model is damaged.
    """
    facts, name, rule = read_facts(), load_platform().project, (read_params().get("data") or {}).get("consent")
    if {facts["consent_sha256"], rule or consent.NOT_REQUIRED} != {consent.NOT_REQUIRED}:  # then, or now
        consent.check_subjects(MANIFEST)
    stage = pipeline.running_stage()
    dvc_remote.push_inputs(stage.name)
    start = run_context.from_job() or run_context.collect(stage.name)
    now = _utc(time.time())
    tags, run_id = version_tags(model_dir, facts, start.commit, now), upload()
    # Two that register at once (`dvc queue start -j 2`) must not both find nothing and both make a version.
    with (
        mlflow_client.translate_errors("see that the server is up, then: dvc repro"),
        FileLock(home() / ".dvc/tmp/register.lock"),
    ):
        client = mlflow_client.client()
        same_weights = client.search_model_versions(f"name = '{name}' and tags.model_sha256 = '{tags['model_sha256']}'")
        identity = {key: tags[key] for key in ("model_sha256", "dataset_md5", "manifest_sha256")}
        version = next((version for version in same_weights if identity.items() <= version.tags.items()), None)
        if version is None:
            last = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
            number = int(last[0].version) + 1 if last else 1
            if (tag := _tag(number, start.folder)) in start.release_tags:
                raise ProjectError(
                    f"version {number} of {name} was registered before (tag {tag}), but not in the MLflow at "
                    f"{mlflow_client.tracking_uri()}, which would count it again",
                    f"{REPAIR}, then dvc repro; or share one server between clones: platform.yaml:tracking_uri",
                )
            params = read_params()
            gate = {section: params[section] for section in stage.params}
            metrics = read_json(METRICS) if METRICS.exists() else {}
            text = describe(client, run_id, facts, start.commit, metrics, gate, now)
            version = add_version(client, name, run_id, log_model(run_id, model_dir), tags, text)
        number = int(version.version)
        client.set_model_version_tag(name, version.version, TAG_RUN_PREFIX + facts["run"], facts["data_git_commit_id"])
        tag_run(client, run_id, name, number)
    # As lists of one, of which DVC makes no columns: the commit of these results, and where another run made the same
    # version first, that of the version's.
    commits = {"commit": [start.commit], "version_commit": [version.tags["result_commit"]]}
    write_json(REGISTERED, {"version": number, **commits, "registered": [registered_at(version)]})
    if not job_file():
        publish()
    return number


def publish() -> None:
    """Write the registration in `reports/register.json` into Git: an entry in the log, tags of version and dataset.

    The log keeps what the run has read, too: a colleague may have trained it. Then, it is published.
    """
    name, report, facts = load_platform().project, read_json(REGISTERED), read_facts()
    number, commit, result = report["version"], report["version_commit"][0], report["commit"][0]
    if not exists(result):  # of a job that another clone started: here, the same content has another commit
        result = snapshot(pipeline.running_stage().name)
    run_context.keep_trained_commit()
    lineage_log.record_once(result, f"register {name} version {number}\n\nrun: {facts['run']}\n")
    if exists(commit):  # else another clone registered it, and has the tag
        tag, (when,) = _tag(number, git("rev-parse", "--show-prefix")), report.get("registered", [""])
        lineage_log.tag(tag, commit, f"{name} version {number}", when)
    inputs = facts["data_git_commit_id"]
    dataset_tags.tag_registered(facts["dataset_md5"], inputs if exists(inputs) else result)
    publishing.publish()


def registered_at(version: "ModelVersion | StoredVersion") -> str:
    """Return when a version was registered, in UTC, such as 2026-01-31T09:00:00Z."""
    return str(version.tags.get(TAG_REGISTERED) or _utc(version.creation_timestamp // 1000))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def version_tags(model_dir: Path, facts: dict[str, Any], commit: str, registered: str) -> dict[str, str]:
    """Return the tags of a version in MLflow: what it is, from what, the commit of its results, and since when."""
    inputs = ("dataset_md5", "data_version", "manifest_sha256", "consent_sha256", "consent_excluded")
    names = (*inputs, "run", "data_git_commit_id")
    weights = sha256(model_dir / interface().WEIGHTS)
    made_from = {name: facts[name] for name in names}
    return {"model_sha256": weights, **made_from, "result_commit": commit, TAG_REGISTERED: registered}


def _tag(number: int | str, folder: str) -> str:
    """Return the Git tag of a version; `folder` is the project's in its repository, "" for the root."""
    # DVC's artifact registry wants three numbers, and the folder when the project is not a repository of its own.
    name = f"{load_platform().project}@v{number}.0.0"
    return f"{folder.rstrip('/')}={name}" if folder else name


def describe(
    client: "MlflowClient",
    run_id: str,
    facts: dict[str, Any],
    commit: str,
    metrics: Any,
    params: dict[str, Any],
    registered: str,
) -> str:
    """Return the description of a version in MLflow; `params` are the sections of the stage that registers."""
    gate = {f"{section}.{name}": value for section, values in params.items() for name, value in dict(values).items()}
    page = f"{client.get_run(run_id).info.experiment_id}/runs/{run_id}"
    return descriptions.of_version(facts, commit, metrics, gate, page, registered)


def tag_run(client: "MlflowClient", run_id: str, name: str, number: int | str) -> None:
    """Tell a run in MLflow which version it made, as a tag, and as a link in its description."""
    client.set_tag(run_id, TAG_MODEL_VERSION, f"{name}/{number}")
    note, link = client.get_run(run_id).data.tags.get(NOTE, ""), descriptions.model_link(name, number)
    if link not in note:  # a person may have edited it
        client.set_tag(run_id, NOTE, f"{note}\n\n{link}".strip())


def add_version(
    client: "MlflowClient", name: str, run_id: str, model_id: str, tags: dict[str, str], text: str
) -> "ModelVersion":
    """Make the next version, of a model that was logged; the first one makes the registered model too."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        name, f"models:/{model_id}", run_id, tags=tags, description=text, model_id=model_id
    )


def log_model(run_id: str, directory: Path) -> str:
    """Log a model directory to an existing MLflow run, with the tracking URI that is set, and return the model's id.

    `mirror repair` of later versions of this project calls it by this name, with the code of the version's commit.
    Raises ProjectError if the model directory is incomplete or damaged.
    """
    import mlflow
    import pandas
    from mlflow.models import Model, infer_signature

    model = load_model(directory)  # a damaged model is not passed on
    frame = pandas.DataFrame({"image": [interface().example(model)]})
    requirements = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in interface().REQUIREMENTS]
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)  # mlflow.start_run would give a finished run a new status and end
    model_id = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params).model_id
    with tempfile.TemporaryDirectory() as folder:
        code = _copy_code(Path(folder))
        data = shutil.copytree(directory, Path(folder, MODEL_DATA))  # whole, also where DVC put links
        Model.log(
            None,
            mlflow.pyfunc,
            run_id=run_id,
            model_id=model_id,
            loader_module=f"{code.name}.{LOADER}",
            data_path=str(data),
            code_paths=[str(code)],
            input_example=frame,  # MLflow tries it: the code that goes with the model has run once
            signature=infer_signature(frame, pyfunc.ContentModel(interface(), model).predict(frame)),
            pip_requirements=requirements,
        )
    return str(model_id)


def _copy_code(folder: Path) -> Path:
    """Copy what travels with a model below `folder`: code of the team's package, and what loads it; return the copy."""
    package, copy = Path(package_name()), folder / "code"
    copy.mkdir()
    for name in interface().TRAVELS:
        if (package / name).is_dir():
            shutil.copytree(package / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(package / name, copy / name)
    shutil.copy(str(pyfunc.__file__), copy / f"{LOADER}.py")
    digest = hashlib.sha256()
    for path in sorted(copy.rglob("*.py")):
        digest.update(f"{path.relative_to(copy).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return copy.rename(folder / f"model_code_{digest.hexdigest()[:12]}")


def load_version(uri: str) -> "RegisteredModel":
    """Download a registered version, for this process; raise ProjectError if MLflow has no such version.

    Args:
        uri: `models:/<name>/<number>`; an alias moves, so it can't be a parameter that reproduces, and is refused.
    """
    from mlflow.exceptions import MlflowException

    from ..tracking.run import RegisteredModel

    fix = "models:/<name>/<number>, as `registry list` has it; for a training, in params.yaml:train.init_from"
    if not (parts := MODEL_URI.fullmatch(uri)):
        raise ProjectError(f"{uri!r} names no exact version", fix)
    with mlflow_client.translate_errors(mlflow_client.RETRY):
        try:
            version = mlflow_client.client().get_model_version(parts["name"], parts["version"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            is_ours = parts["name"] == load_platform().project and not job_file()
            problem = f"MLflow at {mlflow_client.tracking_uri()} has no {uri}"
            is_lost = is_ours and int(parts["version"]) in tagged_versions()
            raise ProjectError(problem, REPAIR if is_lost else fix) from error
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = download(uri, Path(folder))
    if "run" not in version.tags:
        problem = f"{uri} does not say which run made it, so its lineage is unknown"
        raise ProjectError(problem, f"take a version that a `register` stage made: {fix}")
    return RegisteredModel(path / MODEL_DATA, version.tags["run"])


def download(uri: str, folder: Path) -> Path:
    """Download the files of a version below a folder, and return their path; raise ProjectError if they are gone."""
    import mlflow

    with mlflow_client.translate_errors(mlflow_client.RETRY):
        mlflow_client.client()  # tells MLflow its tracking URI
        path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    if not (path / MODEL_DATA).exists():
        database, problem = home() / mlflow_client.DATABASE, f"MLflow has {uri}, but its files are gone"
        if mlflow_client.is_remote(mlflow_client.tracking_uri()):
            raise ProjectError(problem, f"restore the server's artifacts; or, for a new server: {REPAIR}")
        raise ProjectError(problem, f"mv {database} {database}.lost && {REPAIR}")
    return path


def metrics_at(commit: str) -> dict[str, float]:
    """Return `reports/metrics.json` of a commit; nothing when this clone lacks the commit, or Git the file."""
    try:
        # Without a commit, Git would show what is staged.
        return dict(json.loads(git("show", f"{commit}:./{METRICS.as_posix()}"))) if commit else {}
    except GitError:
        return {}


@dataclass(frozen=True)
class TaggedVersion:
    """A registered version, as Git knows it."""

    number: int
    tag: str
    commit: str  # with its data and results
    registered: str  # when, in UTC
    made_by: dict[str, str]  # runs, each with the commit that it read ("" when the log doesn't tell)


def tagged_versions() -> dict[int, TaggedVersion]:
    """Return the versions that have a Git tag, by number, in order."""
    pattern = _tag("*", git("rev-parse", "--show-prefix"))
    lines = git("tag", "--list", pattern, "--format=%(refname:strip=2) %(*objectname) %(taggerdate:unix)").splitlines()
    log = lineage_log.log()
    commits = {entry.run: entry.commit for entry in log if entry.version is None}
    made_by: defaultdict[int | None, dict[str, str]] = defaultdict(dict)
    for entry in reversed(log):
        made_by[entry.version][entry.run] = commits.get(entry.run, "")
    tags = {int(match["number"]): match for match in map(GIT_TAG.fullmatch, lines) if match}
    return {
        number: TaggedVersion(number, tag["tag"], tag["commit"], _utc(int(tag["when"])), made_by[number])
        for number, tag in sorted(tags.items())
    }

"""The MLflow model registry: one version for each pair of weights and dataset, and weights to start from."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from .. import pipeline
from ..config import home, load_platform
from ..contract import interface
from ..errors import ProjectError
from ..files import read_json, sha256, write_json
from ..records import consent
from ..tracking import dvc_remote, lineage_log, mlflow_client, run_context
from ..tracking.git import exists, git
from ..tracking.run import RegisteredModel
from ..tracking.run_context import RunContext
from ..tracking.run_files import read_facts
from ..tracking.snapshot import snapshot
from ..tracking.uploader import upload
from .model_log import MODEL_DATA, log_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

REGISTERED = Path(pipeline.REGISTER_REPORT)
MANIFEST = Path("data/manifest.parquet")
ORIGIN = ("run", "data_git_commit_id", "consent_sha256", "consent_excluded")
TAG_RUN_PREFIX = "made_by."  # tags on a version, one for each run that made it
TAG_MODEL_VERSION = "model_version"  # a tag on a run: the version that it made
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")


def register(model_dir: Path) -> int:
    """Register the model that the run in the work tree trained, once; write `reports/register.json`.

    Before, today's consent registry is asked about every subject of the dataset, and what the model is made from is
    pushed to the DVC remote.

    The same weights from the same dataset and manifest are the same version, whichever run made them again; the same
    weights from another dataset (a withdrawn test record, say) are a new version.

    Args:
        model_dir: What `train` saved.

    Returns:
        The version's number.

    Raises:
        ProjectError: A subject has no consent, the remote or MLflow can't be reached, or the model is damaged.
    """
    facts = read_facts()
    if facts["consent_sha256"] != consent.NOT_REQUIRED:
        consent.check_subjects(MANIFEST)
    dvc_remote.push(list(pipeline.running_stage().upstream))
    identity = identity_of(model_dir, facts)
    start = run_context.from_job() or run_context.collect(pipeline.running_stage().name)
    run_id, name, commit = upload(), load_platform().project, start.commit
    # Two that register at once (`dvc queue start -j 2`) must not both find nothing and both make a version.
    with (
        mlflow_client.translate_errors("see that the server is up, then: dvc repro"),
        FileLock(home() / ".dvc/tmp/register.lock"),
    ):
        client = mlflow_client.client()
        version = _find(client, name, identity)
        if version is None:
            _refuse_used_number(client, name, start)
            made_from = {key: facts[key] for key in ORIGIN}
            version = _create(
                client, name, log_model(run_id, model_dir), {**identity, **made_from, "result_commit": commit}
            )
        number = int(version.version)
        client.set_model_version_tag(name, version.version, TAG_RUN_PREFIX + facts["run"], facts["data_git_commit_id"])
        client.set_tag(run_id, TAG_MODEL_VERSION, f"{name}/{number}")
    # As lists of one, of which DVC makes no columns: the commit of these results, and where another run made the same
    # version first, that of the version's.
    report = {"version": number, "commit": [commit], "version_commit": [version.tags["result_commit"]]}
    write_json(REGISTERED, report)
    return number


def publish() -> None:
    """Write the registration in `reports/register.json` into Git: an entry in the log, and the version's tag.

    A job, which has no Git, leaves this to the clone that started it.
    """
    name, told = load_platform().project, read_json(REGISTERED)
    number, commit, result = told["version"], told["version_commit"][0], told["commit"][0]
    if not exists(result):  # a job's, that another clone started: here, the same has another name
        result = snapshot(pipeline.running_stage().name)
    lineage_log.record_once(result, f"register {name} version {number}\n\nrun: {read_facts()['run']}\n")
    if exists(commit):  # else another clone registered it, and has the tag
        lineage_log.tag(tag_of(name, number), commit, f"{name} version {number}")


def identity_of(model_dir: Path, facts: dict[str, Any]) -> dict[str, str]:
    """Return what makes a version the same as another, as its tags have it."""
    data = {key: facts[key] for key in ("dataset_md5", "manifest_sha256")}
    return {"model_sha256": sha256(model_dir / interface().WEIGHTS), **data}


def tag_of(name: str, number: int | str) -> str:
    """Return the Git tag of a registered version; with `*` for the number, the pattern of all."""
    return _tag_in(git("rev-parse", "--show-prefix"), name, number)


def _tag_in(folder: str, name: str, number: int | str) -> str:
    # DVC's artifact registry wants three numbers, and the folder when the project is not a repository of its own.
    folder = folder.rstrip("/")
    return f"{folder + '=' if folder else ''}{name}@v{number}.0.0"


def _refuse_used_number(client: "MlflowClient", name: str, start: RunContext) -> None:
    last = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
    number = int(last[0].version) + 1 if last else 1
    tag = _tag_in(start.folder, name, number)
    if tag in start.release_tags:
        raise ProjectError(
            f"version {number} of {name} was registered before (tag {tag}), but not in the MLflow at "
            f"{mlflow_client.tracking_uri()}, which would count it again",
            "share one MLflow server between clones: platform.yaml:tracking_uri",
        )


def _find(client: "MlflowClient", name: str, identity: dict[str, str]) -> "ModelVersion | None":
    query = f"name = '{name}' and tags.model_sha256 = '{identity['model_sha256']}'"
    for version in client.search_model_versions(query):
        if identity.items() <= version.tags.items():
            return version
    return None


def _create(client: "MlflowClient", name: str, model: "ModelInfo", tags: dict[str, str]) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(name, model.model_uri, model.run_id, tags=tags, model_id=model.model_id)


def load_version(uri: str) -> RegisteredModel:
    """Download a registered version to start training from.

    Args:
        uri: `models:/<name>/<number>`; an alias moves, so it can't be a parameter that reproduces.

    Raises:
        ProjectError: The address is of another form, or MLflow has no such version.
    """
    import mlflow

    parts = MODEL_URI.fullmatch(uri)
    if not parts:
        raise ProjectError(f"{uri!r} names no exact version", "params.yaml:train.init_from: models:/<name>/<number>")
    with mlflow_client.translate_errors(
        "see the versions in MLflow (make ui), then change params.yaml:train.init_from"
    ):
        version = mlflow_client.client().get_model_version(parts["name"], parts["version"])
        path = mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp())
    if "run" not in version.tags:
        raise ProjectError(
            f"{uri} does not say which run made it, so its lineage is unknown",
            "params.yaml:train.init_from: a version that a `register` stage made",
        )
    return RegisteredModel(Path(path) / MODEL_DATA, version.tags["run"])

"""The MLflow model registry: one version for each pair of weights and dataset, and weights to start from."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..errors import ProjectError
from ..files import read_json, sha256
from ..settings import home, load_platform
from ..tracking import branch, origin, server
from ..tracking.git import exists, git
from ..tracking.origin import Origin
from ..tracking.outbox import deliver
from ..tracking.record import read_facts
from ..tracking.snapshot import snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

WEIGHTS = "model.safetensors"
REGISTERED = Path("reports/register.json")
ORIGIN = ("run", "data_git_commit_id", "consent_sha256", "consent_excluded")
MADE_BY = "made_by."  # tags on a version, one for each run that made it
MADE = "model_version"  # a tag on a run: the version that it made
EXACT = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")


@dataclass(frozen=True)
class RegisteredModel:
    """A registered version to start from.

    Args:
        path: The MLflow model, downloaded.
        run: The run that trained it (its `mirror_id`).
    """

    path: Path
    run: str


def register(model_dir: Path, log: Callable[[str, Path], "ModelInfo"]) -> dict[str, Any]:
    """Register the model that the run in the work tree trained, once.

    The same weights from the same dataset and manifest are the same version, whichever run made them again; the same
    weights from another dataset (a withdrawn test record, say) are a new version.

    Args:
        model_dir: What `train` saved.
        log: Logs a model directory to an MLflow run, given its id.

    Returns:
        The version's number as `version`; and as lists of one, of which DVC makes no columns, the commit of these
        results and, where another run made the same version first, that of the version's.
    """
    facts = read_facts()
    identity = identity_of(model_dir, facts)
    start = origin.handed_over() or origin.ask("register")
    run_id, name, commit = deliver(), load_platform().project, start.commit
    # Two that register at once (`dvc queue start -j 2`) must not both find nothing and both make a version.
    with server.answering("see that the server is up, then: dvc repro"), FileLock(home() / ".dvc/tmp/register.lock"):
        client = server.client()
        version = _find(client, name, identity)
        if version is None:
            _refuse_used_number(client, name, start)
            made_from = {key: facts[key] for key in ORIGIN}
            version = _create(client, name, log(run_id, model_dir), {**identity, **made_from, "result_commit": commit})
        number = int(version.version)
        client.set_model_version_tag(name, version.version, MADE_BY + facts["run"], facts["data_git_commit_id"])
        client.set_tag(run_id, MADE, f"{name}/{number}")
    return {"version": number, "commit": [commit], "version_commit": [version.tags["result_commit"]]}


def publish() -> None:
    """Write the registration in `reports/register.json` into Git: an entry in the log, and the version's tag.

    A job, which has no Git, leaves this to the clone that started it.
    """
    name, told = load_platform().project, read_json(REGISTERED)
    number, commit, result = told["version"], told["version_commit"][0], told["commit"][0]
    if not exists(result):  # a job's, that another clone started: here, the same has another name
        result = snapshot("register")
    branch.record_once(result, f"register {name} version {number}\n\nrun: {read_facts()['run']}\n")
    if exists(commit):  # else another clone registered it, and has the tag
        branch.tag(tag_of(name, number), commit, f"{name} version {number}")


def identity_of(model_dir: Path, facts: dict[str, Any]) -> dict[str, str]:
    """Return what makes a version the same as another, as its tags have it."""
    data = {key: facts[key] for key in ("dataset_md5", "manifest_sha256")}
    return {"model_sha256": sha256(model_dir / WEIGHTS), **data}


def tag_of(name: str, number: int | str) -> str:
    """Return the Git tag of a registered version; with `*` for the number, the pattern of all."""
    return _tag_in(git("rev-parse", "--show-prefix"), name, number)


def _tag_in(folder: str, name: str, number: int | str) -> str:
    # DVC's artifact registry wants three numbers, and the folder when the project is not a repository of its own.
    folder = folder.rstrip("/")
    return f"{folder + '=' if folder else ''}{name}@v{number}.0.0"


def _refuse_used_number(client: "MlflowClient", name: str, start: Origin) -> None:
    last = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
    number = int(last[0].version) + 1 if last else 1
    tag = _tag_in(start.folder, name, number)
    if tag in start.release_tags:
        raise ProjectError(
            f"version {number} of {name} was registered before (tag {tag}), but not in the MLflow at "
            f"{server.tracking_uri()}, which would count it again",
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


def fetch(uri: str) -> RegisteredModel:
    """Download a registered version to start training from.

    Args:
        uri: `models:/<name>/<number>`; an alias moves, so it can't be a parameter that reproduces.

    Raises:
        ProjectError: The address is of another form, or MLflow has no such version.
    """
    import mlflow

    parts = EXACT.fullmatch(uri)
    if not parts:
        raise ProjectError(f"{uri!r} names no exact version", "params.yaml:train.init_from: models:/<name>/<number>")
    with server.answering("see the versions in MLflow (make ui), then change params.yaml:train.init_from"):
        version = server.client().get_model_version(parts["name"], parts["version"])
        path = mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp())
    if "run" not in version.tags:
        raise ProjectError(
            f"{uri} does not say which run made it, so its lineage is unknown",
            "params.yaml:train.init_from: a version that a `register` stage made",
        )
    return RegisteredModel(Path(path), version.tags["run"])

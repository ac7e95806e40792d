"""Make registered versions anew from what Git and DVC keep, under the numbers that they had."""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ..config import home
from ..errors import ProjectError
from ..tracking import checkout, dvc_remote, mlflow_client, mlflow_sync
from ..tracking.sync_status import REPAIR, Missing
from . import git_tags
from .git_tags import TaggedVersion
from .versions import ORIGIN, TAG_MODEL_VERSION, TAG_RUN_PREFIX, identity_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

MODEL = "models/model"
# The code of the version's commit logs its model: the code that goes with the model is the same, and all it says of it.
# Up to version 0.1 of the template, a project had one package, which `dvc.yaml` names.
LOG = """
import importlib, pathlib, re, sys
run_id, folder, answer = sys.argv[1:]
if pathlib.Path("mlops").is_dir():
    log = importlib.import_module("mlops.registry.model_log").log_model
else:
    package = re.search(r"python -m (\\w+) stage", pathlib.Path("dvc.yaml").read_text(encoding="utf-8"))[1]
    log = importlib.import_module(package + ".model.pyfunc").log
info = log(run_id, pathlib.Path(folder))
pathlib.Path(answer).write_text(info.model_id, encoding="utf-8")
"""

log = logging.getLogger(__name__)


def rebuild(client: "MlflowClient", known: dict[int, TaggedVersion]) -> dict[str, Missing]:
    """Make the versions that MLflow lacks, the lowest first, and complete the others.

    Returns:
        What can't be made, and those after it, which wait: MLflow would give them its number.
    """
    left: dict[str, Missing] = {}
    with FileLock(home() / ".dvc" / "tmp" / "register.lock"):
        for number, release in known.items():
            there = git_tags.registry(client)
            if number in there.versions:
                _complete(client, release, there.versions[number])
            elif number > max(there.versions, default=0) and left:
                waits = f"{REPAIR}, once {next(iter(left))} is there or given up"
                left[release.what] = Missing(release.what, "repair", "everything", waits)
            elif number > max(there.versions, default=0):
                try:
                    _complete(client, release, _make(client, there.name, release))
                    log.info("MLflow has %s %s", there.name, release.what)
                except ProjectError as error:
                    left[release.what] = release.lost(error.problem)
    return left


def _make(client: "MlflowClient", name: str, release: TaggedVersion) -> "ModelVersion":
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        facts = dvc_remote.restore_run(release.commit, folder, MODEL)
        run_id = mlflow_sync.find(client, facts["run"], facts["project"])
        if run_id is None:
            raise ProjectError(f"MLflow lacks its run {facts['run']}", REPAIR)
        if client.get_run(run_id).data.tags.get(TAG_MODEL_VERSION) == f"{name}/{release.number}":
            raise ProjectError("a person deleted it in MLflow, which gives no number twice", REPAIR)
        model = _logged(client, run_id) or _log(client, release, run_id, folder)
        tags = {
            **identity_of(folder / MODEL, facts),
            **{key: facts[key] for key in ORIGIN},
            "result_commit": release.commit,
        }
    return _number(client, name, release.number, model, tags)


def _logged(client: "MlflowClient", run_id: str) -> "LoggedModel | None":
    """Return the model that an interrupted repair left."""
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = 'model'")
    used = {one.source for one in client.search_model_versions(f"run_id = '{run_id}'")}
    return next((one for one in found if one.status == "READY" and one.model_uri not in used), None)


def _log(client: "MlflowClient", release: TaggedVersion, run_id: str, folder: Path) -> "LoggedModel":
    code, answer = checkout.write(release.commit, folder / "code"), folder / "model_id"
    done = subprocess.run(
        [sys.executable, "-c", LOG, run_id, str(folder / MODEL), str(answer)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code), "MLFLOW_TRACKING_URI": mlflow_client.tracking_uri()},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        again = f"git checkout {release.tag} && make setup, and the same command with that environment"
        said = done.stderr.strip().split("\n")[-1]
        raise ProjectError(f"its code can't log its model today: {said} ({again})", again)
    return client.get_logged_model(answer.read_text(encoding="utf-8"))


def _number(
    client: "MlflowClient", name: str, number: int, model: "LoggedModel", tags: dict[str, str]
) -> "ModelVersion":
    """Make the version under its own number; what takes the numbers of those that were given up is deleted."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    for _ in range(number):
        version = client.create_model_version(
            name, model.model_uri, model.source_run_id, tags=tags, model_id=model.model_id
        )
        if int(version.version) == number:
            return version
        client.delete_model_version(name, version.version)
        if int(version.version) > number:
            break
    raise ProjectError("MLflow has given its number before, to a version that was deleted", REPAIR)


def _complete(client: "MlflowClient", release: TaggedVersion, version: "ModelVersion") -> None:
    """Say of a version, and of each run that made it, that it did."""
    made_by = {version.tags["run"]: version.tags["data_git_commit_id"], **release.made_by}
    for run in [run for run in made_by if TAG_RUN_PREFIX + run not in version.tags]:
        with contextlib.suppress(mlflow_sync.RunDeletedError):
            if run_id := mlflow_sync.find(client, run, version.name):
                client.set_tag(run_id, TAG_MODEL_VERSION, f"{version.name}/{version.version}")
        client.set_model_version_tag(version.name, version.version, TAG_RUN_PREFIX + run, made_by[run] or "unknown")

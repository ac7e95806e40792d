"""Make registered versions anew from what Git and DVC keep, under the numbers that they had."""

import logging
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ..errors import ProjectError
from ..files import sha256
from ..settings import PACKAGE, home, load_platform
from ..tracking import mirror, resend, server
from ..tracking.archive import Archive, LostError, hashes_of
from ..tracking.completeness import REPAIR, Lack
from ..tracking.git import git
from ..tracking.history import RUN_JSON, run_in
from ..tracking.record import ARTIFACTS, read_facts
from . import releases
from .releases import MADE_BY, USED, Release
from .versions import ORIGIN, WEIGHTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion


MODEL = "models/model"
PLACEHOLDER = "placeholder"  # a tag on a version that only takes a number
RETRY = "see that the server is up (platform.yaml:tracking_uri), then the same command again"
# The code of the release's commit logs its model: the code that goes with the model is the same, and all it says of it.
LOG = """
import importlib, pathlib, sys
package, run_id, folder, answer = sys.argv[1:]
info = importlib.import_module(package + ".model.pyfunc").log(run_id, pathlib.Path(folder))
pathlib.Path(answer).write_text(info.model_id, encoding="utf-8")
"""

log = logging.getLogger(__name__)


def refuse_others(known: dict[int, Release]) -> None:
    """See that MLflow has no other versions under the numbers of ours.

    Raises:
        ProjectError: It has.
    """
    with server.answering(RETRY):
        there = releases.registry(server.client())
    for number, version in there.versions.items() if there else ():
        if number in known and releases.foreign(known[number], version):
            raise ProjectError(
                f"MLflow at {server.tracking_uri()} has another model as {version.name} version {number} (result "
                f"commit {version.tags.get('result_commit', 'none')[:10]}) than Git ({known[number].tag}: "
                f"{known[number].commit[:10]}), and versions can't be renumbered",
                f"platform.yaml:tracking_uri: the server that these tags are of; or, to give ours up: "
                f"git tag -d {known[number].tag}",
            )


def rebuild(known: dict[int, Release]) -> dict[str, Lack]:
    """Make the versions that MLflow lacks, the lowest first, and complete the others.

    Returns:
        What it lacks still. When one can't be made, those after it wait: MLflow would give them its number.

    Raises:
        ProjectError: MLflow can't be reached.
    """
    with server.answering(RETRY), FileLock(home() / ".dvc" / "tmp" / "register.lock"):
        client = server.client()
        there = releases.registry(client)
        last = releases.last_number(client, there)
        left: dict[str, Lack] = {}
        for number, release in known.items():
            version = there.versions.get(number) if there else None
            if version is None and number > last:
                if left:
                    waits = f"{REPAIR}, once {next(iter(left))} is there or given up"
                    left[f"version {number}"] = Lack(f"version {number}", "repair", "everything", waits)
                    continue
                try:
                    version = _Rebuilding(client, release).create()
                    log.info("MLflow has %s version %s", version.name, number)
                except ProjectError as error:
                    reason = f"not repairable: {error.problem}. To give it up for good: git tag -d {release.tag}"
                    left[f"version {number}"] = Lack(f"version {number}", "impossible", "everything", reason)
                    continue
            if version is not None:
                _complete(client, release, version)
        _remove_placeholders(client)
    return left


class _Rebuilding:
    """One release on its way to MLflow."""

    def __init__(self, client: "MlflowClient", release: Release) -> None:
        self._client, self._release = client, release
        self._name = load_platform().project

    def create(self) -> "ModelVersion":
        """Make the version.

        Raises:
            ProjectError: Its files are not to be had, MLflow lacks its run, or gives it another number.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = self._restore(folder)
            run_id = mirror.find(self._client, run)
            if run_id is None:
                raise ProjectError(f"MLflow lacks its run {run}", REPAIR)
            model = self._logged(run_id) or self._log(run_id, folder)
            facts = read_facts(folder)
            tags = {
                "model_sha256": sha256(folder / MODEL / WEIGHTS),
                "dataset_md5": facts["dataset_md5"],
                "manifest_sha256": facts["manifest_sha256"],
                **{key: facts[key] for key in ORIGIN},
                "result_commit": self._release.commit,
            }
        return self._number(model, run_id, tags)

    def _restore(self, folder: Path) -> str:
        """Write the results and the model below `folder`, and return their run."""
        commit = self._release.commit
        named = hashes_of(commit)
        hashes = {path: named[path] for path in (resend.RESULTS, *ARTIFACTS, MODEL) if path in named}
        with Archive() as archive:
            told = archive.file_of_git(commit, RUN_JSON)
            run = run_in(told.decode()) if told else ""
            if not run or MODEL not in hashes:
                raise LostError(f"{self._release.tag} names no run with a model", f"git show {self._release.tag}")
            archive.fetch(hashes[path] for path in (resend.RESULTS, ARTIFACTS[0], MODEL) if path in hashes)
            resend.restore(archive, run, (commit, hashes), folder)
        return run

    def _logged(self, run_id: str) -> "LoggedModel | None":
        """Return the model that an interrupted repair left, and delete what it left of half a one."""
        experiment = self._client.get_run(run_id).info.experiment_id
        found = self._client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = 'model'")
        used = {one.source for one in self._client.search_model_versions(f"run_id = '{run_id}'")}
        for one in found:
            if one.status == "READY" and one.model_uri not in used:
                return one
            if one.status != "READY":
                self._client.delete_logged_model(one.model_id)
        return None

    def _log(self, run_id: str, folder: Path) -> "LoggedModel":
        code, answer = folder / "code", folder / "model_id"
        git("archive", "--format=tar", "-o", str(folder / "code.tar"), self._release.commit, PACKAGE)
        with tarfile.open(folder / "code.tar") as packed:
            packed.extractall(code, filter="data")
        done = subprocess.run(
            [sys.executable, "-c", LOG, PACKAGE, run_id, str(folder / MODEL), str(answer)],
            cwd=code,
            env={**os.environ, "PYTHONPATH": str(code), "MLFLOW_TRACKING_URI": server.tracking_uri()},
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            said = done.stderr.strip().split("\n")[-1]
            raise ProjectError(
                f"the code of {self._release.tag} can't log its model today: {said}",
                f"git checkout {self._release.tag} && make setup, and the same command with that environment",
            )
        return self._client.get_logged_model(answer.read_text(encoding="utf-8"))

    def _number(self, model: "LoggedModel", run_id: str, tags: dict[str, str]) -> "ModelVersion":
        """Make the version under its own number, after placeholders where numbers before it were given up."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        wanted, number = self._release.number, releases.last_number(self._client, releases.registry(self._client))
        while number < wanted:
            told = tags if number == wanted - 1 else {PLACEHOLDER: "of a version that was given up"}
            version = self._client.create_model_version(
                self._name, model.model_uri, run_id, tags=told, model_id=model.model_id
            )
            number = int(version.version)
            if number == wanted and told is tags:
                return version
            if number >= wanted:
                self._client.set_registered_model_tag(self._name, USED, str(number))
                self._client.delete_model_version(self._name, version.version)
        raise ProjectError(
            f"MLflow has given number {wanted} before, to a version that was deleted, and gives no number twice", REPAIR
        )


def _complete(client: "MlflowClient", release: Release, version: "ModelVersion") -> None:
    """Say of a version, and of each run that made it, that it did."""
    made_by = {version.tags["run"]: version.tags["data_git_commit_id"], **release.made_by}
    for run, commit in made_by.items():
        if MADE_BY + run in version.tags:
            continue
        try:
            run_id = mirror.find(client, run)
        except mirror.RunDeletedError:
            run_id = None
        if run_id:
            client.set_tag(run_id, "model_version", f"{version.name}/{version.version}")
        client.set_model_version_tag(version.name, version.version, MADE_BY + run, commit or "unknown")


def _remove_placeholders(client: "MlflowClient") -> None:
    there = releases.registry(client)
    places = [version for version in there.versions.values() if PLACEHOLDER in version.tags] if there else []
    if there and places:
        client.set_registered_model_tag(there.name, USED, str(releases.last_number(client, there)))
    for version in places:
        client.delete_model_version(version.name, version.version)

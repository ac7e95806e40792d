"""Rebuild an MLflow that was wiped, or fill a second one, from what Git and DVC keep: runs, versions, aliases.

    python -m mlops mirror status [--json]
    python -m mlops mirror repair [--dry-run]

Runs and versions become what they were, under their numbers, except for MLflow's own ids and its times of registration:
the tag `registered_at` of a version has the right one.
To repeat a repair changes nothing; to repeat an interrupted one completes it.
"""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from .. import pipeline
from ..config import home, load_platform
from ..errors import ProjectError
from ..tracking import (
    checkout,
    dvc_remote,
    lineage_log,
    mlflow_client,
    mlflow_reader,
    mlflow_sync,
    publishing,
    stage_metrics,
    sync_status,
    uploader,
)
from ..tracking.git import git
from ..tracking.lineage_log import KnownRun
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.sync_status import GIVE_UP, REPAIR, STAGE_METRICS, STATUS, Missing
from . import aliases
from .aliases import ALIASES, FETCH_LOG, PUSH_LOG, VERB, Registry, own_log, update_log
from .promotion import author
from .versions import (
    TAG_MODEL_VERSION,
    TAG_RUN_PREFIX,
    TaggedVersion,
    add_version,
    describe,
    metrics_at,
    tag_run,
    tagged_versions,
    version_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL = "models/model"
# The code of the version's commit logs its model: so the code that goes with the model is the same, and all it says.
# Up to version 0.1 of the template, a project had one package, which `dvc.yaml` names.
LOG_MODEL = """
import importlib, pathlib, re, sys
run_id, folder, answer = sys.argv[1:]
if pathlib.Path("mlops").is_dir():
    model_id = importlib.import_module("mlops.registry.versions").log_model(run_id, pathlib.Path(folder))
else:
    package = re.search(r"python -m (\\w+) stage", pathlib.Path("dvc.yaml").read_text(encoding="utf-8"))[1]
    model_id = importlib.import_module(package + ".model.pyfunc").log(run_id, pathlib.Path(folder)).model_id
pathlib.Path(answer).write_text(model_id, encoding="utf-8")
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What this clone knows, and what of it MLflow lacks."""

    known: dict[str, KnownRun]  # by the run's id
    versions: dict[int, TaggedVersion]
    runs: dict[str, Missing]  # by the run's id
    registry: dict[str, Missing]  # by `version 2`, `alias champion`


def status() -> Status:
    """Compare this clone with MLflow; raise ProjectError if that has other versions under the numbers of ours."""
    known, versions = sync_status.known(), tagged_versions()
    with mlflow_client.translate_errors(mlflow_client.RETRY):
        return Status(known, versions, sync_status.missing(mlflow_reader.connect(), known), missing(versions))


def repair() -> Status:
    """Give MLflow what it lacks, and return what it lacks still, and why; what was sent stays sent."""
    before = status()
    # In the order of the trainings: of runs on one dataset, MLflow keeps the source that the first one tells.
    runs = {run: left for run, item in before.runs.items() if (left := _send(before.known[run], item, _send_run))}
    with mlflow_client.translate_errors(mlflow_client.RETRY):
        versions, registry = _rebuild_all(mlflow_client.client(), before.versions), aliases.read(may_be_empty=True)
        states = [item.state for item in _missing_aliases(registry, before.versions)]
        if registry.versions and "repair" in states and "fetch" not in states:
            for line in aliases.replay():
                log.info("%s", line)
        # After the versions: with a model, MLflow keeps what its run has measured by then.
        for run, item in before.runs.items():
            if run not in runs and (left := _send(before.known[run], item, _send_stage_metrics)):
                runs[run] = left
        return replace(before, runs=runs, registry=missing(before.versions) | versions)


def missing(known: dict[int, TaggedVersion]) -> dict[str, Missing]:
    """Return what MLflow's registry lacks, by `version 2`, `alias champion`."""
    registry = aliases.read(may_be_empty=True)
    items = []
    for number, tagged in known.items():
        what, version = f"version {number}", registry.versions.get(number)
        if version is None and number < max(registry.versions, default=0):
            items.append(_lost(tagged, "deleted by a person, or never there, and MLflow gives no number twice"))
        elif version is None:
            items.append(Missing(what, "repair", "everything", REPAIR))
        elif (commit := version.tags.get("result_commit", "none")) != tagged.commit:
            raise ProjectError(
                f"MLflow at {mlflow_client.tracking_uri()} has another model as {registry.name} {what} (result commit "
                f"{commit[:10]}) than Git ({tagged.tag}: {tagged.commit[:10]}), and versions can't be renumbered",
                "platform.yaml:tracking_uri: the server that these tags are of; or, to give ours up: "
                f"git tag -d {tagged.tag}",
            )
        elif runs := [run for run in tagged.made_by if TAG_RUN_PREFIX + run not in version.tags]:
            items.append(Missing(what, "repair", f"that {', '.join(runs)} made it", REPAIR))
    lost = {item.what for item in items if item.state == "impossible"}
    repairable = {number for number in known if f"version {number}" not in lost}
    return {item.what: item for item in (*items, *_missing_aliases(registry, repairable))}


def _lost(tagged: TaggedVersion, reason: str) -> Missing:
    remedy = f"not repairable: {reason}. To give it up for good, in each clone: git tag -d {tagged.tag}"
    return Missing(f"version {tagged.number}", "impossible", "everything", remedy)


def _missing_aliases(registry: Registry, known: Collection[int]) -> list[Missing]:
    """Return the aliases that MLflow lacks; `known` are the versions that it has, or that can be made again."""
    if (known or registry.versions) and not lineage_log.log_refs():  # whoever registered them wrote one
        remedy = f"this clone has none: {FETCH_LOG}; before that, where it is: {PUSH_LOG}"
        return [Missing("aliases", "fetch", "what the log tells", remedy)]
    if lineage_log.is_behind_remote(own_log()):
        lacks = "what the log of a Git remote tells, and this clone's doesn't"
        return [Missing("aliases", "fetch", lacks, update_log())]
    given_up = (
        f"not repairable: MLflow can't have that version again; {VERB} promote <another> "
        "(if its tag was not fetched: git fetch --tags origin)"
    )
    items = []
    for alias in ALIASES:
        in_log, in_mlflow = registry.holder(alias), registry.aliases.get(alias)
        what, lacks = f"alias {alias}", f"version {in_log or 'none'} as {alias}; it has {in_mlflow or 'none'}"
        if in_mlflow and in_mlflow != in_log:
            items.append(Missing(what, "fetch", lacks, registry.fix_of(alias)))
        elif in_mlflow != in_log:
            by_repair = Missing(what, "repair", lacks, REPAIR)
            items.append(by_repair if in_log in known else Missing(what, "impossible", lacks, given_up))
    return items


def _send(run: KnownRun, item: Missing, send: Callable[[KnownRun, Missing], None]) -> Missing | None:
    """Send a part of a run when it can be sent, and return what MLflow lacks of the run still."""
    is_given_up = item.state == "given up"
    if item.state not in ("sync", "repair") and not (is_given_up and run.commits):
        return item
    try:
        send(run, item)
    except mlflow_client.MlflowError:
        raise
    except mlflow_sync.RunDeletedError as error:
        return replace(item, state="deleted", remedy=error.fix)
    except ProjectError as error:
        remedy = f"not repairable: {error.problem}; {error.fix}; if it is lost: {GIVE_UP} {run.run} --why '…'"
        return item if is_given_up else replace(item, state="impossible", remedy=remedy)
    return None


def give_up(runs: Sequence[str], why: str) -> None:
    """Give up runs whose files are lost, for a reason: `mirror status` counts them no more, here and in other clones.

    It raises ProjectError, and gives up none, if one of them is not lost.
    """
    if not why.strip():
        raise ProjectError("a run is given up for a reason, and there is none", "--why '…'")
    lineage_log.check_refs()
    who, state = author(), status()
    for run in runs:
        item = state.runs.get(run)
        if run not in state.known:
            raise ProjectError(f"this clone knows no run {run}", f"take an id of: {STATUS}")
        if item is None:
            raise ProjectError(f"run {run} is not lost: MLflow has it", "leave it out: there is nothing to give up")
        if item.state not in ("impossible", "repair", "given up"):
            raise ProjectError(f"run {run} is not lost ({item.state})", item.remedy)
    for run in runs:
        sync_status.give_up(state.known[run], who, why)
        uploader.remove_stage_metrics(run)  # nothing to which they could be sent
    publishing.publish(may_ask=True)


def _send_run(run: KnownRun, item: Missing) -> None:
    if item.lacks == STAGE_METRICS:
        return
    waiting, entry = run.run in uploader.waiting_stage_metrics(), uploader.folder() / run.run
    if not waiting:  # else, what waits is newer than what was committed
        _stage_metrics_of(run)
    try:
        if item.state in ("repair", "given up"):
            _send_committed(run.run, run.commits)
        else:
            uploader.upload(entry if entry.exists() else Path())
    except ProjectError:
        if not waiting:
            uploader.remove_stage_metrics(run.run)
        raise
    log.info("MLflow has %s", item.what)


def _stage_metrics_of(run: KnownRun) -> None:
    """Put what later stages measured into the outbox, from where a repair that is interrupted goes on."""
    metrics: dict[str, float] = {}
    for commit in reversed(run.commits):
        metrics |= stage_metrics.read_after_training(commit)
    if metrics:
        uploader.stage_metrics(run.run, metrics)


def _send_stage_metrics(run: KnownRun, _: Missing) -> None:
    if run.run in uploader.waiting_stage_metrics():
        uploader.upload_stage_metrics(run.run)


def _send_committed(run: str, commits: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            dvc_remote.restore_run(commits[0], Path(folder))
        except ProjectError:
            if not commits[1:]:
                raise
            return _send_committed(run, commits[1:])  # an older commit may have its files
        with uploader.upload_lock(run):  # two repairs at once must not both create it
            mlflow_sync.sync(Path(folder))


def _rebuild_all(client: "MlflowClient", known: dict[int, TaggedVersion]) -> dict[str, Missing]:
    """Make the versions that MLflow lacks, the lowest first, and complete the others.

    Return what can't be made, and the versions after it, which wait: MLflow would give them its number.
    """
    left: dict[str, Missing] = {}
    with FileLock(home() / ".dvc" / "tmp" / "register.lock"):
        if not mlflow_reader.connect().aliases(load_platform().project):
            _forget_versions(client)
        for number, tagged in known.items():
            what, registry = f"version {number}", aliases.read(may_be_empty=True)
            if number in registry.versions:
                _tag_runs(client, tagged, registry.versions[number])
            elif number > max(registry.versions, default=0) and left:
                waits = f"{REPAIR}, once {next(iter(left))} is there or given up"
                left[what] = Missing(what, "repair", "everything", waits)
            elif number > max(registry.versions, default=0):
                try:
                    _tag_runs(client, tagged, _rebuild(client, registry.name, tagged))
                    log.info("MLflow has %s %s", registry.name, what)
                except ProjectError as error:
                    is_final = error.fix.startswith("git tag -d")
                    left[what] = _lost(tagged, error.problem if is_final else f"{error.problem}; {error.fix}")
    return left


def _forget_versions(client: "MlflowClient") -> None:
    """Remove what runs say of versions: a person deleted the registered model, and MLflow counts from 1 again."""
    experiment = mlflow_client.experiment_id(client, load_platform().project)
    query = f"tags.{TAG_MODEL_VERSION} LIKE '%'"
    for run in mlflow_client.pages(partial(client.search_runs, [experiment], query)):
        client.delete_tag(run.info.run_id, TAG_MODEL_VERSION)


def _rebuild(client: "MlflowClient", name: str, tagged: TaggedVersion) -> "ModelVersion":
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        facts = dvc_remote.restore_run(tagged.commit, folder, MODEL)
        run_id = mlflow_sync.find(client, facts["run"], facts["project"]) or mlflow_sync.sync(folder)
        run = client.get_run(run_id)
        if run.data.tags.get(TAG_MODEL_VERSION) == f"{name}/{tagged.number}":
            raise ProjectError("a person deleted it in MLflow, which gives no number twice", f"git tag -d {tagged.tag}")
        logged = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}' AND name = 'model'")
        used = {version.source for version in client.search_model_versions(f"run_id = '{run_id}'")}
        unused = (model.model_id for model in logged if model.status == "READY" and model.model_uri not in used)
        model_id = next(unused, None)  # an interrupted repair may have left one
        if model_id is None:
            code, answer = checkout.write(tagged.commit, folder / "code"), folder / "model_id"
            done = subprocess.run(
                [sys.executable, "-c", LOG_MODEL, run_id, str(folder / MODEL), str(answer)],
                cwd=code,
                env={**os.environ, "PYTHONPATH": str(code), "MLFLOW_TRACKING_URI": mlflow_client.tracking_uri()},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
            )
            if done.returncode:
                again = f"git checkout {tagged.tag} && make setup, and the same command with that environment"
                reason = done.stderr.strip().split("\n")[-1]
                raise ProjectError(f"its code can't log its model today: {reason}", again)
            model_id = answer.read_text(encoding="utf-8")
        tags = version_tags(folder / MODEL, facts, tagged.commit, tagged.registered)
    metrics, params = metrics_at(tagged.commit), _params_at(tagged.commit)
    text = describe(client, run_id, facts, tagged.commit, metrics, params, tagged.registered)
    number = 0
    while number < tagged.number:  # versions that take the numbers of those that were given up are deleted
        version = add_version(client, name, run_id, model_id, tags, text)
        if (number := int(version.version)) == tagged.number:
            return version
        client.delete_model_version(name, version.version)
    raise ProjectError("MLflow gave its number before, to a version that was deleted", f"git tag -d {tagged.tag}")


def _params_at(commit: str) -> dict[str, Any]:
    """Return the params of the stage that registers, as a commit has them."""
    from ruamel.yaml import YAML

    sections = [name for stage in pipeline.load_stages().values() if stage.is_registering for name in stage.params]
    params = YAML(typ="safe").load(git("show", f"{commit}:./params.yaml"))
    return {name: params[name] for name in sections if name in params}


def _tag_runs(client: "MlflowClient", tagged: TaggedVersion, version: "ModelVersion | StoredVersion") -> None:
    """Tag a version with the runs that made it, and each of these runs with the version."""
    made_by = {version.tags["run"]: version.tags["data_git_commit_id"], **tagged.made_by}
    for run in [run for run in made_by if TAG_RUN_PREFIX + run not in version.tags]:
        with contextlib.suppress(mlflow_sync.RunDeletedError):
            if run_id := mlflow_sync.find(client, run, version.name):
                tag_run(client, run_id, version.name, version.version)
        client.set_model_version_tag(version.name, version.version, TAG_RUN_PREFIX + run, made_by[run] or "unknown")

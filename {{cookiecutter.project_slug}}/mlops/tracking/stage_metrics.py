"""Metrics of the stages before and after a training: MLflow has them on its run, as `prepare.records`.

Those of earlier stages are among the facts of a run when it starts. What a later stage measured belongs to the run in
`reports/run.json`: it is put into the outbox when the stage ends, and sent from there (`uploader.py`).
"""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..files import read_json
from ..pipeline import RUN_REPORT, load_stages
from . import uploader
from .git import without_credentials
from .mlflow_sync import RunDeletedError

if TYPE_CHECKING:
    from dvc.repo import Repo

log = logging.getLogger(__name__)


def read(stages: Iterable[str]) -> dict[str, float]:
    """Return the numbers in the metrics files of stages, by names such as `prepare.records`."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        return _read(repo, [repo.stage.get_target(stage) for stage in stages])


def send(stage: str) -> None:
    """Send what a stage after the training measured; MLflow that is away, or refuses, does not make the stage fail."""
    if not Path(RUN_REPORT).exists():
        return
    stages = load_stages()
    if not any(stages[name].is_training for name in stages[stage].upstream):
        return
    if not (metrics := read([stage])):
        return
    run = read_json(Path(RUN_REPORT))["run"]
    try:
        uploader.stage_metrics(run, metrics)
        uploader.upload_stage_metrics(run)
    except RunDeletedError as error:
        log.warning("%s, so the metrics of %s are not sent", error.problem, stage)
        uploader.remove_stage_metrics(run)
    except Exception as error:  # of MLflow, its database, the network or the disk
        problem = without_credentials(error.problem if isinstance(error, ProjectError) else str(error))
        log.warning("MLflow lacks the metrics of %s: %s. To send them: python -m mlops mirror sync", stage, problem)


def read_after_training(commit: str) -> dict[str, float]:
    """Return what the stages after the training measured of its results, as a commit of this clone holds them."""
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(os.getcwd()) as repo, repo.switch(commit):
            graph, made = repo.index.graph, {out.fs_path: out.hash_info for out in repo.index.outs}
            # Those that dvc.lock has not, or with other deps than the commit's, measured an earlier run.
            stale = {
                stage
                for stage in graph
                if any(not dep.hash_info or made.get(dep.fs_path, dep.hash_info) != dep.hash_info for dep in stage.deps)
            }
            training = [stage for stage in graph if any(_path(repo, out) == RUN_REPORT for out in stage.outs)]
            later = {stage for each in training for stage in networkx.ancestors(graph, each)}
            return _read(repo, [stage for stage in later if not stale & {stage, *networkx.descendants(graph, stage)}])
    except DvcException as error:  # a pipeline that this version of DVC can't read, say
        log.warning("commit %s: the metrics of stages after the training can't be read: %s", commit[:10], error)
        return {}


def _read(repo: "Repo", stages: Iterable[Any]) -> dict[str, float]:
    from dvc.utils.serialize import load_path

    metrics: dict[str, float] = {}
    for stage in stages:
        file = Path(stage.path_in_repo).as_posix()
        name = stage.name if file == "dvc.yaml" else f"{file}:{stage.name}"
        for out in stage.outs:
            # DVC's file system has what is in Git, the cache or the remote. A path may be that of a folder.
            for path in repo.dvcfs.find(f"/{_path(repo, out)}") if out.metric else ():
                try:
                    metrics.update(_numbers(load_path(path, repo.dvcfs), name))
                except Exception as error:  # each format, and each kind of remote, raises errors of its own
                    log.warning("%s, metrics of %s, can't be read: %s", path.lstrip("/"), name, error)
    return metrics


def _path(repo: "Repo", out: Any) -> str:
    return Path(repo.fs.relpath(out.fs_path, repo.root_dir)).as_posix()


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, f"{name}.{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)

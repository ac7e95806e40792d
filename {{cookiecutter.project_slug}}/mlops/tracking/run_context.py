"""Facts that only the clone that starts a stage knows: the commit that it reads, who starts it, labels and tags.

A job has no Git: the clone that starts it writes them to the job's file. A label of a dataset, such as v1.0, is an
annotated Git tag `data/<label>` whose message is the dataset's hash; outside the cache key, it runs nothing again.
"""

import getpass
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import pipeline
from ..config import home, job_file, load_platform
from ..errors import ProjectError
from ..files import read_json
from . import dvc_remote, lineage_log
from .git import git, head, remote_url, try_git
from .snapshot import LOCK, snapshot

DATASET = "data/dataset"


@dataclass(frozen=True)
class RunContext:
    """Where a stage was started, in types of JSON."""

    commit: str  # its tree is what the stage reads
    run: str  # a new id, for a training
    user: str  # Git's name of who started it
    git_remote_url: str  # of `origin`, without credentials; "" for none
    git_branch: str  # "" when none is checked out
    baseline_commit: str  # of the experiment; else HEAD
    dvc_exp_name: str  # "" when it is no experiment of DVC's
    dvc_remote_url: str  # without credentials
    data_version: str  # the label of the dataset, or the beginning of its hash; "" before there is one
    folder: str  # the project's in its Git repository, with a slash at its end; "" for the root
    release_tags: Sequence[str]  # names of the Git tags of registered versions

    @property
    def name(self) -> str:
        """Return the name of the run for people."""
        return self.dvc_exp_name or self.run


def from_job() -> RunContext | None:
    """Return what the clone that started this job wrote to the job's file; None when this is no job."""
    path = job_file()
    return RunContext(**read_json(path)["origin"]) if path else None


def collect(stage: str) -> RunContext:
    """Return the context of a stage that this clone is about to start.

    It raises what `snapshot` does, and ProjectError for a training that was not started by DVC, or while an earlier
    stage is out of date: the run would name what it did not read.
    """
    loaded, label = pipeline.load_stage(stage), ""
    if loaded.is_training:
        _check_upstream(loaded)
        md5 = dataset_md5()
        tags = git("tag", "--list", "data/*", "--format=%(contents:subject) %(refname:strip=3)", where=home())
        label = dict(line.rsplit(" ", 1) for line in reversed(tags.splitlines())).get(md5, md5[:8])
    user = try_git("config", "user.name", where=home())
    if user is None:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user without a name
            user = "unknown"
    return RunContext(
        commit=snapshot(stage),
        run=uuid.uuid4().hex[:12],
        user=user,
        git_remote_url=remote_url(home()),
        git_branch=git("branch", "--show-current", where=home()),
        baseline_commit=os.environ.get("DVC_EXP_BASELINE_REV") or head(),
        dvc_exp_name=os.environ.get("DVC_EXP_NAME", ""),
        dvc_remote_url=dvc_remote.remote_url(),
        data_version=label,
        folder=git("rev-parse", "--show-prefix"),
        release_tags=git("tag", "--list", "*@v*", where=home()).split(),
    )


def log_training(context: RunContext) -> None:
    """Write a training to the branch `lineage` before it begins; once, however often this is called."""
    project = load_platform().project
    lineage_log.record_once(context.commit, f"train {context.name}\n\nrun: {context.run}\nproject: {project}\n")


def _check_upstream(stage: pipeline.Stage) -> None:
    """Check that the work tree is what `dvc.lock` names: the run will name it as what it was made from."""
    from dvc.repo import Repo

    if not os.environ.get("DVC_STAGE"):
        problem = f"{stage.name} was started by hand, so dvc.lock does not say what it reads"
        raise ProjectError(problem, f"dvc repro {stage.name}")
    with Repo(os.getcwd()) as repo:
        status = repo.status(targets=list(stage.upstream))
    if changed := [name for name, changes in status.items() if _is_modified(changes)]:
        problem = f"{' and '.join(changed)} changed and did not run since: {status}"
        raise ProjectError(problem, f"dvc repro {stage.name}")


def _is_modified(changes: Any) -> bool:
    # A file that is deleted here, such as raw data that were never pulled, can't have been read in another version.
    if isinstance(changes, dict):
        return any(map(_is_modified, changes.values()))
    return any(map(_is_modified, changes)) if isinstance(changes, list) else changes not in ("deleted", "not in cache")


def dataset_md5() -> str:
    """Return the hash of the dataset directory in `dvc.lock`; raise ProjectError if it is not in there."""
    from ruamel.yaml import YAML

    lock = YAML(typ="safe").load(Path(LOCK).read_text(encoding="utf-8")) if Path(LOCK).exists() else {}
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            if out["path"] == DATASET:
                return str(out["md5"])
    raise ProjectError(f"dvc.lock does not name {DATASET}", "run the stage through DVC: dvc repro")


def tag_dataset(label: str) -> str:
    """Label the dataset of the work tree with the annotated Git tag `data/<label>`; return the commit that pins it.

    It raises ProjectError if the label is in use for another commit, or is no valid tag name.
    """
    commit = snapshot(pipeline.training_stage().name)
    if try_git("check-ref-format", f"refs/tags/data/{label}") is None:
        raise ProjectError(f"{label!r} is no valid label", "use letters, digits, dots and dashes: v1.0")
    lineage_log.tag(f"data/{label}", commit, dataset_md5())
    return commit

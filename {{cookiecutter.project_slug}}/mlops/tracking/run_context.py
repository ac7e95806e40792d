"""What only the clone that starts a stage knows: the commit of what it reads, who starts it, labels and tags.

A job has no Git. The clone that starts one writes its origin down, the job reads it; anywhere else it is asked of Git.
"""

import dataclasses
import getpass
import os
import uuid
from dataclasses import dataclass
from typing import Any

from .. import pipeline
from ..config import home, job_file, load_platform
from ..errors import ProjectError
from ..files import read_json
from . import dataset_tags, dvc_remote, lineage_log
from .git import GitError, git, head, remote_url
from .snapshot import snapshot


@dataclass(frozen=True)
class RunContext:
    """Where a stage was started.

    Args:
        commit: Its tree is what the stage reads.
        run: A new id, for a training.
        user: Git's name of who started it.
        git_remote_url: Of `origin`, without credentials; "" for none.
        git_branch: "" when none is checked out.
        baseline_commit: Of the experiment; else HEAD.
        dvc_exp_name: "" when it is no experiment of DVC's.
        dvc_remote_url: Where the data are, without credentials.
        data_version: The owner's label of the dataset, or the beginning of its hash; "" before there is one.
        folder: The project's in its Git repository, with a slash at its end; "" for the root.
        release_tags: Names of the Git tags of registered versions.
    """

    commit: str
    run: str
    user: str
    git_remote_url: str
    git_branch: str
    baseline_commit: str
    dvc_exp_name: str
    dvc_remote_url: str
    data_version: str
    folder: str
    release_tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the run for people."""
        return self.dvc_exp_name or self.run

    def as_json(self) -> dict[str, Any]:
        """Return it for a job."""
        return dataclasses.asdict(self)

    @classmethod
    def of_json(cls, told: dict[str, Any]) -> "RunContext":
        """Return what `as_json` gave."""
        return cls(**{**told, "release_tags": tuple(told["release_tags"])})


def from_job() -> RunContext | None:
    """Return what the clone that started this job wrote down; None when this is no job."""
    path = job_file()
    if path is None:
        return None
    return RunContext.of_json(read_json(path)["origin"])


def collect(stage: str) -> RunContext:
    """Ask Git, before `stage` is started from this clone.

    Raises:
        ProjectError: There is no commit; the stage depends on a file that Git does not track; or, for `train`, it was
            not started by DVC or an earlier stage is out of date: the run would name what it did not read.
    """
    loaded = pipeline.load_stage(stage)
    if loaded.is_training:
        _check_upstream(loaded)
    return RunContext(
        commit=snapshot(stage),
        run=uuid.uuid4().hex[:12],
        user=_user(),
        git_remote_url=remote_url(home()),
        git_branch=git("branch", "--show-current", where=home()),
        baseline_commit=os.environ.get("DVC_EXP_BASELINE_REV") or head(),
        dvc_exp_name=os.environ.get("DVC_EXP_NAME", ""),
        dvc_remote_url=dvc_remote.remote_url(),
        data_version=dataset_tags.label_of(dataset_tags.dataset_md5()) if loaded.is_training else "",
        folder=git("rev-parse", "--show-prefix"),
        release_tags=tuple(git("tag", "--list", "*@v*", where=home()).split()),
    )


def log_training(origin: RunContext) -> None:
    """Write a training into the branch `lineage`, before it begins; once, however often this is called."""
    project = load_platform().project
    lineage_log.record_once(origin.commit, f"train {origin.name}\n\nrun: {origin.run}\nproject: {project}\n")


def _check_upstream(stage: pipeline.Stage) -> None:
    """See that what `dvc.lock` names is what is there: the run will name it as what it was made from.

    Raises:
        ProjectError: The stage was not started by DVC, or an earlier one is out of date.
    """
    from dvc.repo import Repo

    if not os.environ.get("DVC_STAGE"):
        problem = f"{stage.name} was started by hand, so dvc.lock does not say what it reads"
        raise ProjectError(problem, f"dvc repro {stage.name}")
    with Repo(os.getcwd()) as repo:
        found = repo.status(targets=list(stage.upstream))
    changed = [name for name, changes in found.items() if _modified(changes)]
    if changed:
        raise ProjectError(f"{' and '.join(changed)} changed and did not run since: {found}", f"dvc repro {stage.name}")


def _modified(changes: Any) -> bool:
    # What is deleted here, such as raw data that were never pulled, can't have been read in another form.
    if isinstance(changes, dict):
        return any(map(_modified, changes.values()))
    return any(map(_modified, changes)) if isinstance(changes, list) else changes not in ("deleted", "not in cache")


def _user() -> str:
    try:
        return git("config", "user.name", where=home())
    except GitError:
        pass
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"

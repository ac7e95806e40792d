"""The files of earlier commits, from Git, DVC's cache, or the remote. The work tree is not touched."""

import hashlib
import os
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..files import read_json
from .git import git
from .git_history import RUN_JSON
from .run_files import ARTIFACTS, LINEAGE, RUN_DIR, check_manifest, read_facts


class ArtifactMissingError(ProjectError):
    """Files of a commit are not to be had, or not what they should be."""


def restore(commit: str, paths: tuple[str, ...], folder: Path) -> None:
    """Write files and folders of the project, as they were at a commit, below `folder`.

    Args:
        commit: A commit of this clone.
        paths: From the project's root; those that the commit doesn't know are left out.
        folder: An empty one.

    Raises:
        LostError: Not all of them are to be had, or one is damaged.
    """
    from dvc.api import DVCFileSystem

    try:
        # Below its Git repository's root, the project is a sub-repository to DVC, and its paths begin there.
        files, project = DVCFileSystem(rev=commit, subrepos=True, config=_places()), git("rev-parse", "--show-prefix")
        for path in paths:
            if files.exists(project + path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                files.get(project + path, str(folder / path), recursive=True)
        for file in (path for path in folder.rglob("*") if path.is_file()):
            _check(file, files.info(project + file.relative_to(folder).as_posix()).get("md5"))
        files.close()
    except Exception as error:  # each kind of remote lets its own kinds of errors through
        raise ArtifactMissingError(
            f"the files of commit {commit[:10]} are not to be had: {error}",
            "see that the DVC remote answers (dvc remote list); in a clone that has them: dvc push --all-commits",
        ) from error


def restore_run(commit: str, folder: Path, *more: str) -> dict[str, Any]:
    """Write what MLflow needs of the run whose results a commit holds below `folder`, and `more`; return its facts.

    Raises:
        LostError: See `restore`; or they are another run's.
        ProjectError: The manifest is another run's.
    """
    restore(commit, (RUN_JSON, RUN_DIR.as_posix(), *ARTIFACTS, *more), folder)
    lacks = [path for path in (RUN_JSON, LINEAGE.as_posix(), *more) if not (folder / path).exists()]
    if lacks:
        raise ArtifactMissingError(
            f"commit {commit[:10]} has no {', '.join(lacks)}", f"git show {commit[:10]}:dvc.lock"
        )
    facts, run = read_facts(folder), read_json(folder / RUN_JSON)["run"]
    if facts["run"] != run:
        raise ArtifactMissingError(
            f"{RUN_DIR} at commit {commit[:10]} is of run {facts['run']}, not of {run}", "see that commit"
        )
    check_manifest(folder)
    return facts


def _places() -> dict[str, Any]:
    """Return where data are kept now: since the commit was made, they may have moved to a bucket."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        return {section: repo.config[section] for section in ("core", "remote", "cache")}


def _check(file: Path, md5: str | None) -> None:
    # DVC links or copies what its cache has under a name, and doesn't look into it. Files of Git have no md5 here.
    if md5 and hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{md5} in DVC's cache is damaged; delete it there (.dvc/cache/files/md5)")

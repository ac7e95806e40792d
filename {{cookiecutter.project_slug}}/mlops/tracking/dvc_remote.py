"""The DVC remote: where the bytes that a run names are kept."""

import logging
import os
from pathlib import Path
from typing import Any

from ..config import job_file
from ..errors import ProjectError
from .git import without_credentials

log = logging.getLogger(__name__)


def push(stages: list[str]) -> None:
    """Copy the cached outputs of `stages`, and all that they were made from, to the DVC remote, where they lack.

    In a job there is nothing to do: it read them from there.

    Raises:
        ProjectError: No remote is set, it is a throw-away folder, or it can't be reached.
    """
    from dvc.repo import Repo

    if job_file():
        return
    with Repo(os.getcwd()) as repo:
        address = url(repo)
        try:
            repo.push(targets=stages, with_deps=True)
        except Exception as error:  # each kind of remote lets its own kinds of errors through
            raise ProjectError(
                without_credentials(f"the DVC remote {address} does not take the data: {error.__cause__ or error}"),
                "mend the connection, then: dvc push",
            ) from error


def push_or_owe(stages: list[str]) -> bool:
    """Push, but let work go on when the remote is away.

    Returns:
        Whether the data are there. When not, `register` pushes them, and refuses if it can't.
    """
    try:
        push(stages)
    except ProjectError as error:
        log.warning("%s. Training goes on; the push is owed until `register`.", error.problem)
        return False
    return True


def remote_url() -> str:
    """Return the address of the DVC remote without credentials, or "" when none is set."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        try:
            return without_credentials(url(repo))
        except ProjectError:
            return ""


def url(repo: Any) -> str:
    """Return the address of the default remote.

    Raises:
        ProjectError: There is none, or it is a throw-away folder.
    """
    name = repo.config["core"].get("remote")
    url = repo.config["remote"].get(name, {}).get("url")
    if not url:
        raise ProjectError(
            "no DVC remote is set", "python -m mlops setup (a local folder), or: dvc remote add -d storage s3://…"
        )
    if "://" not in url and ".dvc/tmp" in Path(url).as_posix():
        # A relative url resolves inside the throw-away copy of `dvc exp run --temp`: the data would die with it.
        raise ProjectError(
            f"the DVC remote {url} is a throw-away folder", "python -m mlops setup, which writes an absolute url"
        )
    return str(url)

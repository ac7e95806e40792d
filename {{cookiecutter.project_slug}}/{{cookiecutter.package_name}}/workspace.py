"""Make a fresh clone ready to work: `make setup` calls it; calling it again changes nothing."""

import os
from pathlib import Path

from .errors import ProjectError
from .settings import load_platform

STORAGE = "dvc-storage"  # git-ignored folder that stands in for the bucket


def set_up() -> list[str]:
    """Set what has no configuration yet to a local default.

    Returns:
        What is used, a line each.
    """
    from .tracking import server

    storage = _storage()
    if not load_platform().tracking_uri:
        server.client()
    return [f"DVC remote: {storage}", f"MLflow:     {server.tracking_uri()}"]


def _storage() -> str:
    """Point the DVC remote to a local folder when `.dvc/config` names none."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            raise ProjectError(".dvc/config names no default remote", "dvc remote add -d storage s3://…")
        if name in repo.config["remote"]:
            return str(repo.config["remote"][name]["url"])
        url = _storage_of_origin(name) or (Path.cwd() / STORAGE).resolve().as_posix()
        # Absolute, since a relative one would resolve inside the throw-away folder of `dvc exp run --temp`.
        with repo.config.edit("local") as config:
            config["remote"][name] = {"url": url}
        return url


def _storage_of_origin(name: str) -> str:
    """Return the storage of the repository that this one was cloned from, when it is on this machine."""
    from dvc.repo import Repo

    from .tracking.git import git, remote_url

    origin = Path(remote_url(Path()).removeprefix("file://") or os.devnull) / git("rev-parse", "--show-prefix")
    if not (origin / ".dvc").is_dir():
        return ""
    with Repo(str(origin)) as repo:
        return str(repo.config["remote"].get(name, {}).get("url", ""))

"""Set up a fresh clone: `make setup` calls it; calling it again changes nothing."""

import os
from pathlib import Path
from urllib.parse import unquote

from .config import load_platform
from .errors import ProjectError
from .tracking import dvc_remote, mlflow_client
from .tracking.git import git, remote_url


def set_up() -> list[str]:
    """Set a local default for the DVC remote and MLflow, where none is configured; return what is used, in lines."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        remotes, name = repo.config["remote"], repo.config["core"].get("remote")
        if not name:
            fix = f"dvc config core.remote {next(iter(remotes), 'storage')}, then the same command"
            raise ProjectError(".dvc/config names no default remote", fix)
        if name in remotes:
            storage = str(remotes[name]["url"])
        else:  # in a folder that Git ignores, in place of the bucket
            storage = _storage_of_origin(name) or (Path.cwd() / "dvc-storage").resolve().as_posix()
            local = Path(repo.config.files["local"])
            dvc_remote.write_config(local, {f'remote "{name}"': {"url": dvc_remote.config_url(storage, local)}})
    if not load_platform().tracking_uri:
        mlflow_client.client()
    lines = [f"DVC remote: {storage}", f"MLflow:     {mlflow_client.tracking_uri()}"]
    texts = {  # DVC writes the configuration of an experiment's copy in ASCII
        "the project's path": os.getcwd(),
        "the DVC remote's address": storage,
        "the names and addresses in .git/config": git("config", "--local", "--list"),
    }
    if named := ", ".join(name for name, text in texts.items() if not text.isascii()):
        lines.append(
            f"Note:       dvc exp run --temp and --queue fail in this clone: DVC copies {named}, and can write "
            "ASCII only. Plain dvc exp run works; for the others, clone to a path in ASCII, and give names with "
            "git config --global"
        )
    return lines


def _storage_of_origin(name: str) -> str:
    """Return the storage of the repository that this one was cloned from, when it is on this machine."""
    from dvc.repo import Repo

    address = remote_url(Path())
    if address.startswith("file://"):
        address = unquote(address.removeprefix("file://"))
    origin = Path(address or os.devnull) / git("rev-parse", "--show-prefix")
    if not (origin / ".dvc").is_dir():
        return ""
    with Repo(str(origin)) as repo:
        return str(repo.config["remote"].get(name, {}).get("url", ""))

"""What a job is told of the DVC remote: where it is, never who may enter."""

import os
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..tracking import dvc_remote
from ..tracking.git import without_credentials

S3 = "s3://"
PUBLIC = """
    region endpointurl use_ssl ssl_verify read_timeout connect_timeout max_concurrent_requests listobjects acl
    allow_anonymous_login sse sse_kms_key_id
"""


def options() -> dict[str, Any]:
    """Return the options of the default remote as DVC has them here, with its `name`, and secrets among them.

    Raises:
        ProjectError: There is none, or it is of a kind that jobs don't know.
    """
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        url, name = dvc_remote.url(repo), repo.config["core"]["remote"]
        if "://" in url and not url.startswith(S3):
            raise ProjectError(
                f"a job has no way to the DVC remote {without_credentials(url)}: it knows S3 and folders",
                "dvc remote add -d -f storage s3://…, or run the stage here: RUN_ON=local",
            )
        return {**repo.config["remote"][name], "url": url, "name": name}


def public() -> dict[str, str]:
    """Return those that a job may know, as texts.

    Raises:
        ProjectError: There is no remote, or an address has credentials in it.
    """
    found = options()
    told = {key: str(found[key]) for key in ("name", "url", *PUBLIC.split()) if key in found}
    for key, value in told.items():
        if without_credentials(value) != value:
            raise ProjectError(
                f"the DVC remote's {key} has credentials in it, which do not travel to a job",
                f"dvc remote modify {told['name']} {key} <without them>",
            )
    return told


def folder(told: dict[str, str]) -> Path | None:
    """Return the remote when it is a folder of this machine."""
    return None if "://" in told["url"] else Path(told["url"])

"""What a job is told of the DVC remote: where it is, never who may enter."""

import os
from typing import Any

from ..errors import ProjectError
from ..tracking import storage
from ..tracking.git import without_credentials

PUBLIC = """
    region endpointurl use_ssl ssl_verify read_timeout connect_timeout max_concurrent_requests listobjects acl
    allow_anonymous_login sse sse_kms_key_id
"""


def options() -> dict[str, Any]:
    """Return the options of the default remote as DVC has them here, with `name`, and secrets among them.

    Raises:
        ProjectError: There is none.
    """
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        url, name = storage.url(repo), repo.config["core"]["remote"]
        return {**repo.config["remote"][name], "url": url, "name": name}


def public() -> dict[str, str]:
    """Return those that a job may know, as texts.

    Raises:
        ProjectError: There is no remote, or its address has credentials in it.
    """
    told = options()
    if without_credentials(told["url"]) != told["url"]:
        raise ProjectError(
            "the address of the DVC remote has credentials in it, which do not travel to a job",
            "dvc remote modify storage url <without them>",
        )
    return {key: str(told[key]) for key in ("name", "url", *PUBLIC.split()) if key in told}

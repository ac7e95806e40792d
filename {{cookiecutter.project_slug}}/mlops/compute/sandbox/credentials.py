"""AWS credentials for a job, as SageMaker gives them: asked for at an address, never on disk.

Neither the environment of the job nor its folder holds them. Those that end are renewed, as long as ours are.
"""

import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ...errors import ProjectError
from ...tracking import mlflow_client
from ..transfer import S3

KEYS = ("access_key_id", "secret_access_key", "session_token")  # in DVC's configuration of a remote
FILES = {"credentialpath": "AWS_SHARED_CREDENTIALS_FILE", "configpath": "AWS_CONFIG_FILE"}  # options there, too
VALID = timedelta(minutes=20)  # AWS's clients ask again when a quarter of an hour is left

Ask = Callable[[], dict[str, str]]


def are_needed(url: str) -> bool:
    """Return whether a job with its data at `url` needs any."""
    return url.startswith(S3) or (mlflow_client.is_reachable() and mlflow_client.tracking_uri().startswith("arn:"))


def find(options: Mapping[str, Any]) -> Ask:
    """Find the credentials that DVC would use here for a remote in S3.

    Args:
        options: Of the remote, in DVC's configuration.

    Returns:
        A function that gives those of the moment.

    Raises:
        ProjectError: There are none.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    key, secret, token = (options.get(name) for name in KEYS)
    if key and secret:
        return lambda: _named(key, secret, token)
    for option in FILES.keys() & options.keys():
        os.environ.setdefault(FILES[option], options[option])  # what DVC does
    try:
        found = boto3.Session(profile_name=options.get("profile")).get_credentials()
    except BotoCoreError as error:
        raise ProjectError(f"no AWS credentials: {error}", "aws configure, or AWS_PROFILE=<a profile>") from error
    if found is None:
        raise ProjectError("there are no AWS credentials for the job", "aws configure, or AWS_PROFILE=<a profile>")

    def ask() -> dict[str, str]:
        now = found.get_frozen_credentials()
        return _named(now.access_key, now.secret_key, now.token)

    return ask


def _named(key: str, secret: str, token: str | None) -> dict[str, str]:
    return {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token or ""}


def serve(ask: Ask) -> dict[str, str]:
    """Answer for as long as this process lives, on this machine only.

    Returns:
        The environment variables by which AWS's clients ask.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    token = secrets.token_urlsafe()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = secrets.compare_digest(self.headers.get("Authorization", ""), token)
            until = (datetime.now(UTC) + VALID).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = json.dumps({**ask(), "Expiration": until} if allowed else {"message": "not for you"}).encode()
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{listening.server_address[1]}/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
    }

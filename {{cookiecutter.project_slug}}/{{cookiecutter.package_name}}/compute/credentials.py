"""AWS credentials for a job in the sandbox, as SageMaker gives them: asked for at an address, never on disk.

Neither the environment of the job nor its folder holds them.
"""

import json
import os
import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..errors import ProjectError

KEYS = ("access_key_id", "secret_access_key", "session_token")  # in DVC's configuration of a remote
FILES = {"credentialpath": "AWS_SHARED_CREDENTIALS_FILE", "configpath": "AWS_CONFIG_FILE"}  # options there, too
VALID = timedelta(days=1)  # those that last are asked for again then


def find(remote: Mapping[str, Any]) -> dict[str, str]:
    """Return the credentials that DVC would use here for a remote in S3, as the job will be given them.

    Raises:
        ProjectError: There are none.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    for option in FILES.keys() & remote.keys():
        os.environ.setdefault(FILES[option], remote[option])  # what DVC does
    key, secret, token = (remote.get(name) for name in KEYS)
    if not (key and secret):
        try:
            found = boto3.Session(profile_name=remote.get("profile")).get_credentials()
        except BotoCoreError as error:
            raise ProjectError(f"no AWS credentials: {error}", "aws configure, or AWS_PROFILE=<a profile>") from error
        if found is None:
            raise ProjectError("there are no AWS credentials for the job", "aws configure, or AWS_PROFILE=<a profile>")
        frozen = found.get_frozen_credentials()  # one moment's: they may be renewed while we look
        key, secret, token = frozen.access_key, frozen.secret_key, frozen.token
    return {"AccessKeyId": str(key), "SecretAccessKey": str(secret), "Token": token or ""}


def serve(credentials: dict[str, str]) -> dict[str, str]:
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
            body = json.dumps({**credentials, "Expiration": until} if allowed else {"message": "not for you"}).encode()
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{server.server_address[1]}/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
    }

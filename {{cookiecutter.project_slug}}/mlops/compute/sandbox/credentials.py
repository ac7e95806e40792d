"""AWS credentials for a job, as containers get them: served at an address, never on disk or in the environment.

Credentials that expire are renewed as long as ours are.
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
from ...explain import explain
from ...tracking import mlflow_client
from ..transfer import S3

KEYS = ("access_key_id", "secret_access_key", "session_token")  # options of a remote in DVC's configuration
FILES = {"credentialpath": "AWS_SHARED_CREDENTIALS_FILE", "configpath": "AWS_CONFIG_FILE"}  # more of them
VALID = timedelta(minutes=20)  # AWS's clients ask again when a quarter of an hour is left


def are_needed(url: str) -> bool:
    """Return whether a job with its data at `url` needs AWS credentials."""
    return url.startswith(S3) or (mlflow_client.is_reachable() and mlflow_client.tracking_uri().startswith("arn:"))


def find(options: Mapping[str, Any]) -> Callable[[], dict[str, str]]:
    """Return a function that gives the credentials that DVC would use for a remote; raise ProjectError if none are."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    def ask() -> dict[str, str]:
        now = credentials.get_frozen_credentials()
        return {"AccessKeyId": now.access_key, "SecretAccessKey": now.secret_key, "Token": now.token or ""}

    explicit = {f"aws_{name}": options[name] for name in KEYS if options.get(name)}
    for option in FILES.keys() & options.keys():
        os.environ.setdefault(FILES[option], options[option])  # as DVC does
    by_profile = not {"aws_access_key_id", "aws_secret_access_key"} <= explicit.keys()
    try:
        session = boto3.Session(**({"profile_name": options.get("profile")} if by_profile else explicit))
        credentials = session.get_credentials()
        if credentials is None:
            raise ProjectError("there are no AWS credentials for the job", "aws configure, or AWS_PROFILE=<a profile>")
        ask()  # before the job starts: a login may have ended
    except (BotoCoreError, ClientError) as error:
        raise explain(error) or error from error
    return ask


def serve(ask: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Serve credentials to this machine while the process lives; return the variables by which AWS's clients ask.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    token = secrets.token_urlsafe()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = 403, {"message": "not for you"}
            if secrets.compare_digest(self.headers.get("Authorization", ""), token):
                until = (datetime.now(UTC) + VALID).strftime("%Y-%m-%dT%H:%M:%SZ")
                try:
                    status, answer = 200, {**ask(), "Expiration": until}
                except Exception as error:  # of each kind of login its own: it has ended since the job started
                    status, answer = 500, {"message": str(explain(error) or error)}
            body = json.dumps(answer).encode()
            self.send_response(status)
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

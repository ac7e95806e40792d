"""An S3 store on this machine."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from .mlflow import free_ports, until

KEY, SECRET = "AKIATEST", "a-secret-of-the-tests"
REGION = "eu-west-1"
BUCKET = "models"


class ObjectStore:
    """SeaweedFS with S3's interface: it checks signatures.

    Source: https://github.com/seaweedfs/seaweedfs/wiki/Amazon-S3-API
    """

    def __init__(self, folder: Path) -> None:
        """Start it, and make a bucket."""
        folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        parts = ("master", "volume", "filer", "s3")
        ports = dict(
            zip((f"-{part}.{kind}" for part in parts for kind in ("port", "port.grpc")), free_ports(8), strict=True)
        )
        self.url = f"http://127.0.0.1:{ports['-s3.port']}"
        command = ["weed", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3"]
        limits = ["-master.volumeSizeLimitMB=64", "-volume.max=20", f"-s3.config={config}"]
        numbers = [f"{option}={port}" for option, port in ports.items()]
        with (folder / "server.log").open("ab") as told:
            self._process = subprocess.Popen([*command, *limits, *numbers], cwd=folder, stdout=told, stderr=told)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
        )
        until(self._make_bucket, 60)

    def _make_bucket(self) -> bool:
        assert self._process.poll() is None, "weed server ended"
        try:
            self.client.create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    def environment(self, secret: str = SECRET) -> Mapping[str, str]:
        """Return the variables by which clients find it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.url,
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def names(self) -> Iterator[str]:
        """Give the names of its objects."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            yield from (found["Key"] for found in page.get("Contents", []))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

"""An S3 store on this machine."""

import json
import subprocess
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from .mlflow import free_ports, until
from .proxies import HOP, Proxy, Reply, Request

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
        command = [
            "weed",
            "-logtostderr",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={folder}",
            "-filer",
            "-s3",
        ]
        limits = ["-master.volumeSizeLimitMB=64", "-volume.max=100", f"-s3.config={config}"]
        # Services that nobody uses here, on fixed ports: a second store on this machine could not start.
        ports |= {"-s3.port.iceberg": 0, "-s3.port.lance": 0}
        numbers = [f"{option}={port}" for option, port in ports.items()]
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *limits, *numbers], cwd=folder, stdout=log, stderr=log)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
        )
        until(self._make_bucket)

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
            yield from (entry["Key"] for entry in page.get("Contents", []))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class StoreRequest:
    """A request that the store answered.

    Args:
        method: GET, PUT and so on; LIST for a list of a bucket's objects.
        key: Of the object; "" for none.
        status: Of HTTP.
        sent_bytes: Of the request's body.
        received_bytes: Of the reply's.
    """

    method: str
    key: str
    status: int
    sent_bytes: int
    received_bytes: int


class CountingProxy(Proxy):
    """One client's way to the store.

    Attributes:
        requests: What came through, in the order of the replies.
    """

    hop = HOP - {"host"}  # a part of the signature

    def __init__(self, upstream: str) -> None:
        """Listen on a free port."""
        self.requests: list[StoreRequest] = []
        super().__init__(upstream)

    def handle(self, request: Request) -> Reply | None:
        """Pass a request on, and write it down."""
        reply = self.forward(request)
        if reply:
            key = urllib.parse.unquote(urllib.parse.urlsplit(request.target).path).removeprefix(f"/{BUCKET}").strip("/")
            method = "LIST" if request.method == "GET" and not key else request.method
            self.requests.append(StoreRequest(method, key, reply.status, len(request.body), len(reply.body)))
        return reply

    def traffic(self) -> "Traffic":
        """Return what came through until now."""
        return Traffic(tuple(self.requests))


@dataclass(frozen=True)
class Traffic:
    """What one client asked of the store."""

    requests: tuple[StoreRequest, ...]

    def objects(self, method: str) -> Counter[str]:
        """Return how often each object was asked for in this way, and given or taken."""
        return Counter(
            request.key for request in self.requests if request.method == method and request.status in (200, 206)
        )

    def summary(self) -> str:
        """Return the number of requests of each kind, and what they moved."""
        kinds = Counter(request.method for request in self.requests)
        up, down = (
            sum(request.sent_bytes for request in self.requests),
            sum(request.received_bytes for request in self.requests),
        )
        return f"{dict(sorted(kinds.items()))}, {up / 1e6:.2f} MB up, {down / 1e6:.2f} MB down"

"""An AWS on this machine: S3, SageMaker's jobs, and MLflow behind SageMaker's door."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from ..servers.mlflow import MlflowServer, until
from ..servers.s3 import BUCKET, KEY, REGION, SECRET, ObjectStore
from ..servers.sagemaker import SigV4Proxy
from .door import S3Door
from .emulator.container import Image
from .emulator.credentials import ACCOUNT, Credentials
from .emulator.faults import Faults
from .emulator.jobs import Job
from .emulator.server import Server

ROLE = f"arn:aws:iam::{ACCOUNT}:role/sagemaker-jobs"
APP = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-app/app-SANDBOX"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/training:1"
FRAMEWORKS = "763104351884"  # the account of AWS's own images
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


class Bed:
    """All of it, started.

    Args:
        folder: For files of the servers and the jobs.
        python: What runs in the containers, whatever their image.
        grace_s: Between SIGTERM and SIGKILL.
        hidden: Folders of this machine that jobs do not see.

    Attributes:
        store: S3.
        door: The way to it, for everybody.
        server: SageMaker and the rest.
        credentials: Who may ask.
        network: Variables by which jobs find all of it.
    """

    def __init__(
        self,
        folder: Path,
        python: Path = Path(sys.executable),
        grace_s: float = 20.0,
        hidden: Iterable[Path] = (),
    ) -> None:
        """Start it."""
        self.credentials = Credentials(KEY, SECRET)
        self.store = ObjectStore(folder / "s3")
        self.door = S3Door(self.store.url, self.credentials)
        self.network = {"AWS_ENDPOINT_URL_S3": self.door.url, "MLFLOW_S3_ENDPOINT_URL": self.door.url}
        self._folder = folder
        self._clients: dict[str, Any] = {}
        self._mlflow: MlflowServer | None = None
        images = {rf"({ACCOUNT}|{FRAMEWORKS})\.dkr\.ecr\.": Image(python, {})}
        self.server = Server(
            folder / "jobs", images, self.credentials, self.store.client, self.network, hidden, grace_s
        )
        self.door.faults = self.server.faults
        self.furnish()
        self.calls.clear()

    def _make_role(self) -> None:
        name = ROLE.partition("role/")[2]
        self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))

    def _make_image(self) -> None:
        repository, _, tag = IMAGE.partition("/")[2].partition(":")
        self.client("ecr").create_repository(repositoryName=repository)
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}
        self.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest))

    def furnish(self) -> None:
        """Make role and image, unless they are there: whoever else uses moto in this process may empty it."""
        for make in (self._make_role, self._make_image):
            try:
                make()
            except ClientError as error:
                if "AlreadyExists" not in error.response["Error"]["Code"]:
                    raise

    def start_mlflow(self) -> str:
        """Start the MLflow App, unless it is started; return its ARN."""
        if not self._mlflow:
            store = f"s3://{BUCKET}/mlflow"
            self._mlflow = MlflowServer(self._folder / "mlflow", artifact_root=store)
            self._app = SigV4Proxy(self._mlflow.url, APP, self.credentials.secret_of)
            self.network["SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT"] = self._app.url
            self.server.apps.add(APP, "sandbox", store, ROLE)
        return APP

    @property
    def mlflow_url(self) -> str:
        """Return the address of the server behind the MLflow App, which asks nobody for a signature."""
        assert self._mlflow, "start_mlflow first"
        return self._mlflow.url

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return all jobs by their names."""
        return self.server.jobs

    @property
    def calls(self) -> Counter[str]:
        """Return how often each action was called."""
        return self.server.faults.calls

    @property
    def faults(self) -> Faults:
        """Return the switches for what goes wrong."""
        return self.server.faults

    def client(self, service: str, **config: Any) -> Any:
        """Return boto3's client of a service, for the caller.

        Args:
            service: Its name.
            config: Of botocore's.
        """
        key = f"{service} {config}"
        if key not in self._clients:
            url = self.door.url if service == "s3" else ""
            self._clients[key] = self.server.client(service, REGION, url, **config)
        return self._clients[key]

    def environment(self) -> dict[str, str]:
        """Return the variables by which a project on this machine finds all of it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.network,
        }

    def running(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs.values() if not job.is_over]

    def heal(self) -> None:
        """Let everything go right again, and the caller be logged in."""
        self.faults.heal()
        self.credentials.renew(self.credentials.key)

    def wait(self, name: str, state: Callable[[Job], bool] = lambda job: job.is_over) -> Job:
        """Wait for a job, and return it."""
        until(lambda: name in self.jobs and state(self.jobs[name]), poll_s=0.02)
        return self.jobs[name]

    def log_of(self, job: Job) -> list[str]:
        """Return what a job printed, of all its streams, as CloudWatch has it."""
        request = {"logGroupName": job.log_group, "logStreamNamePrefix": f"{job.name}/"}
        logs = self.server.logs
        if not logs.has_group(job.log_group):
            return []
        names = [stream["logStreamName"] for stream in logs.describe_streams(request)["logStreams"]]
        pages = [
            logs.events({"logGroupName": job.log_group, "logStreamName": name, "startFromHead": True}) for name in names
        ]
        return [event["message"] for page in pages for event in page["events"]]

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return the objects below a prefix in the bucket, by the rest of their names."""
        keys = [key for key in self.store.names() if key.startswith(prefix)]
        return {
            key.removeprefix(prefix): self.store.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in keys
        }

    def close(self) -> None:
        """End it."""
        self.server.close()
        if self._mlflow:
            self._app.close()
            self._mlflow.kill()
        self.door.close()
        self.store.close()

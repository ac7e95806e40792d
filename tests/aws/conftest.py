"""An account of AWS's on this machine: SageMaker that runs jobs, S3, and MLflow by ARN."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import BakedProject, isolate, new_project
from ..mlflow.sagemaker import SigV4Proxy
from ..projects import commit, edit
from ..servers.mlflow import MlflowServer
from ..servers.s3 import BUCKET, KEY, REGION, SECRET, ObjectStore
from .emulator.service import SageMaker

# Jobs are kept apart with namespaces, as Linux has them.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]

APP = f"arn:aws:sagemaker:{REGION}:123456789012:mlflow-app/app-TEST"
ROLE = "arn:aws:iam::123456789012:role/jobs"
IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/own:1"


@dataclass(frozen=True)
class Account:
    """What there is of AWS."""

    sagemaker: SageMaker
    store: ObjectStore
    door: SigV4Proxy
    mlflow: MlflowServer

    def environment(self) -> dict[str, str]:
        """Return the variables by which a laptop finds it."""
        return {**self.store.environment(), **self.sagemaker.environment()}


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[Account]:
    """One for all tests; its jobs find nothing of what the tests write."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in object_store.environment().items():
            monkeypatch.setenv(name, value)
        server = MlflowServer(tmp_path_factory.mktemp("mlflow"), artifact_root=f"s3://{BUCKET}/artifacts")
    door = SigV4Proxy(server.url, APP, KEY, SECRET)
    sagemaker = SageMaker(
        tmp_path_factory.mktemp("sagemaker"),
        object_store.url,
        {"/own:": Path(sys.executable).parent},
        [tmp_path_factory.getbasetemp()],
        {"SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": door.url, "MLFLOW_S3_ENDPOINT_URL": object_store.url},
        grace_s=20,
    )
    yield Account(sagemaker, object_store, door, server)
    sagemaker.close()
    door.close()
    server.kill()


def laptop(folder: Path, tracking_uri: str = "") -> BakedProject:
    """Generate a project for the account, with a place of its own in the bucket."""
    made = new_project(
        folder, s3_bucket=BUCKET, aws_region=REGION, sagemaker_role_arn=ROLE, mlflow_tracking_uri=tracking_uri
    )
    edit(made, ".dvc/config", f"s3://{BUCKET}", f"s3://{BUCKET}/{folder.name}")
    edit(made, "platform.yaml", "image: null", f"image: {IMAGE}")
    edit(made, "params.yaml", "epochs: 15", "epochs: 3")
    made.run("git", "config", "user.name", "Test")
    made.run("git", "config", "user.email", "test@example.org")
    commit(made, "An account")
    return made


def enter(monkeypatch: pytest.MonkeyPatch, account: Account, folder: Path) -> None:
    """Let this process, and what it starts, be on a laptop that knows the account."""
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))  # what DVC remembers of a remote outlives the store
    monkeypatch.setenv("RUN_ON", "sagemaker")


@pytest.fixture
def on_laptop(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The account, which this process now knows; what went wrong in it is right again."""
    enter(monkeypatch, account, tmp_path)
    account.sagemaker.heals()
    account.sagemaker.logs.delay_s, account.sagemaker.logs.lost = 0.0, False
    return account


@pytest.fixture(scope="session")
def fresh(account: Account, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project whose dataset was made here, and pushed; its next job is `manifest`. To copy."""
    folder = tmp_path_factory.mktemp("fresh")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        enter(monkeypatch, account, folder)
        made = laptop(folder)
        made.run("python", "-m", made.package, "setup")
        monkeypatch.setenv("RUN_ON", "local")
        made.run("dvc", "repro", "prepare")
        made.run("dvc", "push")
        commit(made, "A dataset")
    return made


@pytest.fixture
def project(fresh: BakedProject, on_laptop: Account, tmp_path: Path) -> BakedProject:
    """A copy of it with a place of its own in the bucket, to change."""
    path = tmp_path / fresh.path.name
    shutil.copytree(fresh.path, path, symlinks=True)
    copied = BakedProject(path, fresh.package)
    copied.run("dvc", "remote", "modify", "--local", "storage", "url", f"s3://{BUCKET}/{os.path.basename(tmp_path)}")
    return copied

"""An account of AWS's on this machine, and laptops with projects that work in it."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..conftest import BakedProject, isolate, new_project
from ..projects import commit, edit
from ..servers.s3 import BUCKET, REGION

if TYPE_CHECKING:
    from .bed import Bed

# Containers are made with namespaces, as Linux has them, and the S3 store is for Linux.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


@pytest.fixture(scope="session")
def aws_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Bed"]:
    """An account for all tests; its jobs find nothing of what the tests write."""
    from .bed import Bed

    started = Bed(tmp_path_factory.mktemp("aws"), hidden=[tmp_path_factory.getbasetemp()])
    yield started
    started.close()


@pytest.fixture
def aws(aws_account: "Bed") -> Iterator["Bed"]:
    """It, with nothing going wrong and no calls counted; the jobs that a test leaves are ended."""
    aws_account.furnish()
    aws_account.calls.clear()
    yield aws_account
    aws_account.heal()
    for job in aws_account.running():
        job.close()


def laptop(folder: Path, tracking_uri: str = "") -> BakedProject:
    """Generate a project for the account, with a place of its own in the bucket."""
    from .bed import IMAGE, ROLE

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


def enter(monkeypatch: pytest.MonkeyPatch, account: "Bed", folder: Path) -> None:
    """Let this process, and what it starts, be on a laptop that knows the account."""
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))  # what DVC remembers of a remote outlives the store
    monkeypatch.setenv("RUN_ON", "sagemaker")


@pytest.fixture
def on_laptop(aws: "Bed", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Bed":
    """The account, which this process now knows."""
    enter(monkeypatch, aws, tmp_path)
    return aws


@pytest.fixture(scope="session")
def fresh(aws_account: "Bed", tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project whose dataset was made here, and pushed; its next job is `manifest`. To copy."""
    folder = tmp_path_factory.mktemp("fresh")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        enter(monkeypatch, aws_account, folder)
        made = laptop(folder)
        made.run("python", "-m", "mlops", "setup")
        monkeypatch.setenv("RUN_ON", "local")
        made.run("dvc", "repro", "prepare")
        made.run("dvc", "push")
        commit(made, "A dataset")
    return made


@pytest.fixture
def project(fresh: BakedProject, on_laptop: "Bed", tmp_path: Path) -> BakedProject:
    """A copy of it with a place of its own in the bucket, to change."""
    path = tmp_path / fresh.path.name
    shutil.copytree(fresh.path, path, symlinks=True)
    copied = BakedProject(path, fresh.package)
    copied.run("dvc", "remote", "modify", "--local", "storage", "url", f"s3://{BUCKET}/{os.path.basename(tmp_path)}")
    return copied

"""The first run on SageMaker, as its page has it, in the account of the tests."""

import sys
from pathlib import Path
from typing import Any

import pytest
from moto.s3.models import FakeBucket

from ..conftest import Bake, BakedProject
from ..walkthroughs import walk
from .bed import Bed
from .cloudformation import CREATE, MlflowApp, complete
from .conftest import enter
from .test_image import docker

pytestmark = pytest.mark.slow


@pytest.fixture
def newcomer(bake: Bake, aws: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakedProject:
    """A fresh project of somebody who has credentials of the account, Docker, and has done `make setup`."""
    made = bake()
    enter(monkeypatch, aws, tmp_path)
    monkeypatch.delenv("RUN_ON")
    complete(monkeypatch)
    _deploy_for_real(monkeypatch, aws)
    docker(tmp_path, monkeypatch)
    environment = made.path / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    (environment / ".ready").touch()
    return made


def _deploy_for_real(monkeypatch: pytest.MonkeyPatch, aws: Bed) -> None:
    """Let a stack's bucket be one of the store, and its MLflow App the one that runs."""
    make_bucket = vars(FakeBucket)[CREATE].__func__

    def bucket(cls: Any, *arguments: Any, **more: Any) -> Any:
        made = make_bucket(cls, *arguments, **more)
        aws.store.client.create_bucket(Bucket=made.name)
        return made

    def app(cls: Any, resource_name: str, cloudformation_json: Any, *_: Any, **__: Any) -> Any:
        return cls(cloudformation_json["Properties"], aws.start_mlflow())

    monkeypatch.setattr(FakeBucket, CREATE, classmethod(bucket))
    monkeypatch.setattr(MlflowApp, CREATE, classmethod(app))


def test_first_run_as_written_gives_what_it_shows(
    newcomer: BakedProject, aws: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.start_mlflow()  # a real App is found by its ARN alone; the way to this one is a variable
    monkeypatch.setenv("SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", aws.network["SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT"])
    walk(newcomer, "docs/sagemaker-walkthrough.md")

"""Real servers for the tests of the mirror, one of each per session, and projects that train in no time."""

import itertools
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, isolate, new_project
from ..mlops import conftest as mlops_conftest  # noqa: F401 (it makes `mlops` importable)
from ..servers.mlflow import MlflowServer
from ..servers.proxies import FaultProxy
from ..servers.stores import PostgreSQL
from .trainings import Training

Start = Callable[..., Training]

# The servers are frozen, starved of disk space and run as another user as Linux does it.
collect_ignore = [] if sys.platform == "linux" else ["test_backends.py", "test_faults.py"]

# With sagemaker-mlflow installed it warns at each request to a server that has no ARN. Here; what users see is tested.
logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL."""
    started = PostgreSQL()
    yield started
    started.close()


@pytest.fixture(scope="session")
def team_server(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL) -> Iterator[MlflowServer]:
    """An MLflow server on PostgreSQL, as teams have it; for tests that don't hurt it."""
    started = MlflowServer(tmp_path_factory.mktemp("team"), postgresql.database("mlflow"))
    yield started
    started.kill()


@pytest.fixture
def proxy(team_server: MlflowServer) -> Iterator[FaultProxy]:
    """A bad network before it."""
    between = FaultProxy(team_server.url)
    yield between
    between.close()


@pytest.fixture
def client(team_server: MlflowServer) -> MlflowClient:
    """A client of the team's server."""
    return MlflowClient(team_server.url)


@pytest.fixture(scope="session")
def fragile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server on SQLite, to be killed and frozen; each test leaves it as it was."""
    started = MlflowServer(tmp_path_factory.mktemp("fragile"))
    yield started
    started.kill()


@pytest.fixture(scope="session")
def unused(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project in which nothing has run, to copy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        return new_project(tmp_path_factory.mktemp("unused"))


@pytest.fixture
def start(unused: BakedProject, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a training in a new copy of the project; what still runs at the end is killed."""
    numbers = itertools.count()
    started: list[Training] = []

    def start_one(uri: str, *arguments: str, **environment: str) -> Training:
        number = next(numbers)
        path = tmp_path / f"{number}" / unused.path.name
        shutil.copytree(unused.path, path)
        run = f"{abs(hash(tmp_path.name)) % 0xFFFF:04x}{number:02d}"
        started.append(Training(BakedProject(path, unused.package), run, uri, *arguments, **environment))
        return started[-1]

    yield start_one
    for training in started:
        if training.process.poll() is None:
            training.process.kill()
            training.process.wait()
        if training.is_followed():
            training.sidecar().kill()

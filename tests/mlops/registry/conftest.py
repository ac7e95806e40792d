"""A repository with one commit, and an MLflow of its own with three versions."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlops.tracking import mlflow_client

MODEL = "digits"
PLATFORM = f"project: {MODEL}\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"
PYPROJECT = '[tool.mlops]\npackage = "team"\nnumeric = []\n'

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git without anyone's settings: `git("status")`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("MLFLOW_TRACKING_URI", "RUN_ON", "DVC_ROOT", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")

    def call(*command: str) -> str:
        done = subprocess.run(("git", *command), capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return call


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git) -> str:
    """The commit of the repository, which is the working directory."""
    folder = tmp_path / "repository"
    (folder / "reports").mkdir(parents=True)
    monkeypatch.chdir(folder)
    Path("platform.yaml").write_text(PLATFORM, encoding="utf-8")
    Path("pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    Path("params.yaml").write_text("train: {}\n", encoding="utf-8")
    Path("reports/metrics.json").write_text('{"size": 1}', encoding="utf-8")
    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "-m", "Start")
    return git("rev-parse", "HEAD")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Path("platform.yaml").write_text(PLATFORM, encoding="utf-8")
        mlflow_client.client()
    return folder / mlflow_client.DATABASE


@pytest.fixture
def empty(head: str, database: Path) -> MlflowClient:
    """MLflow of the repository, with nothing in it."""
    shutil.copy(database, mlflow_client.DATABASE)
    return mlflow_client.client()


@pytest.fixture
def client(empty: MlflowClient, head: str) -> MlflowClient:
    """MLflow of the repository, with three versions that name its commit."""
    empty.create_registered_model(MODEL)
    register(empty, 3, {"result_commit": head})
    return empty


def register(client: MlflowClient, count: int, tags: dict[str, str], run_id: str | None = None) -> None:
    """Make versions; what matters here is their number and tags."""
    for _ in range(count):
        client.create_model_version(MODEL, "file:///nowhere", run_id=run_id, tags=tags)

"""A small real repository: Git, DVC, a pipeline of three stages that copy text. And a project with an MLflow."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlops import config
from mlops.tracking import mlflow_client
from mlops.tracking.run_files import FACTS

from ..conftest import Run as Run

PIPELINE = """\
stages:
  prepare:
    cmd: PYTHON step.py params.yaml data/dataset reports/prepare.json
    deps: [step.py]
    params: [x]
    outs: [data/dataset]
    metrics: [reports/prepare.json: {cache: false}]
  train:
    cmd: PYTHON step.py data/dataset models/model reports/metrics.json
    deps: [step.py, data/dataset, code]
    outs: [models/model]
    metrics: [reports/metrics.json: {cache: false}]
  register:
    cmd: PYTHON step.py models/model reports/version
    deps: [models/model]
    outs: [reports/version]
"""

STEP = """\
import pathlib, sys
source, *targets = map(pathlib.Path, sys.argv[1:])
for target in targets:
    target.parent.mkdir(exist_ok=True)
    target.write_text('{"size": 1}' if target.suffix == ".json" else source.read_text())
"""


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, to copy."""
    return tmp_path_factory.mktemp("prepared") / "repository"


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """The repository, with everything run once and nothing of the results committed; the working directory."""
    if not prepared.exists():
        prepare(prepared, monkeypatch, run)
    folder = tmp_path / "repository"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    remote = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {(tmp_path / 'storage').as_posix()}\n"
    Path(".dvc/config.local").write_text(remote, encoding="utf-8")
    return folder


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Make the repository, and run its pipeline."""
    (folder / "code").mkdir(parents=True)
    monkeypatch.chdir(folder)
    Path("dvc.yaml").write_text(PIPELINE.replace("PYTHON", Path(sys.executable).as_posix()), encoding="utf-8")
    Path("step.py").write_text(STEP, encoding="utf-8")
    Path("params.yaml").write_text("x: 0.1\n", encoding="utf-8")
    Path("pyproject.toml").write_text('[tool.mlops]\npackage = "code"\nnumeric = []\n', encoding="utf-8")
    Path("code/model.py").write_text("one = 1\n", encoding="utf-8")
    run("git", "init", "--quiet", "--initial-branch=main")
    run("dvc", "init", "--quiet")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "Start")
    run("dvc", "repro", "--quiet")


def commit_all(run: Run) -> str:
    """Commit everything, and return the commit."""
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "Results")
    return run("git", "rev-parse", "HEAD")


@pytest.fixture
def facts() -> dict[str, Any]:
    """What a run of the project `demo` is made from."""
    return {
        **dict.fromkeys((*FACTS, "git_remote_url", "dvc_remote_url", "cpu_capability", "dvc_exp_name"), "x"),
        "consent_excluded": 0,
        "environment_differences": [],
        "run": "abc123",
        "name": "gouty-fifo",
        "project": "demo",
        "user": "Ada",
        "git_branch": "main",
        "baseline_commit": "y",
        "dataset_path": "data/dataset",
        "parents": [],
        "started_at": "2026-01-01T00:00:00.000+00:00",
    }


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Path) -> MlflowClient:
    """The MLflow of a project with a manifest and no run yet; the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tables, mlflow_client.DATABASE)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(config.__file__).parents[1]))  # for the sidecar
    text = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(text, encoding="utf-8")
    Path("data").mkdir()
    Path("data/manifest.parquet").write_text("manifest x", encoding="utf-8")
    Path("reports").mkdir()
    Path("reports/manifest.json").write_text('{"sha256": ["x"]}', encoding="utf-8")
    return mlflow_client.client()

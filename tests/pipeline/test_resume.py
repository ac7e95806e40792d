"""`train` is killed half way and started again: it goes on, and ends as if nothing had been."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ..compute.jobs import jobs
from ..conftest import BakedProject
from ..projects import edit, read, runs
from ..servers.mlflow import until

EPOCHS = 40
FILES = (
    "models/model/model.safetensors",
    "models/model/model.json",
    "reports/metrics.json",
    "reports/train/metrics.json",
)
CURVES = ("train/loss", "val/loss", "val/acc", "lr")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills a group of processes")


@pytest.fixture
def folder(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where checkpoints are, for a training that takes a while."""
    edit(project, "params.yaml", "epochs: 15", f"epochs: {EPOCHS}")
    monkeypatch.setenv("CHECKPOINT_DIR", ".dvc/tmp/checkpoint")
    return project.path / ".dvc/tmp/checkpoint"


def start(project: BakedProject) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=project.path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def saved_twice(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait for two states, while the training goes on."""
    until(lambda: process.poll() is not None or len(list(folder.glob("[01].pt"))) == 2)
    assert process.poll() is None, "it ended too soon"


def content(project: BakedProject) -> dict[str, bytes]:
    """Return what must be the same to the byte: all but the times in curves."""
    curves = {name: project.path / f"reports/train/plots/metrics/{name}.tsv" for name in CURVES}
    return {
        **{name: (project.path / name).read_bytes() for name in FILES},
        **{name: re.sub(rb"^\d+\t", b"", path.read_bytes(), flags=re.MULTILINE) for name, path in curves.items()},
    }


@pytest.mark.slow
def test_killed_training_that_goes_on_ends_as_one_run(project: BakedProject, folder: Path) -> None:
    started = killed_and_trained_on(project, folder)
    ended = read(project, "reports/train/lineage.json")
    assert (ended["run"], ended["started_at"]) == (started["run"], started["started_at"])
    assert len(ended["resumed_at"]) == 1
    assert read(project, "reports/run.json") == {"run": started["run"]}
    log = project.run("git", "log", "--format=%b", "lineage").stdout
    assert log.count(f"run: {started['run']}") == 1
    assert len(runs(project)) == 2
    run = runs(project)[started["run"]]
    assert run.info.status == "FINISHED"
    client = MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    for name in CURVES:
        assert [point.step for point in client.get_metric_history(run.info.run_id, name)] == list(range(EPOCHS)), name


@pytest.mark.slow
def test_killed_training_that_goes_on_has_the_bytes_of_one_that_was_not_killed(
    project: BakedProject, folder: Path
) -> None:
    started = killed_and_trained_on(project, folder)
    went_on = content(project)
    project.run("dvc", "repro", "--force", "train")
    assert content(project) == went_on
    assert read(project, "reports/run.json")["run"] != started["run"]


def killed_and_trained_on(project: BakedProject, folder: Path) -> dict[str, Any]:
    """Kill a training half way and start it again; return the facts that the first one wrote."""
    process = start(project)
    saved_twice(process, folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    started: dict[str, Any] = read(project, "reports/train/lineage.json")
    trained = project.run("dvc", "repro", "train")
    assert "training resumes after epoch" in trained.stderr
    assert list(folder.iterdir()) == []
    return started


@pytest.mark.slow
def test_stopped_job_in_the_sandbox_goes_on_in_a_new_one(
    project: BakedProject, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "kept"
    environment = f"environment: {{CHECKPOINT_DIR: {checkpoints}}}"
    edit(project, "dvc.yaml", "job: {kind: training}", f"job: {{kind: training, {environment}}}")
    monkeypatch.setenv("RUN_ON", "sandbox")
    process = start(project)
    saved_twice(process, checkpoints)
    (name,) = jobs(project)
    project.run("python", "-m", "mlops", "jobs", "stop", name)
    process.wait()
    assert "training resumes after epoch" in project.run("dvc", "repro", "train").stdout
    assert list(checkpoints.iterdir()) == []
    all_runs = runs(project)
    last = all_runs[read(project, "reports/run.json")["run"]]
    first = all_runs[last.data.tags["resumed_from"]]
    assert (first.info.status, last.info.status) == ("KILLED", "FINISHED")
    assert first.info.start_time == last.info.start_time
    rows = (project.path / "reports/train/plots/metrics/val/acc.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split("\t")[1] for row in rows] == [str(epoch) for epoch in range(EPOCHS)]

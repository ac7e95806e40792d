"""Stages as jobs in the sandbox, however DVC was asked."""

import os
import re
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, new_project
from ..projects import (
    commit,
    edit,
    executed,
    experiments,
    metric,
    read,
    runs,
    wait_for_queue,
)
from ..servers.mlflow import MlflowServer
from .jobs import jobs


@pytest.fixture
def in_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages run as jobs."""
    monkeypatch.setenv("RUN_ON", "sandbox")


@pytest.mark.usefixtures("in_sandbox")
def test_settings_of_a_job_leave_every_stage_up_to_date(project: BakedProject) -> None:
    edit(
        project, "dvc.yaml", "job: {kind: training}", "job: {kind: training, instance_type: ml.p3.2xlarge, spot: true}"
    )
    edit(project, "platform.yaml", "volume_gb: 30", "volume_gb: 300")
    edit(project, "platform.yaml", "region: us-east-1", "region: eu-central-1")
    assert executed(project.run("dvc", "repro").stdout) == []
    assert jobs(project) == []


@pytest.mark.slow
@pytest.mark.usefixtures("in_sandbox")
def test_stages_here_and_in_the_sandbox_mix(project: BakedProject) -> None:
    edit(project, "dvc.yaml", "    meta:\n      job: {kind: processing}\n", "")  # of prepare and manifest
    edit(project, "params.yaml", "shards: 8", "shards: 4")
    assert executed(project.run("dvc", "repro").stdout) == ["prepare", "manifest", "train", "register"]
    assert [name.split("-")[-3] for name in jobs(project)] == ["train"]
    assert executed(project.run("dvc", "repro").stdout) == []
    assert len(runs(project)) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("in_sandbox")
def test_experiments_of_every_kind_run_in_the_sandbox(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 15", "epochs: 2")
    commit(project, "Short trainings")
    project.run("dvc", "exp", "run", "train", "-S", "train.max_lr=0.001")
    project.run("dvc", "exp", "run", "train", "--temp", "-S", "train.max_lr=0.002")
    for max_lr in ("0.004", "0.005", "0.006", "0.007"):
        project.run("dvc", "exp", "run", "train", "--queue", "-S", f"train.max_lr={max_lr}")
    project.run("dvc", "queue", "start", "-j", "4")
    wait_for_queue(project)
    shown, mirrored = experiments(project), runs(project)
    assert len(shown) == 6
    assert len(jobs(project)) == 6
    for name, experiment in shown.items():
        run = mirrored[metric(experiment, "run")]
        assert run.info.run_name == name == run.data.tags["dvc_exp_name"]
        assert run.data.metrics["test_acc"] == metric(experiment, "test_acc")
    table = project.run("make", "--old-file=setup", "show", f"VENV={sys.prefix}").stdout
    assert {f"0.00{digit}" for digit in (1, 2, 4, 5, 6, 7)} <= set(re.findall(r"0\.00\d\b", table))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the server of the tests is for Linux")
def test_register_as_a_job_needs_a_server_and_then_works(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project, "dvc.yaml", "stage register\n", "stage register\n    meta:\n      job: {kind: processing}\n")
    edit(project, "params.yaml", "max_lr: 0.003", "max_lr: 0.002")
    project.run("dvc", "repro", "train")
    monkeypatch.setenv("RUN_ON", "sandbox")
    refused = project.run("dvc", "repro", check=False)
    assert "register can't run as a job: it needs MLflow, which is a file on this machine" in refused.stderr
    assert "Fix: platform.yaml:tracking_uri: a server" in refused.stderr
    project.run("git", "tag", "-d", f"{project.path.name}@v1.0.0")  # of the version in the file
    server = MlflowServer(tmp_path / "server")
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        project.run("dvc", "repro")
        (version,) = MlflowClient(server.url).search_model_versions()
        facts = read(project, "reports/train/lineage.json")
        assert version.tags["run"] == facts["run"]
        assert version.tags["result_commit"] == read(project, "reports/register.json")["commit"][0]
        tagged = project.run("git", "rev-parse", f"{project.path.name}@v1.0.0^{{commit}}").stdout.strip()
        assert tagged == version.tags["result_commit"]
        last = project.run("git", "log", "--first-parent", "-1", "--format=%s", "lineage").stdout.strip()
        assert last == f"register {project.path.name} version 1"
    finally:
        server.kill()


@pytest.mark.slow
def test_rehearse_leaves_the_work_tree_and_tells_what_sagemaker_needs(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 15", "epochs: 2")
    before = {name: (project.path / name).read_bytes() for name in ("dvc.lock", "reports/run.json")}
    output = project.run("make", "--old-file=setup", "rehearse", f"VENV={sys.prefix}").stdout
    assert {name: (project.path / name).read_bytes() for name in before} == before
    assert experiments(project) == {}
    for stage, kind in (("prepare", "processing"), ("manifest", "processing"), ("train", "training")):
        assert re.search(rf"{stage} +{kind} on ml\.m5\.xlarge( +\d+\.\d){{6}}", output), output
    assert "platform.yaml:role_arn is not set" in output
    assert f"the DVC remote is {project.path}{os.sep}dvc-storage" in output
    assert "this machine for: register" in output


def test_run_on_is_refused_where_there_is_no_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = new_project(tmp_path, compute="local")
    assert not (project.path / "mlops/compute").exists()
    edit(project, "dvc.yaml", "stage prepare\n", "stage prepare\n    meta:\n      job: {kind: processing}\n")
    monkeypatch.setenv("RUN_ON", "sandbox")
    refused = project.run("python", "-m", "mlops", "stage", "prepare", check=False)
    assert refused.returncode == 2
    assert "no mlops/compute" in refused.stderr
    assert "jobs" not in project.run("python", "-m", "mlops", "--help").stdout


@pytest.mark.usefixtures("in_sandbox")
def test_stage_started_by_hand_is_refused(project: BakedProject) -> None:
    refused = project.run("python", "-m", "mlops", "stage", "manifest", check=False)
    assert "manifest was started by hand, and only DVC can start a job\nFix: dvc repro manifest" in refused.stderr

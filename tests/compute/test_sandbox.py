"""Stages as jobs in the sandbox: what comes back is what a local run leaves, however DVC was asked."""

import os
import re
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, isolate, new_project
from ..projects import (
    clone,
    commit,
    edit,
    executed,
    experiments,
    lock,
    metric,
    out_md5,
    read,
    runs,
    versions,
    wait_for_queue,
)
from ..servers.mlflow import MlflowServer, until
from .jobs import jobs, result

DATA = ("data/dataset", "data/manifest.parquet", "models/model")
JOBS = ("prepare", "manifest", "train")


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """The default project after its first `RUN_ON=sandbox dvc repro`, to look at and not to change."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        monkeypatch.setenv("RUN_ON", "sandbox")
        made = new_project(tmp_path_factory.mktemp("sandboxed"))
        made.run("python", "-m", "mlops", "setup")
        made.run("dvc", "repro")
    return made


@pytest.fixture
def in_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages run as jobs."""
    monkeypatch.setenv("RUN_ON", "sandbox")


def test_repro_in_sandbox_leaves_the_lock_of_the_jobs(sandboxed: BakedProject) -> None:
    assert [name.split("-")[-3] for name in jobs(sandboxed)] == list(JOBS)
    for name, stage in zip(jobs(sandboxed), JOBS, strict=True):
        assert result(sandboxed, name)["entry"] == lock(sandboxed)[stage]


def test_repro_in_sandbox_makes_the_bytes_of_a_local_run(sandboxed: BakedProject, reproduced: BakedProject) -> None:
    for name in DATA:
        assert out_md5(lock(sandboxed), name) == out_md5(lock(reproduced), name), name


def test_repro_in_sandbox_then_here_runs_nothing(sandboxed: BakedProject) -> None:
    assert executed(sandboxed.run("dvc", "repro").stdout) == []
    assert sandboxed.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_repro_in_sandbox_then_in_a_clone_runs_nothing(sandboxed: BakedProject, tmp_path: Path) -> None:
    sandboxed.run("git", "config", "user.name", "Test")
    sandboxed.run("git", "config", "user.email", "test@example.org")
    commit(sandboxed, "Results of jobs")
    colleague = clone(sandboxed, tmp_path / "colleague", "HEAD")
    assert executed(colleague.run("dvc", "repro").stdout) == []


def test_repro_in_sandbox_mlflow_has_the_run_once_its_results_are_here(sandboxed: BakedProject) -> None:
    (run,) = runs(sandboxed).values()
    facts = read(sandboxed, "reports/train/lineage.json")
    assert run.info.status == "FINISHED"
    assert run.data.tags["job"] == jobs(sandboxed)[-1]
    assert run.data.params["data_git_commit_id"] == facts["data_git_commit_id"]
    assert run.data.metrics["test_acc"] == read(sandboxed, "reports/metrics.json")["test_acc"]
    assert list(versions(sandboxed)) == [1]
    log = sandboxed.run("git", "log", "--first-parent", "--format=%s", "lineage").stdout.splitlines()
    assert log == [f"register {sandboxed.path.name} version 1", f"train {facts['run']}", "The log begins"]


def test_repro_in_sandbox_leaves_no_working_folder(sandboxed: BakedProject) -> None:
    expected = {"code.tar.gz", "ended.json", "job.json", "log", "out", "started.json", "supervised"}
    places = [sandboxed.path / ".dvc/tmp/jobs" / name for name in jobs(sandboxed)]
    until(lambda: all({path.name for path in place.iterdir()} == expected for place in places))


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
    assert "Fix: dvc repro manifest" in refused.stderr

"""A project whose backend, or whose whole compute folder, was deleted goes on with what is left."""

import re
import shutil
import sys

import pytest

from ..conftest import BakedProject
from ..projects import commit, edit, executed, lock, verbs
from .jobs import jobs


def mlops(project: BakedProject, *arguments: str) -> str:
    """Run the command line, and return what it printed."""
    return project.run("python", "-m", "mlops", *arguments).stdout


@pytest.fixture
def without_sagemaker(project: BakedProject) -> BakedProject:
    """A project with short trainings and the sandbox as its only backend."""
    shutil.rmtree(project.path / "mlops/compute/sagemaker")
    edit(project, "params.yaml", "epochs: 15", "epochs: 2")
    commit(project, "No SageMaker")
    return project


def test_without_sagemaker_the_sandbox_runs_jobs_and_its_verbs_work(
    without_sagemaker: BakedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = without_sagemaker
    assert re.findall(r"^  (\S+)", mlops(project, "jobs", "--help").partition("Commands:")[2], re.MULTILINE) == [
        *("attach", "clean", "dry-run", "list", "logs", "rehearse", "stop")
    ]
    assert "\n  aws" not in mlops(project, "--help")
    before = lock(project)
    monkeypatch.setenv("RUN_ON", "sandbox")
    project.run("dvc", "repro", "--force", "--single-item", "manifest")
    assert lock(project) == before
    (name,) = jobs(project)
    shown, logs, attached, stopped, refused = verbs(
        project, "jobs list", f"jobs logs {name}", f"jobs attach {name}", f"jobs stop {name}", "jobs dry-run manifest"
    )
    assert shown == (0, f"Completed   {name}\n")
    assert "records" in logs[1]
    assert "records" in attached[1]
    assert stopped == (0, "")
    assert "no backend of this project has a dry run\nFix: make rehearse" in refused[1]
    monkeypatch.setenv("RUN_ON", "sagemaker")
    error = project.run("dvc", "repro", "--force", "--single-item", "manifest", check=False).stderr
    assert "there is no backend 'sagemaker'" in error
    assert "local | sandbox" in error


def test_without_compute_stages_run_here(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(project.path / "mlops/compute")
    edit(project, "params.yaml", "fraction: 1.0", "fraction: 0.5")
    before = lock(project)
    assert "\n  jobs" not in mlops(project, "--help")
    monkeypatch.setenv("RUN_ON", "sandbox")
    assert "this project has no mlops/compute" in project.run("dvc", "repro", "prepare", check=False).stderr
    monkeypatch.delenv("RUN_ON")
    assert executed(project.run("dvc", "repro", "manifest").stdout) == ["prepare", "manifest"]
    assert lock(project)["manifest"] != before["manifest"]


@pytest.mark.slow
def test_without_sagemaker_a_rehearsal_runs_all_jobs(without_sagemaker: BakedProject) -> None:
    report = without_sagemaker.run("make", "--old-file=setup", "rehearse", f"VENV={sys.prefix}").stdout
    for stage, kind in (("prepare", "processing"), ("manifest", "processing"), ("train", "training")):
        assert re.search(rf"{stage} +{kind} on ml\.m5\.xlarge( +\d+\.\d){{6}}", report), report
    assert "this machine for: register" in report

"""Ctrl-C, once and twice, at each moment."""

import signal

import pytest

from ...conftest import BakedProject
from ...projects import edit
from ...servers.mlflow import until
from .launches import CURVE, jobs, lock, repro, started


@pytest.mark.slow
def test_ctrl_c_stops_the_training_of_a_job_which_is_recorded_as_killed(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 2", "epochs: 100000")
    project.run("dvc", "repro", "manifest")
    before = lock(project)
    launch = repro(project, "train")
    job = started(project, "train")
    until(lambda: list(job.path.glob(CURVE)), poll_s=0.02)
    launch.signal(signal.SIGINT)
    output = launch.fail()
    assert "Interrupted" in output
    assert job.state() == "Stopped"
    assert job.read("work/reports/train/lineage.json")["status"] == "KILLED"
    assert lock(project) == before


@pytest.mark.slow
def test_second_ctrl_c_leaves_the_job_to_itself_while_it_stops(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 2", "epochs: 100000")
    project.run("dvc", "repro", "manifest")
    launch = repro(project, "train")
    job = started(project, "train")
    until(lambda: list(job.path.glob(CURVE)), poll_s=0.02)
    frozen = job.processes()
    for process in frozen:
        process.suspend()
    launch.signal(signal.SIGINT)
    until(lambda: "Stopping job" in launch.output(), poll_s=0.02)
    launch.signal(signal.SIGINT)
    assert f"Job {job.path.name} goes on stopping by itself" in launch.fail()
    for process in frozen:
        process.resume()
    until(job.has_ended)
    assert job.state() == "Stopped"


@pytest.mark.slow
def test_ctrl_c_while_a_job_starts_leaves_nothing_running(project: BakedProject, expected: bytes) -> None:
    launch = repro(project, "manifest")
    until(lambda: any((job.path / "log").exists() for job in jobs(project)), poll_s=0.01)
    launch.signal(signal.SIGINT)
    assert "Interrupted" in launch.fail()
    (job,) = jobs(project)
    until(lambda: not job.is_supervised())
    assert not job.has_ended() or job.state() == "Stopped"
    repro(project, "manifest").succeed()
    assert lock(project) == expected

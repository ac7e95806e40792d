"""Launchers and jobs that are killed: the same command then gives one result, and does nothing twice."""

import pytest

from ...conftest import BakedProject
from ...projects import edit, read, runs
from ...servers.mlflow import PATIENCE_S, until
from .launches import CURVE, die, jobs, lock, repro, started, trainings
from .network import Network

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("mlops.compute.sandbox.backend:Sandbox.start", id="prepared"),
        pytest.param("mlops.compute.sandbox.backend:time.sleep", id="starting"),
        pytest.param("mlops.compute.sandbox.backend:Sandbox.follow", id="started"),
    ],
)
def test_launcher_killed_before_the_jobs_end_is_made_up_for_by_the_next(
    project: BakedProject, expected: bytes, place: str
) -> None:
    before = lock(project)
    die(project, place, "manifest")
    assert lock(project) == before
    repro(project, "manifest").succeed()
    assert lock(project) == expected
    assert len(jobs(project)) == 1


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("mlops.compute.results:apply_results", id="before"),
        pytest.param("mlops.compute.results:_fetch", id="checked"),
        pytest.param("mlops.compute.results:_unpack", id="fetched"),
        pytest.param("dvc.output:Output.checkout", id="unpacked"),
        pytest.param("mlops.compute.results:check", id="checked out"),
        pytest.param("dvc.dvcfile:Lockfile.dump_stages", id="before dvc.lock"),
    ],
)
def test_launcher_killed_while_it_takes_over_leaves_that_to_the_next(
    left: BakedProject, expected: bytes, place: str
) -> None:
    before = lock(left)
    die(left, place, "manifest")
    assert lock(left) == before
    repro(left, "manifest").succeed()
    assert lock(left) == expected
    assert len(jobs(left)) == 1


def test_launcher_killed_while_it_pushes_deps_or_its_job_pushes_outs_pushes_nothing_twice(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    network.hold(lambda request: request.method == "PUT" and len(network.writes) >= 3)
    launch = repro(s3_project, "manifest")
    assert network.holding.wait(PATIENCE_S)
    launch.kill()
    network.release()
    assert jobs(s3_project) == []
    network.hold(lambda request: request.method == "PUT" and any(job.has_started() for job in jobs(s3_project)))
    launch = repro(s3_project, "manifest")
    assert network.holding.wait(PATIENCE_S)
    launch.kill()
    network.release()
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 1
    assert set(network.writes.values()) == {1}


def test_launcher_of_a_training_killed_again_and_again_trains_once(project: BakedProject) -> None:
    project.run("dvc", "repro", "manifest")
    before = lock(project)
    for place in ("mlops.compute.sandbox.backend:Sandbox.start", "mlops.compute.sandbox.backend:time.sleep"):
        die(project, place, "train")
    launch = repro(project, "train")
    job = started(project, "train")
    until(lambda: job.does("stage train") or job.has_ended(), poll_s=0.1)
    launch.kill()
    for place in (
        "mlops.compute.results:apply_results",
        "mlops.compute.submit:_upload",
        "dvc.stage:PipelineStage.save",
    ):
        die(project, place, "train")
        assert lock(project) == before
    repro(project, "train").succeed()
    assert len(jobs(project, "train")) == len(trainings(project)) == 1
    assert set(runs(project)) == {read(project, "reports/run.json")["run"]}
    assert "didn't change" in project.run("dvc", "repro", "train").stdout


@pytest.mark.parametrize(
    ("words", "supervisor"),
    [
        pytest.param("jobs run", False, id="at its start"),
        pytest.param("jobs run", True, id="at its start, with its supervisor"),
        pytest.param("stage manifest", False, id="during the stage"),
        pytest.param("stage manifest", True, id="during the stage, with its supervisor"),
    ],
)
def test_job_killed_is_told_and_the_next_is_a_new_one(
    project: BakedProject, expected: bytes, words: str, supervisor: bool
) -> None:
    before = lock(project)
    launch = repro(project, "manifest")
    job = started(project)
    until(lambda: job.does(words), poll_s=0.1)
    job.kill(supervisor)
    output = launch.fail()
    assert ("it and its supervisor were killed" if supervisor else "it was killed") in output
    assert (
        f"Fix: correct that, then the same command: it starts a new job. What this job left is in {job.path}" in output
    )
    assert lock(project) == before
    repro(project, "manifest").succeed()
    assert lock(project) == expected
    assert len(jobs(project)) == 2


def test_job_killed_with_its_supervisor_while_it_pushes_is_made_up_for_by_a_new_one(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    network.hold(lambda request: request.method == "PUT" and any(job.has_started() for job in jobs(s3_project)))
    launch = repro(s3_project, "manifest")
    assert network.holding.wait(PATIENCE_S)
    jobs(s3_project)[0].kill(supervisor=True)
    network.release()
    launch.fail()
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 2


def test_job_whose_first_process_is_killed_leaves_no_training_behind(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 2", "epochs: 100000")
    project.run("dvc", "repro", "manifest")
    launch = repro(project, "train")
    job = started(project, "train")
    until(lambda: list(job.path.glob(CURVE)), poll_s=0.02)
    job.does("jobs run")[0].kill()
    assert "it was killed" in launch.fail()
    assert job.processes() == []

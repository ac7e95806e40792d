"""A DVC remote that is away at each point of a job, or that lost something."""

import signal

import pytest

from ...conftest import BakedProject
from ...projects import edit, out_md5
from ...servers.mlflow import until
from ...servers.proxies import Request
from .launches import die, jobs, lock, repro, started
from .network import Network


@pytest.mark.slow
def test_remote_away_while_deps_are_pushed_starts_no_job(project: BakedProject, expected: bytes) -> None:
    storage, before = project.path / "dvc-storage", lock(project)
    storage.write_text("not a folder", encoding="utf-8")
    assert "does not take the data" in repro(project, "manifest").fail()
    assert lock(project) == before
    assert not any(job.has_started() for job in jobs(project))
    storage.unlink()
    repro(project, "manifest").succeed()
    assert lock(project) == expected
    assert len(jobs(project)) == 1


@pytest.mark.slow
def test_job_that_could_not_be_started_has_the_remote_of_the_next_launcher(
    project: BakedProject, expected: bytes
) -> None:
    die(project, "mlops.compute.sandbox.backend:Sandbox.start", "manifest")
    project.run("dvc", "remote", "modify", "--local", "storage", "url", str(project.path.parent / "elsewhere"))
    repro(project, "manifest").succeed()
    assert lock(project) == expected
    (job,) = [job for job in jobs(project) if job.has_started()]
    assert job.read("job.json")["remote"]["url"] == str(project.path.parent / "elsewhere")


@pytest.mark.slow
def test_remote_away_while_the_job_pulls_fails_with_the_fix_and_the_next_is_a_new_job(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    before = lock(s3_project)
    network.is_away = lambda _: any(job.has_started() for job in jobs(s3_project))
    output = repro(s3_project, "manifest").fail()
    assert "the DVC remote does not give what manifest reads (data/dataset)" in output
    assert lock(s3_project) == before
    network.is_away = lambda _: False
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 2


@pytest.mark.slow
def test_remote_away_while_the_job_pushes_is_waited_for(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    def is_away(request: Request) -> bool:
        return request.method == "PUT" and any(
            job.has_started() and "Trying again" not in job.log() for job in jobs(s3_project)
        )

    network.is_away = is_away
    output = repro(s3_project, "manifest").succeed()
    assert output.count("the DVC remote does not take the outputs") == 1
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 1


@pytest.mark.slow
def test_remote_away_for_longer_than_patience_fails_the_job(s3_project: BakedProject, network: Network) -> None:
    before = lock(s3_project)
    edit(s3_project, "platform.yaml", "patience_s: 900", "patience_s: 2")
    network.is_away = lambda request: request.method == "PUT" and any(job.has_started() for job in jobs(s3_project))
    output = repro(s3_project, "manifest").fail()
    assert "the DVC remote did not take the outputs for 2 s" in output
    assert "platform.yaml:job.patience_s" in output
    assert lock(s3_project) == before
    assert [job.state() for job in jobs(s3_project)] == ["Failed"]


@pytest.mark.slow
def test_remote_away_while_results_are_taken_over_costs_no_second_job(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    before = lock(s3_project)
    network.is_away = lambda _: any(job.has_ended() for job in jobs(s3_project))
    output = repro(s3_project, "manifest").fail()
    assert "the outputs of manifest can't be fetched from the DVC remote" in output
    assert "the job is not run again" in output
    output = repro(s3_project, "manifest").fail()
    assert "the DVC remote does not say whether it has" in output
    assert lock(s3_project) == before
    network.is_away = lambda _: False
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 1


@pytest.mark.slow
def test_result_that_the_remote_lost_is_made_again(left: BakedProject, expected: bytes) -> None:
    left.run("dvc", "gc", "--workspace", "--cloud", "--force")  # no dvc.lock names what the job has made
    assert "the DVC remote lost" in repro(left, "manifest").succeed()
    assert lock(left) == expected
    assert len(jobs(left)) == 2


@pytest.mark.slow
def test_object_lost_while_it_is_taken_over_fails_and_leaves_dvc_lock(project: BakedProject) -> None:
    before = lock(project)
    launch = repro(project, "--allow-missing", "manifest")
    job = started(project)
    launch.signal(signal.SIGSTOP)
    until(job.has_ended)
    digest = out_md5({"manifest": job.read("out/result.json")["entry"]}, "data/manifest.parquet")
    (project.path / "dvc-storage/files/md5" / digest[:2] / digest[2:]).unlink()
    launch.signal(signal.SIGCONT)
    assert "can't be fetched from the DVC remote" in launch.fail()
    assert lock(project) == before

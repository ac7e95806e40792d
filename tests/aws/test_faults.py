"""What goes wrong around a SageMaker job, made to happen: there is one result, and nothing was paid twice."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ..compute.faults.launches import die, lock, repro
from ..conftest import BakedProject, copied
from ..projects import edit, executed, read
from ..servers.mlflow import PATIENCE_S, until
from ..servers.s3 import BUCKET, KEY, SECRET
from .bed import Bed
from .emulator.jobs import Job


def jobs(aws: Bed, since: set[str]) -> list[Job]:
    """Return the jobs that were not there before."""
    return [job for name, job in aws.jobs.items() if name not in since]


@pytest.fixture
def before(aws: Bed) -> set[str]:
    """The names of the jobs that are there."""
    return set(aws.jobs)


def started(aws: Bed, before: set[str]) -> Job:
    """Wait until a job is there and its command runs, and return it."""
    return until(
        lambda: next((job for job in jobs(aws, before) if job.history.secondary == "Training"), None), poll_s=0.02
    )


WAIT = """    import time

    import boto3

    print("the stage waits", flush=True)
    while not boto3.client("s3").list_objects_v2(Bucket="{}", Prefix="{}")["KeyCount"]:
        time.sleep(0.1)
"""


FULL = "mount -t tmpfs -o size=16k none {0}; head -c 64k /dev/zero > {0}/filler || true"


@pytest.fixture
def go_on(project: BakedProject, aws: Bed, tmp_path: Path) -> Callable[[], None]:
    """Let the stage `manifest` wait at its beginning; give the function that lets it go on."""
    name = f"go-on/{tmp_path.name}"
    begin(project, WAIT.format(BUCKET, name))
    return lambda: aws.store.client.put_object(Bucket=BUCKET, Key=name, Body=b"")


def waiting(aws: Bed, before: set[str]) -> Job:
    """Wait until the stage of a job waits, and return the job."""
    job = started(aws, before)
    until(lambda: "the stage waits" in aws.log_of(job), poll_s=0.02)
    return job


def begin(project: BakedProject, code: str) -> None:
    """Let the stage `manifest` begin with some code."""
    path = project.path / project.package / "stages/manifest.py"
    head, opened, rest = path.read_text(encoding="utf-8").partition('def main() -> None:\n    """')
    docstring, closed, body = rest.partition('"""\n')
    assert closed
    path.write_text(f"{head}{opened}{docstring}{closed}{code}{body}", encoding="utf-8", newline="\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "mlops.compute.sagemaker.backend:SageMaker.prepare",
        "mlops.compute.sagemaker.client:create",
        "mlops.compute.sagemaker.backend:SageMaker.follow",
        "mlops.compute.sagemaker.client:download",
        "mlops.compute.results:_unpack",
        "dvc.dvcfile:Lockfile.dump_stages",
    ],
    ids=["pushed", "prepared", "started", "ended", "fetched", "before dvc.lock"],
)
def test_launcher_killed_anywhere_is_made_up_for_by_the_next(
    project: BakedProject, aws: Bed, before: set[str], place: str
) -> None:
    unchanged = lock(project)
    die(project, place, "manifest")
    assert lock(project) == unchanged
    repro(project, "manifest").succeed()
    assert b"manifest:" in lock(project)
    assert len(jobs(aws, before)) == 1


def test_launcher_killed_finds_its_job_again_whose_results_are_those_of_a_local_run(
    project: BakedProject, aws: Bed, before: set[str], go_on: Callable[[], None], tmp_path: Path
) -> None:
    here = copied(project, tmp_path / "here")
    launch = repro(project, "manifest")
    job = waiting(aws, before)
    launch.kill()
    again = repro(project, "manifest")
    until(lambda: f"job {job.name} is at it already: following it" in again.output())
    go_on()
    output = again.succeed()
    assert output.count("the stage waits\n") == 1
    assert jobs(aws, before) == [job]
    contents = {"request": json.dumps(job.request).encode(), **aws.objects(tmp_path.name)}
    assert any(name.endswith("code.tar.gz") for name in contents)
    assert not [name for name, content in contents.items() if SECRET.encode() in content or KEY.encode() in content]
    repro(here, "manifest", RUN_ON="local").succeed()
    assert lock(project) == lock(here)
    assert executed(repro(project, "manifest", RUN_ON="local").succeed()) == []


@pytest.mark.slow
def test_launcher_killed_after_the_job_ended_takes_its_results_over(
    project: BakedProject, aws: Bed, before: set[str]
) -> None:
    launch = repro(project, "manifest")
    job = started(aws, before)
    launch.kill()
    assert aws.wait(job.name).status == "Completed"
    output = repro(project, "manifest").succeed()
    assert f"job {job.name} has done it already: taking over its results" in output
    assert jobs(aws, before) == [job]


@pytest.mark.slow
def test_two_launchers_share_one_job(
    project: BakedProject, aws: Bed, before: set[str], go_on: Callable[[], None], tmp_path: Path
) -> None:
    project.run("git", "commit", "--quiet", "-am", "Slower")
    project.run("git", "clone", "--quiet", str(project.path), str(tmp_path / "other"))
    other = BakedProject(tmp_path / "other", project.package)
    (other.path / ".dvc/config.local").write_bytes((project.path / ".dvc/config.local").read_bytes())
    project.run("dvc", "push")
    other.run("dvc", "pull", "--quiet", "prepare")
    launches = [repro(project, "manifest"), repro(other, "manifest")]
    until(lambda: all("the stage waits" in launch.output() for launch in launches))
    go_on()
    for launch in launches:
        launch.succeed()
    assert len(jobs(aws, before)) == 1
    assert lock(project) == lock(other)


@pytest.mark.slow
def test_ctrl_c_stops_the_job_and_a_second_one_detaches(project: BakedProject, aws: Bed, before: set[str]) -> None:
    edit(project, "params.yaml", "epochs: 3", "epochs: 100000")
    repro(project, "manifest").succeed()
    known = set(aws.jobs)
    launch = repro(project, "train")
    job = started(aws, known)
    until(lambda: any("MLflow gets run" in line for line in aws.log_of(job)))
    launch.signal(signal.SIGINT)
    output = launch.fail()
    assert f"Stopping job {job.name}; Ctrl-C again leaves it to itself." in output
    assert job.status == "Stopped"
    assert "train:" not in lock(project).decode()


@pytest.mark.usefixtures("go_on")
def test_ctrl_c_stops_a_processing_job_at_once(project: BakedProject, aws: Bed, before: set[str]) -> None:
    launch = repro(project, "manifest")
    job = waiting(aws, before)
    launch.signal(signal.SIGINT)
    launch.fail()
    assert job.status == "Stopped"
    assert any(line.startswith("Interrupted:") for line in aws.log_of(job)), "it was killed"


@pytest.mark.slow
@pytest.mark.usefixtures("go_on")
def test_second_ctrl_c_leaves_the_job_to_itself(project: BakedProject, aws: Bed, before: set[str]) -> None:
    begin(project, "    import signal\n\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    launch = repro(project, "manifest")
    job = waiting(aws, before)
    launch.signal(signal.SIGINT)
    until(lambda: "Ctrl-C again leaves it to itself" in launch.output())
    launch.signal(signal.SIGINT)
    assert f"Job {job.name} goes on stopping by itself." in launch.fail()
    assert not job.is_over


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["throttle", "drop"])
def test_api_that_does_not_answer_is_waited_for(
    project: BakedProject, aws: Bed, before: set[str], go_on: Callable[[], None], fault: str
) -> None:
    launch = repro(project, "manifest")
    job = started(aws, before)
    lost = getattr(aws.faults, fault)(times=6)
    until(lambda: lost.hits == lost.times)
    go_on()
    output = launch.succeed()
    assert output.count("The job goes on; trying again") <= 3
    assert output.count("the stage waits\n") == 1
    assert "1797 records of 14 subjects" in output
    assert jobs(aws, before) == [job]


@pytest.mark.slow
def test_credentials_that_expire_are_told_and_the_job_goes_on(
    project: BakedProject, aws: Bed, before: set[str], go_on: Callable[[], None]
) -> None:
    launch = repro(project, "manifest")
    job = started(aws, before)
    aws.credentials.expire(aws.credentials.key)
    output = launch.fail()
    assert "the AWS credentials have expired" in output
    assert "Fix: log in again (aws sso login), then the same command" in output
    aws.heal()
    go_on()
    repro(project, "manifest").succeed()
    assert jobs(aws, before) == [job]


@pytest.mark.slow
def test_log_that_may_not_be_read_keeps_nobody_from_the_results(
    project: BakedProject, aws: Bed, before: set[str]
) -> None:
    aws.faults.denied.add("logs:DescribeLogStreams")
    output = repro(project, "manifest").succeed()
    assert "the log can't be read: AWS refuses" in output


@pytest.mark.slow
def test_log_that_comes_late_is_shown_whole(project: BakedProject, aws: Bed, before: set[str]) -> None:
    aws.faults.log_delay_s = 1.5
    output = repro(project, "manifest").succeed()
    assert "1797 records of 14 subjects" in output


@pytest.mark.slow
def test_no_capacity_is_told_and_the_next_attempt_runs(project: BakedProject, aws: Bed, before: set[str]) -> None:
    aws.faults.capacity = "none"
    output = repro(project, "manifest").fail()
    aws.heal()
    assert "CapacityError: Unable to provision" in output
    assert "Fix: the same command, later; or another instance_type in meta.job" in output
    repro(project, "manifest").succeed()
    first, second = jobs(aws, before)
    assert (first.status, second.status) == ("Failed", "Completed")
    assert second.name == f"{first.name.removesuffix('-1')}-2"


@pytest.mark.slow
@pytest.mark.usefixtures("go_on")
def test_job_that_is_killed_is_told_with_its_last_lines(project: BakedProject, aws: Bed, before: set[str]) -> None:
    launch = repro(project, "manifest")
    job = waiting(aws, before)
    job.kill()
    output = launch.fail()
    assert "exit code: 137" in output
    assert "| the stage waits" in output
    assert "it ran out of memory" in output
    assert (
        f"https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1#/processing-jobs/{job.name}"
        in output
    )
    assert "manifest:" not in lock(project).decode()


@pytest.mark.slow
@pytest.mark.usefixtures("go_on")
def test_job_over_its_time_is_told(project: BakedProject) -> None:
    edit(
        project,
        "dvc.yaml",
        "stage manifest\n    meta:\n      job: {kind: processing",
        "stage manifest\n    meta:\n      job: {kind: training, max_runtime_s: 2",
    )
    output = repro(project, "manifest").fail()
    assert "MaxRuntimeExceeded" in output
    assert "a larger max_runtime_s in meta.job" in output


def test_stage_that_fails_is_told_by_its_own_reason(project: BakedProject, aws: Bed, before: set[str]) -> None:
    begin(project, "    raise ValueError('nonsense')\n")
    launch = repro(project, "manifest")
    assert launch.process.wait(PATIENCE_S) > 0
    assert "ValueError: nonsense" in launch.output()
    (job,) = jobs(aws, before)
    assert job.describe()["ExitMessage"].startswith("the stage manifest failed")
    assert f"job {job.name} failed: the stage manifest failed" in launch.output()


@pytest.mark.slow
def test_launchers_that_are_refused_say_whom_to_ask(project: BakedProject, aws: Bed, before: set[str]) -> None:
    aws.faults.denied.add("sagemaker:CreateProcessingJob")
    output = repro(project, "manifest").fail()
    assert "AWS refuses CreateProcessingJob: User: arn:aws:iam::" in output
    assert "jobs doctor" in output
    aws.heal()
    repro(project, "manifest").succeed()
    assert len(jobs(aws, before)) == 1


@pytest.mark.slow
def test_s3_that_is_busy_is_asked_again_here_and_in_the_job(project: BakedProject, aws: Bed, before: set[str]) -> None:
    aws.faults.slow_down = 3
    launch = repro(project, "manifest")
    job = started(aws, before)
    aws.faults.slow_down = 20
    launch.succeed()
    assert aws.faults.slow_down == 0
    assert jobs(aws, before) == [job]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "problem"),
    [("reports", "the stage manifest failed"), ("/opt/ml/processing/result", "a larger volume_gb in meta.job")],
    ids=["of the stage", "of the job"],
)
def test_full_disk_in_the_job_is_told_and_with_room_it_runs(
    project: BakedProject, aws: Bed, before: set[str], folder: str, problem: str
) -> None:
    unchanged = lock(project)
    begin(project, f"    import subprocess\n\n    subprocess.run('{FULL.format(folder)}', shell=True, check=True)\n")
    launch = repro(project, "manifest")
    output = launch.wait()
    assert launch.process.returncode > 0
    assert "No space left on device" in output
    assert problem in output
    assert lock(project) == unchanged
    project.run("git", "checkout", project.package)
    repro(project, "manifest").succeed()
    assert [job.status for job in jobs(aws, before)] == ["Failed", "Completed"]


@pytest.mark.slow
def test_spot_training_interrupted_twice_goes_on_and_makes_the_same(
    project: BakedProject, aws: Bed, before: set[str], tmp_path: Path
) -> None:
    repro(project, "manifest").succeed()
    edit(project, "params.yaml", "epochs: 3", "epochs: 60")
    edit(project, "dvc.yaml", "job: {kind: training}", "job: {kind: training, spot: true}")
    known = set(aws.jobs)
    launch = repro(project, "train")
    job = started(aws, known)
    checkpoints = f"{tmp_path.name}-jobs/checkpoints/{job.name}/"
    until(lambda: len(aws.objects(checkpoints)) == 2)
    job.interrupt()
    saved = aws.objects(checkpoints)
    until(lambda: any("training resumes after epoch" in line for line in aws.log_of(job)))
    until(lambda: aws.objects(checkpoints) != saved)
    job.interrupt()
    output = launch.succeed()
    assert jobs(aws, known) == [job]
    assert job.attempts == 3
    assert output.count("training resumes after epoch") == 2
    billed = job.describe()["BillableTimeInSeconds"]
    assert f"{billed} s to pay for on 1 x ml.m5.xlarge" in output
    model = project.path / "models/model/model.safetensors"
    went_on, run = model.read_bytes(), read(project, "reports/train/lineage.json")
    assert len(run["resumed_at"]) == 2
    repro(project, "train", "--force", RUN_ON="local").succeed()
    assert model.read_bytes() == went_on

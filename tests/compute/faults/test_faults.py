"""What goes wrong around a job: launcher, job, DVC remote and disks end in the middle of it.

Whatever happens, the same command then gives one result, nothing is done twice, and `dvc.lock` is never wrong.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from ...conftest import BakedProject
from ...projects import commit, edit, experiments, metric, out_md5, read, runs
from ...servers.mlflow import until
from ...servers.proxies import Request
from .launches import Launch, die, jobs, repro, started, trainings
from .network import Network

CURVE = "work/reports/train/plots/metrics/val/acc.tsv"  # in the folder of a job


def lock(project: BakedProject) -> bytes:
    return (project.path / "dvc.lock").read_bytes()


@pytest.mark.parametrize(
    "place",
    [".compute.launch:service.start", ".compute.sandbox.service:time.sleep", ".compute.launch:service.follow"],
    ids=["prepared", "starting", "started"],
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
        ".compute.adopt:adopt",
        ".compute.adopt:_fetch",
        ".compute.adopt:_unpack",
        "dvc.output:Output.checkout",
        ".compute.adopt:check",
        "dvc.dvcfile:Lockfile.dump_stages",
    ],
    ids=["before", "checked", "fetched", "unpacked", "checked out", "before dvc.lock"],
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


@pytest.mark.slow
def test_launcher_killed_while_it_pushes_deps_or_its_job_pushes_outs_pushes_nothing_twice(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    network.hold(lambda request: request.method == "PUT" and len(network.writes) >= 3)
    launch = repro(s3_project, "manifest")
    assert network.holding.wait(60)
    launch.kill()
    network.release()
    assert jobs(s3_project) == []
    network.hold(lambda request: request.method == "PUT" and any(job.has_started() for job in jobs(s3_project)))
    launch = repro(s3_project, "manifest")
    assert network.holding.wait(60)
    launch.kill()
    network.release()
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 1
    assert set(network.writes.values()) == {1}


def test_remote_away_while_the_job_pulls_fails_with_the_fix_and_the_next_is_a_new_job(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    before = lock(s3_project)
    network.is_away = lambda _: any(job.has_started() for job in jobs(s3_project))
    said = repro(s3_project, "manifest").fail()
    assert "the DVC remote does not give what manifest reads (data/dataset)" in said
    assert lock(s3_project) == before
    network.is_away = lambda _: False
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 2


def test_remote_away_while_the_job_pushes_is_waited_for(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    def is_away(request: Request) -> bool:
        return request.method == "PUT" and any(
            job.has_started() and "Trying again" not in job.log() for job in jobs(s3_project)
        )

    network.is_away = is_away
    said = repro(s3_project, "manifest").succeed()
    assert said.count("the DVC remote does not take the outputs") == 1
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 1


def test_remote_away_for_longer_than_patience_fails_the_job(s3_project: BakedProject, network: Network) -> None:
    before = lock(s3_project)
    edit(s3_project, "platform.yaml", "patience_s: 900", "patience_s: 2")
    network.is_away = lambda request: request.method == "PUT" and any(job.has_started() for job in jobs(s3_project))
    said = repro(s3_project, "manifest").fail()
    assert "the DVC remote did not take the outputs for 2 s" in said
    assert "platform.yaml:job.patience_s" in said
    assert lock(s3_project) == before
    assert [job.state() for job in jobs(s3_project)] == ["Failed"]


def test_remote_away_while_results_are_taken_over_costs_no_second_job(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    before = lock(s3_project)
    network.is_away = lambda _: any(job.has_ended() for job in jobs(s3_project))
    said = repro(s3_project, "manifest").fail()
    assert "the outputs of manifest can't be fetched from the DVC remote" in said
    assert "the job is not run again" in said
    said = repro(s3_project, "manifest").fail()
    assert "the DVC remote does not say whether it has" in said
    assert lock(s3_project) == before
    network.is_away = lambda _: False
    repro(s3_project, "manifest").succeed()
    assert lock(s3_project) == expected
    assert len(jobs(s3_project)) == 1


@pytest.mark.parametrize("supervisor", [False, True], ids=["job", "job and supervisor"])
@pytest.mark.parametrize("words", ["jobs run", "stage manifest"], ids=["at its start", "during the stage"])
def test_job_killed_is_told_and_the_next_is_a_new_one(
    project: BakedProject, expected: bytes, words: str, supervisor: bool
) -> None:
    before = lock(project)
    launch = repro(project, "manifest")
    job = started(project)
    until(lambda: job.does(words), poll_s=0.02)
    job.kill(supervisor)
    said = launch.fail()
    assert ("it and its supervisor were killed" if supervisor else "it was killed") in said
    assert lock(project) == before
    repro(project, "manifest").succeed()
    assert lock(project) == expected
    assert len(jobs(project)) == 2


def test_job_killed_with_its_supervisor_while_it_pushes_is_made_up_for_by_a_new_one(
    s3_project: BakedProject, network: Network, expected: bytes
) -> None:
    network.hold(lambda request: request.method == "PUT" and any(job.has_started() for job in jobs(s3_project)))
    launch = repro(s3_project, "manifest")
    assert network.holding.wait(60)
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


def test_job_that_could_not_be_started_has_the_remote_of_the_next_launcher(
    project: BakedProject, expected: bytes
) -> None:
    die(project, ".compute.launch:service.start", "manifest")
    project.run("dvc", "remote", "modify", "--local", "storage", "url", str(project.path.parent / "elsewhere"))
    repro(project, "manifest").succeed()
    assert lock(project) == expected
    (job,) = jobs(project)
    assert job.read("job.json")["remote"]["url"] == str(project.path.parent / "elsewhere")


def test_result_that_the_remote_lost_is_made_again(left: BakedProject, expected: bytes) -> None:
    left.run("dvc", "gc", "--workspace", "--cloud", "--force")  # no dvc.lock names what the job has made
    assert "the DVC remote lost" in repro(left, "manifest").succeed()
    assert lock(left) == expected
    assert len(jobs(left)) == 2


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


def _no_out(result: dict[str, Any]) -> None:
    result["entry"]["outs"] = [out for out in result["entry"]["outs"] if out["path"] != "data/manifest.parquet"]


def _other_out(result: dict[str, Any]) -> None:
    one, other = (
        out for out in result["entry"]["outs"] if out["path"] in ("data/manifest.parquet", "reports/labels.csv")
    )
    one["md5"], other["md5"] = other["md5"], one["md5"]


def _no_outs(result: dict[str, Any]) -> None:
    del result["entry"]["outs"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_out, "the job made no data/manifest.parquet"),
        (_no_outs, "can't be read: 'outs'"),
        (_other_out, "the DVC remote lost"),
    ],
    ids=["an out less", "no outs", "another hash"],
)
def test_result_that_is_not_whole_never_gets_into_dvc_lock(
    left: BakedProject, damage: Callable[[dict[str, Any]], None], said: str
) -> None:
    before, (job,) = lock(left), jobs(left)
    result = job.read("out/result.json")
    damage(result)
    (job.path / "out/result.json").write_text(json.dumps(result), encoding="utf-8")
    launch = repro(left, "--allow-missing", "manifest")
    if damage is _other_out:
        assert said in launch.succeed()
        assert len(jobs(left)) == 2
    else:
        assert said in launch.fail()
        assert lock(left) == before


@pytest.mark.parametrize("name", ["result.json", "small.tar"])
@pytest.mark.parametrize("text", [None, "", "{"], ids=["gone", "empty", "torn"])
def test_damaged_files_of_a_job_are_told_with_the_fix(
    left: BakedProject, expected: bytes, name: str, text: str | None
) -> None:
    before, (job,) = lock(left), jobs(left)
    path = job.path / "out" / name
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    said = repro(left, "--allow-missing", "manifest").fail()
    assert f"{name}, which the job of manifest handed back, can't be read" in said
    assert "JOB_FRESH=1 dvc repro --force --single-item manifest" in said
    assert lock(left) == before


def test_finished_job_is_used_again_unless_a_fresh_one_is_asked_for(left: BakedProject, expected: bytes) -> None:
    for _ in range(2):
        said = repro(left, "--force", "--single-item", "manifest").succeed()
        assert "has done it already" in said
        assert lock(left) == expected
        assert len(jobs(left)) == 1
    repro(left, "--force", "--single-item", "manifest", JOB_FRESH="1").succeed()
    assert lock(left) == expected
    assert len(jobs(left)) == 2


@pytest.mark.slow
def test_stage_that_changes_while_its_job_runs_is_refused_and_with_that_undone_taken_over(
    project: BakedProject,
) -> None:
    project.run("dvc", "repro", "manifest")
    before = lock(project)
    launch = repro(project, "train")
    job = started(project, "train")
    launch.signal(signal.SIGSTOP)
    edit(project, "params.yaml", "max_lr: 0.003", "max_lr: 0.002")
    launch.signal(signal.SIGCONT)
    said = launch.fail()
    assert "params.yaml:train changed while the job of train ran" in said
    assert "with the change undone, it takes over what was made" in said
    assert job.state() == "Completed"
    assert lock(project) == before
    edit(project, "params.yaml", "max_lr: 0.002", "max_lr: 0.003")
    repro(project, "train").succeed()
    assert len(jobs(project, "train")) == len(trainings(project)) == len(runs(project)) == 1


@pytest.mark.slow
def test_two_launchers_of_the_same_share_one_job(project: BakedProject) -> None:
    project.run("dvc", "repro", "manifest")
    commit(project, "The manifest")
    first = Launch(project, "exp", "run", "--temp", "--name", "one", "train")
    job = started(project, "train")
    second = Launch(project, "exp", "run", "--temp", "--name", "two", "train")
    assert f"job {job.path.name} is at it already" in second.succeed()
    first.succeed()
    made = experiments(project)
    assert metric(made["one"], "test_acc") == metric(made["two"], "test_acc")
    assert len(jobs(project, "train")) == len(trainings(project)) == len(runs(project)) == 1


@pytest.mark.slow
def test_launcher_of_a_training_killed_again_and_again_trains_once(project: BakedProject) -> None:
    project.run("dvc", "repro", "manifest")
    before = lock(project)
    for place in (".compute.launch:service.start", ".compute.sandbox.service:time.sleep"):
        die(project, place, "train")
    launch = repro(project, "train")
    job = started(project, "train")
    until(lambda: job.does("stage train") or job.has_ended(), poll_s=0.02)
    launch.kill()
    for place in (".compute.adopt:adopt", ".compute.launch:_deliver", "dvc.stage:PipelineStage.save"):
        die(project, place, "train")
        assert lock(project) == before
    repro(project, "train").succeed()
    assert len(jobs(project, "train")) == len(trainings(project)) == 1
    assert set(runs(project)) == {read(project, "reports/run.json")["run"]}
    assert "didn't change" in project.run("dvc", "repro", "train").stdout


def test_ctrl_c_stops_the_training_of_a_job_which_is_recorded_as_killed(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 2", "epochs: 100000")
    project.run("dvc", "repro", "manifest")
    before = lock(project)
    launch = repro(project, "train")
    job = started(project, "train")
    until(lambda: list(job.path.glob(CURVE)), poll_s=0.02)
    launch.signal(signal.SIGINT)
    said = launch.fail()
    assert "Interrupted" in said
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
    until(lambda: "Stopping job" in launch.told(), poll_s=0.02)
    launch.signal(signal.SIGINT)
    assert f"Job {job.path.name} goes on stopping by itself" in launch.fail()
    for process in frozen:
        process.resume()
    until(job.has_ended)
    assert job.state() == "Stopped"


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


def on_small_disk(project: BakedProject, folder: str, size: str, *then: str) -> str:
    """Run commands where a folder of the project is a disk of its own, and return what they print.

    It is there for these commands only. What the folder holds is copied to it, as far as there is room.
    """
    copied = project.path.parent / "kept"
    (project.path / folder).mkdir(parents=True, exist_ok=True)
    first = (f"cp -a {folder} {copied}", f"mount -t tmpfs -o size={size} none {folder}", f"cp -a {copied}/. {folder}")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "\n".join((*first, *then))],
        cwd=project.path,
        env={**os.environ, "RUN_ON": "sandbox"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    return done.stdout


@pytest.mark.parametrize("size", ["800k", "2000k"], ids=["at its start", "later"])
def test_full_disk_under_a_job_is_told_and_leaves_dvc_lock(project: BakedProject, expected: bytes, size: str) -> None:
    before, copied, folder = lock(project), project.path.parent / "before", ".dvc/tmp/jobs"
    said = on_small_disk(
        project,
        folder,
        size,
        "dvc repro --allow-missing manifest && echo no failure",
        f"cp dvc.lock {copied}",
        f"mount -o remount,size=100m {folder}",
        "dvc repro manifest",
    )
    assert "no failure" not in said
    assert re.search("failed: the disk of .* is full", said)
    assert copied.read_bytes() == before
    assert lock(project) == expected, said


@pytest.mark.parametrize(
    ("folder", "problem"),
    [(".dvc/cache", "No space left on device"), ("data", "see that the disk has room")],
    ids=["cache", "work tree"],
)
def test_full_disk_of_the_launcher_is_told_and_then_the_job_is_not_run_again(
    left: BakedProject, expected: bytes, folder: str, problem: str
) -> None:
    before, copied = lock(left), left.path.parent / "before"
    fill = f"dd if=/dev/zero of={folder}/filler bs=4k"
    said = on_small_disk(
        left,
        folder,
        "2m",
        f"rm -f data/manifest.parquet; {fill}",
        "dvc repro --allow-missing manifest && echo no failure",
        f"cp dvc.lock {copied}; rm {folder}/filler",
        "dvc repro manifest",
    )
    assert "no failure" not in said
    assert problem in said
    assert "Traceback" not in said
    assert copied.read_bytes() == before
    assert lock(left) == expected, said
    assert len(jobs(left)) == 1

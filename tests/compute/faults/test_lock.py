"""`dvc.lock` is never wrong: whatever a job hands back, and whatever changes while it runs."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from ...conftest import BakedProject
from ...projects import commit, edit, experiments, metric, runs
from .launches import Launch, jobs, lock, repro, started, trainings


def _no_out(result: dict[str, Any]) -> None:
    result["entry"]["outs"] = [out for out in result["entry"]["outs"] if out["path"] != "data/manifest.parquet"]


def _other_out(result: dict[str, Any]) -> None:
    first, second = (
        out for out in result["entry"]["outs"] if out["path"] in ("data/manifest.parquet", "reports/labels.csv")
    )
    first["md5"], second["md5"] = second["md5"], first["md5"]


def _no_outs(result: dict[str, Any]) -> None:
    del result["entry"]["outs"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            _no_out,
            "the job made no data/manifest.parquet, which dvc.yaml:stages.manifest names\n"
            "Fix: let the stage make it, or take it from dvc.yaml; then dvc repro manifest",
            id="an out less",
        ),
        pytest.param(_no_outs, "can't be read: 'outs'", id="no outs", marks=pytest.mark.slow),
        pytest.param(_other_out, "the DVC remote lost", id="another hash", marks=pytest.mark.slow),
    ],
)
def test_result_that_is_not_whole_never_gets_into_dvc_lock(
    left: BakedProject, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    before, (job,) = lock(left), jobs(left)
    result = job.read("out/result.json")
    damage(result)
    (job.path / "out/result.json").write_text(json.dumps(result), encoding="utf-8")
    launch = repro(left, "--allow-missing", "manifest")
    if damage is _other_out:
        assert message in launch.succeed()
        assert len(jobs(left)) == 2
    else:
        assert message in launch.fail()
        assert lock(left) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("result.json", None, id="result.json is gone", marks=pytest.mark.slow),
        pytest.param("result.json", "", id="result.json is empty", marks=pytest.mark.slow),
        pytest.param("result.json", "{", id="result.json is torn"),
        pytest.param("small.tar", None, id="small.tar is gone"),
        pytest.param("small.tar", "", id="small.tar is empty", marks=pytest.mark.slow),
        pytest.param("small.tar", "{", id="small.tar is torn", marks=pytest.mark.slow),
    ],
)
def test_damaged_files_of_a_job_are_told_with_the_fix(
    left: BakedProject, expected: bytes, name: str, text: str | None
) -> None:
    before, (job,) = lock(left), jobs(left)
    path = job.path / "out" / name
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    output = repro(left, "--allow-missing", "manifest").fail()
    assert f"{name}, which the job of manifest handed back, can't be read" in output
    assert "Fix: JOB_FRESH=1 dvc repro --force --single-item manifest, which starts a new job" in output
    assert lock(left) == before
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
    output = launch.fail()
    assert "params.yaml:train changed while the job of train ran" in output
    assert "with the change undone, it takes over these results" in output
    assert job.state() == "Completed"
    assert lock(project) == before
    edit(project, "params.yaml", "max_lr: 0.002", "max_lr: 0.003")
    repro(project, "train").succeed()
    assert len(jobs(project, "train")) == len(trainings(project)) == len(runs(project)) == 1


@pytest.mark.slow
def test_finished_job_is_used_again_unless_a_fresh_one_is_asked_for(left: BakedProject, expected: bytes) -> None:
    output = repro(left, "--force", "--single-item", "manifest").succeed()
    assert "has done it already" in output
    assert lock(left) == expected
    assert len(jobs(left)) == 1
    repro(left, "--force", "--single-item", "manifest", JOB_FRESH="1").succeed()
    assert lock(left) == expected
    assert len(jobs(left)) == 2


@pytest.mark.slow
def test_two_launchers_of_the_same_share_one_job(project: BakedProject) -> None:
    project.run("dvc", "repro", "manifest")
    commit(project, "The manifest")
    first = Launch(project, "exp", "run", "--temp", "--name", "first", "train")
    job = started(project, "train")
    second = Launch(project, "exp", "run", "--temp", "--name", "second", "train")
    assert f"job {job.path.name} is at it already" in second.succeed()
    first.succeed()
    made = experiments(project)
    assert metric(made["first"], "test_acc") == metric(made["second"], "test_acc")
    assert len(jobs(project, "train")) == len(trainings(project)) == len(runs(project)) == 1

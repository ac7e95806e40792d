"""The train stage on two processes: one record, one model, and one end, whatever ends it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from ..conftest import BakedProject
from ..projects import check_end, edit, lock, out_md5, read, runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals"),
]


@pytest.fixture
def pair(project: BakedProject) -> BakedProject:
    """The project, to train on two processes, with nothing left of its first training."""
    edit(project, "params.yaml", "processes: auto", "processes: 2")
    for path in ("reports/train", "models"):
        shutil.rmtree(project.path / path)
    return project


def test_two_processes_train_as_well_with_one_record(pair: BakedProject, reproduced: BakedProject) -> None:
    trained = pair.run("dvc", "repro", "train")
    assert trained.stdout.count("best epoch") == 1
    assert "torch" not in trained.stderr
    before, after = read(reproduced, "reports/metrics.json"), read(pair, "reports/metrics.json")
    assert after["test_acc"] == pytest.approx(before["test_acc"], abs=0.03)
    rows = (pair.path / "reports/train/plots/metrics/train/loss.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split("\t")[1] for row in rows] == [str(epoch) for epoch in range(15)]
    assert [run.info.status for run in runs(pair).values()] == ["FINISHED"] * 2
    assert out_md5(lock(pair), "models/model") != out_md5(lock(reproduced), "models/model")
    facts = read(pair, "reports/train/lineage.json")
    assert (facts["device"], facts["processes"], facts["precision"]) == ("cpu", 2, "fp32")


def test_error_on_one_process_is_told_once_with_its_fix(pair: BakedProject) -> None:
    before = "with training_run(fabric"
    raised = 'if fabric.global_rank == 1:\n        raise ProjectError("the second has enough", "lower its load")\n    '
    edit(pair, f"{pair.package}/stages/train.py", before, raised + before)
    process = start(pair)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.endswith("Error: the second has enough\nFix: lower its load\n")
    assert output.count("the second has enough") == 1
    assert "Traceback" not in output
    assert ended(pair) == "FAILED"


def kill_second(starter: psutil.Process, workers: list[psutil.Process]) -> None:
    workers[1].kill()


def interrupt(starter: psutil.Process, workers: list[psutil.Process]) -> None:
    os.killpg(os.getpgid(starter.pid), signal.SIGINT)  # what Ctrl-C does


def terminate(starter: psutil.Process, workers: list[psutil.Process]) -> None:
    starter.terminate()


def kill_starter(starter: psutil.Process, workers: list[psutil.Process]) -> None:
    starter.kill()


@pytest.mark.parametrize(
    ("end", "code", "problem", "statuses"),
    [
        (kill_second, 2, "Error: process 1 (of 0 to 1) was killed by SIGKILL", {"FAILED"}),
        (interrupt, 130, "Interrupted", {"KILLED"}),
        (terminate, 130, "Interrupted", {"KILLED"}),
        (kill_starter, -9, "", {"FAILED", None}),  # which means the same: the writer may be killed too
    ],
    ids=["killed", "ctrl-c", "sigterm", "starter killed"],
)
def test_ended_training_leaves_no_process_and_no_outputs(
    pair: BakedProject, end: Callable[..., None], code: int, problem: str, statuses: set[str | None]
) -> None:
    edit(pair, "params.yaml", "epochs: 15", "epochs: 100000")
    process = start(pair)
    curve = pair.path / "reports/train/plots/metrics/val/acc.tsv"
    wait_for(lambda: process.poll() is not None or (curve.exists() and curve.stat().st_size > 100))
    starter = psutil.Process(process.pid)
    workers = starter.children()
    assert len(workers) == 2
    end(starter, workers)
    check_end(process, code, problem)
    wait_for(lambda: not any(map(psutil.pid_exists, (worker.pid for worker in workers))))
    assert not (pair.path / "models").exists()
    assert ended(pair) in statuses


def start(project: BakedProject) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["python", "-m", "mlops", "stage", "train"],
        cwd=project.path,
        env={**os.environ, "DVC_STAGE": "train"},  # what `dvc repro` tells
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that were started in the background ignore the signal, and so would their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(project: BakedProject) -> str | None:
    status: str | None = read(project, "reports/train/lineage.json").get("status")
    return status

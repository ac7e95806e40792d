"""What goes wrong around the pipeline: each says what and how to mend it, and nothing is lost or half there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject
from ..projects import edit, executed, lock, out_md5, read, runs, versions

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once


def retrain(project: BakedProject, max_lr: str = "0.002") -> None:
    """Change a parameter, so that train has work to do."""
    edit(project, "params.yaml", "max_lr: 0.003", f"max_lr: {max_lr}")


def test_code_from_elsewhere_is_refused(project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "installed"
    for package in ("mlops", project.package):
        shutil.copytree(project.path / package, installed / package)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    failed = project.run("python", "-m", "mlops", "stage", "prepare", check=False)
    assert failed.returncode == 2
    assert "outside the working directory" in failed.stderr
    assert "unset PYTHONSAFEPATH" in failed.stderr


@pytest.mark.slow
def test_other_environment_is_refused_unless_allowed_and_then_recorded(project: BakedProject) -> None:
    edit(project, "environment.json", '"torch": "', '"torch": "1.')
    failed = project.run("dvc", "repro", check=False)
    assert "installed packages differ from environment.json: torch" in failed.stderr
    edit(project, "platform.yaml", "allow_other_environment: false", "allow_other_environment: true")
    project.run("dvc", "repro", "train")
    recorded = runs(project)[read(project, "reports/run.json")["run"]].data.tags["environment_differences"]
    assert "torch" in recorded


def test_bad_params_are_told_with_the_fix(project: BakedProject) -> None:
    edit(project, "params.yaml", "  epochs:", "  epoch:")
    failed = project.run("python", "-m", "mlops", "stage", "train", check=False)
    assert failed.returncode == 2
    assert "unknown key: train.epoch (did you mean 'epochs'?)" in failed.stderr
    assert "Fix: " in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_remote_away_training_goes_on_and_register_refuses(project: BakedProject) -> None:
    storage = project.path / "dvc-storage"
    moved = storage.rename(project.path.parent / "kept")
    storage.write_text("not a folder", encoding="utf-8")
    retrain(project)
    trained = project.run("dvc", "repro", "train")
    assert "`register` pushes the data" in trained.stderr
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode
    assert "does not take the data" in failed.stderr
    assert list(versions(project)) == [1]
    storage.unlink()
    moved.rename(storage)
    project.run("dvc", "repro")
    assert list(versions(project)) == [1, 2]


@pytest.mark.slow
def test_mlflow_away_training_succeeds_and_sync_repairs(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    retrain(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    trained = project.run("dvc", "repro", "train")
    assert "mirror sync" in trained.stderr
    assert "Fix" in project.run("python", "-m", "mlops", "mirror", "sync", check=False).stderr
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert len(runs(project)) == 1
    for _ in range(2):
        project.run("python", "-m", "mlops", "mirror", "sync")
    run = runs(project)[read(project, "reports/run.json")["run"]]
    client = MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    rows = (project.path / "reports/train/plots/metrics/val/loss.tsv").read_text(encoding="utf-8").splitlines()[1:]
    points = client.get_metric_history(run.info.run_id, "val/loss")
    assert [f"{point.timestamp}\t{point.step}\t{point.value}" for point in points] == rows


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process group")
def test_interrupted_training_is_not_recorded_and_runs_again(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 15", "epochs: 100000")
    before = (project.path / "dvc.lock").read_bytes()
    shutil.rmtree(project.path / "reports/train")
    process = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that were started in the background ignore the signal, and so would their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    curve = project.path / "reports/train/plots/metrics/val/acc.tsv"
    while process.poll() is None and not (curve.exists() and curve.stat().st_size > 100):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: to dvc and to the stage
    output, _ = process.communicate()
    assert process.returncode
    assert "Interrupted" in output
    assert "Traceback" not in output
    assert (project.path / "dvc.lock").read_bytes() == before
    assert not (project.path / "models/model").exists()
    assert {run.info.status for run in runs(project).values()} == {"FINISHED", "KILLED"}
    edit(project, "params.yaml", "epochs: 100000", "epochs: 2")
    assert executed(project.run("dvc", "repro", "train").stdout) == ["train"]


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is made with Linux namespaces")
def test_full_disk_is_told_and_leaves_nothing_half(project: BakedProject) -> None:
    script = """
        cp data/consent.csv consent.csv && mount -t tmpfs -o size=40k none data && mv consent.csv data/
        python -m mlops stage prepare
        ls -A data
    """
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=project.path,
        capture_output=True,
        text=True,
    )
    assert "the disk is full" in done.stderr, done.stdout + done.stderr
    assert "Fix: free some space" in done.stderr
    assert done.stdout.split() == ["consent.csv"]


@pytest.mark.slow
def test_four_first_runs_at_once_share_one_new_database(project: BakedProject) -> None:
    for path in project.path.glob("mlflow.db*"):
        path.unlink()
    starters = [
        subprocess.Popen(["python", "-m", "mlops", "mirror", "sync"], cwd=project.path, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    failures = [starter.communicate()[1] for starter in starters if starter.wait()]
    assert failures == []
    assert out_md5(lock(project), "data/dataset") in {run.data.params["dataset_md5"] for run in runs(project).values()}

"""The commit that a run names is what the run used, in every way to run it, and stays restorable.

Each experiment is told apart by a marker that is edited into the code and that the code writes to the metrics: so the
metrics say which code ran, and the commit says which code the run claims.
"""

from pathlib import Path

import pytest
from mlflow.entities import Run
from ruamel.yaml import YAML

from ..conftest import BakedProject
from ..projects import (
    MARKED,
    clone,
    commit,
    edit,
    experiments,
    lock,
    mark,
    metric,
    objects,
    out_md5,
    read,
    runs,
    versions,
    wait_for_queue,
)


def check_restored(project: BakedProject, run: str, marker: int, max_lr: float, folder: Path) -> BakedProject:
    """In a fresh clone, the commit that a run names holds the run's very code, parameters and data."""
    params = runs(project)[run].data.params
    restored = clone(project, folder, params["data_git_commit_id"])
    assert f'"marker": {marker}}}' in (restored.path / restored.package / MARKED).read_text(encoding="utf-8")
    restored_params = YAML(typ="safe").load((restored.path / "params.yaml").read_text(encoding="utf-8"))
    assert restored_params["train"]["max_lr"] == max_lr == float(params["train.max_lr"])
    assert out_md5(lock(restored), "data/dataset") == params["dataset_md5"]
    assert restored.run("dvc", "data", "status", "--json").returncode == 0
    assert list((restored.path / "data/dataset/train").rglob("*.parquet"))
    assert "train" not in lock(restored) or restored.run("git", "rev-parse", "HEAD").stdout == ""
    return restored


def test_queued_experiment_runs_the_code_and_parameters_that_were_queued(queued: BakedProject) -> None:
    experiment = experiments(queued)["queued"]
    assert metric(experiment, "test_marker") == 1
    run = runs(queued)[metric(experiment, "run")]
    assert run.info.status == "FINISHED"
    assert "queued" in run.info.run_name
    params = run.data.params
    commit = params["data_git_commit_id"]
    assert '"marker": 1}' in queued.run("git", "show", f"{commit}:{queued.package}/{MARKED}").stdout
    pinned = YAML(typ="safe").load(queued.run("git", "show", f"{commit}:params.yaml").stdout)
    assert pinned["train"]["max_lr"] == 0.005 == float(params["train.max_lr"])
    assert out_md5(lock(queued, commit), "data/dataset") == params["dataset_md5"]
    assert "train queued" in queued.run("git", "log", "--first-parent", "--format=%s", "lineage").stdout
    assert list(versions(queued)) == [1], "an experiment that stops at train registers nothing"


def run_of(queued: BakedProject) -> Run:
    """Return MLflow's run of the experiment: the one that is not the work tree's."""
    first = read(queued, "reports/run.json")["run"]
    (run,) = [run for name, run in runs(queued).items() if name != first]
    return run


def test_label_of_a_dataset_is_shown_on_its_runs(queued: BakedProject) -> None:
    assert run_of(queued).data.params["data_version"] == "v1.0"


def test_credentials_in_git_addresses_are_not_recorded(queued: BakedProject) -> None:
    assert run_of(queued).data.tags["git_remote_url"] == "https://example.org/team/project.git"
    files = [queued.path / "mlflow.db", *(queued.path / "mlartifacts").rglob("*"), *queued.path.glob("reports/**/*")]
    assert [path for path in files if path.is_file() and b"secret-token" in path.read_bytes()] == []


@pytest.mark.slow
def test_commit_of_a_run_restores_it_in_repro_clean_and_dirty(project: BakedProject, tmp_path: Path) -> None:
    mark(project, 1)
    project.run("dvc", "repro", "train")
    dirty = read(project, "reports/run.json")["run"]
    head = commit(project, "Marker 1")
    project.run("dvc", "repro", "--force", "--single-item", "train")
    clean = read(project, "reports/run.json")["run"]
    named = {run: runs(project)[run].data.params["data_git_commit_id"] for run in (dirty, clean)}
    assert named[clean] == head, "a clean HEAD that pins everything is the commit"
    assert named[dirty] != head
    restored = check_restored(project, dirty, 1, 0.003, tmp_path / "clone")
    restored.run("dvc", "repro", "train")
    for out in ("models/model", "data/dataset"):
        assert out_md5(lock(restored), out) == out_md5(lock(project), out), "made again, the same bytes"


@pytest.mark.slow
def test_commit_of_a_run_restores_it_in_experiments_of_every_kind(project: BakedProject, tmp_path: Path) -> None:
    mark(project, 1)
    project.run("dvc", "exp", "run", "train", "--name", "inplace", "-S", "train.max_lr=0.001")
    mark(project, 2)
    project.run("dvc", "exp", "run", "train", "--temp", "--name", "temp", "-S", "train.max_lr=0.002")
    mark(project, 3)
    # 0.003 to 0.005: of the same length, which a copied Git index would not see.
    project.run("dvc", "exp", "run", "train", "--queue", "--name", "queued-3", "-S", "train.max_lr=0.005")
    mark(project, 4)
    project.run("dvc", "exp", "run", "train", "--queue", "--name", "queued-4", "-S", "train.max_lr=0.004")
    mark(project, 5)  # after queueing: no queued experiment may run this
    project.run("dvc", "queue", "start", "-j", "2")
    wait_for_queue(project)
    made = experiments(project)
    expected = {"inplace": (1, 0.001), "temp": (2, 0.002), "queued-3": (3, 0.005), "queued-4": (4, 0.004)}
    assert set(made) == set(expected)
    for name, (marker, max_lr) in expected.items():
        assert metric(made[name], "test_marker") == marker, "the code that ran is the code of the experiment"
        check_restored(project, metric(made[name], "run"), marker, max_lr, tmp_path / name)
    log = project.run("git", "log", "--first-parent", "--format=%s", "lineage").stdout
    assert all(f"train {name}" in log for name in expected)


@pytest.mark.slow
def test_gc_loses_no_input_and_no_registered_model(project: BakedProject, tmp_path: Path) -> None:
    project.run("dvc", "push", "--quiet")
    registered = project.run("git", "rev-parse", f"{project.path.name}@v1.0.0^{{commit}}").stdout.strip()
    first = read(project, "reports/run.json")["run"]
    # Another dataset, used by a run that nobody commits, and then given up.
    edit(project, "params.yaml", "fraction: 1.0", "fraction: 0.5")
    project.run("dvc", "repro", "train")
    half = read(project, "reports/run.json")["run"]
    project.run("git", "checkout", "--quiet", ".")
    project.run("dvc", "checkout", "--quiet")
    before = objects(project)
    project.run("dvc", "gc", "--all-commits", "--cloud", "--force")
    project.run("dvc", "gc", "--workspace", "--all-commits", "--cloud", "--force")
    assert objects(project) <= before
    for number, run in enumerate((first, half)):
        params = runs(project)[run].data.params
        restored = clone(project, tmp_path / f"run-{number}", params["data_git_commit_id"])
        assert out_md5(lock(restored), "data/dataset") == params["dataset_md5"]
        assert list((restored.path / "data/dataset/train").rglob("*.parquet"))
    model = clone(project, tmp_path / "model", registered)
    assert (model.path / "models/model/model.safetensors").is_file()
    name = project.path.name
    model.run("dvc", "artifacts", "get", str(project.path), name, "--rev", "v1.0.0", "--out", "got")
    assert (model.path / "got/model.safetensors").is_file()


@pytest.mark.slow
def test_untracked_code_stops_the_run_before_it_starts(project: BakedProject) -> None:
    edit(project, "dvc.yaml", f"      - {project.package}/stages/train.py", "      - extra.py")
    (project.path / "extra.py").write_text("", encoding="utf-8")
    failed = project.run("dvc", "repro", "train", check=False)
    assert failed.returncode
    assert "Fix: git add extra.py" in failed.stderr
    assert len(runs(project)) == 1


@pytest.mark.slow
def test_untracked_code_is_named_in_a_throw_away_copy_too(project: BakedProject) -> None:
    """DVC copies what Git tracks: the new module is not there, and the error would be a bare ImportError."""
    new = f"{project.package}/model/extra.py"
    (project.path / new).write_text("", encoding="utf-8")
    first = "from ..model.dataset import"
    edit(project, f"{project.package}/stages/train.py", first, f"from ..model import extra\n{first}")
    failed = project.run("dvc", "exp", "run", "--temp", "train", check=False)
    assert failed.returncode
    assert f"the run would depend on 1 file(s) that Git does not track: {new}" in failed.stderr
    assert f"Fix: git add {new}" in failed.stderr


@pytest.mark.slow
def test_dataset_that_is_not_the_one_in_the_lock_stops_the_run(project: BakedProject) -> None:
    edit(project, "params.yaml", "fraction: 1.0", "fraction: 0.5")
    failed = project.run("dvc", "repro", "--single-item", "--force", "train", check=False)
    assert failed.returncode
    assert "Fix: dvc repro train" in failed.stderr
    by_hand = project.run("python", "-m", "mlops", "stage", "train", check=False)
    assert by_hand.returncode
    assert "so dvc.lock does not say what is read\nFix: dvc repro" in by_hand.stderr
    next((project.path / "data/dataset/train").rglob("*.parquet")).unlink()
    project.run("git", "checkout", "--quiet", "params.yaml")
    assert project.run("dvc", "repro", "--single-item", "train", check=False).returncode
    assert len(runs(project)) == 1


@pytest.mark.slow
def test_clone_with_an_mlflow_of_its_own_does_not_count_again(project: BakedProject, tmp_path: Path) -> None:
    colleague = clone(project, tmp_path / "colleague", "HEAD")
    edit(colleague, "params.yaml", "max_lr: 0.003", "max_lr: 0.002")
    failed = colleague.run("dvc", "repro", check=False)
    assert "version 1 of" in failed.stderr
    assert "Fix: python -m mlops mirror repair, then dvc repro; or share one server between clones" in failed.stderr
    colleague.run("python", "-m", "mlops", "mirror", "repair")
    colleague.run("dvc", "repro")
    assert read(colleague, "reports/register.json")["version"] == 2


@pytest.mark.slow
def test_run_of_an_experiment_that_mlflow_did_not_take_is_sent_later(
    project: BakedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for max_lr in ("0.001", "0.002"):
        project.run("dvc", "exp", "run", "train", "--temp", "-S", f"train.max_lr={max_lr}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.run("python", "-m", "mlops", "mirror", "sync")
    names = {metric(experiment, "run"): name for name, experiment in experiments(project).items()}
    assert {run: runs(project)[run].info.run_name for run in names} == names

"""`dvc repro` on SageMaker, and what it leaves; nobody can tell it from a local one."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, isolate
from ..projects import clone, commit, edit, experiments, lock, metric, read, wait_for_queue
from .bed import APP, IMAGE, ROLE, Bed
from .conftest import enter, laptop

pytestmark = pytest.mark.slow

STAGES = ("prepare", "manifest", "train", "register")


@pytest.fixture(scope="session")
def by_jobs(aws_account: Bed, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project whose four stages ran as jobs, from nothing, with MLflow by ARN; to look at and not to change."""
    folder = tmp_path_factory.mktemp("by-jobs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        aws_account.furnish()
        aws_account.start_mlflow()
        enter(monkeypatch, aws_account, folder)
        made = laptop(folder, APP)
        made.run("python", "-m", "mlops", "setup")
        made.run("dvc", "repro")
        commit(made, "First results")
    return made


@pytest.fixture
def at_home(by_jobs: BakedProject, on_laptop: Bed) -> BakedProject:
    """It, on a laptop that knows the account and its MLflow."""
    return by_jobs


def _names(project: BakedProject) -> dict[str, str]:
    """Return the name of the job of each stage."""
    words = project.run("python", "-m", "mlops", "jobs", "list").stdout.split()
    return {stage: name for stage in STAGES for name in words if f"-{stage}-" in name}


def test_every_stage_ran_as_the_job_of_its_kind(at_home: BakedProject, aws: Bed) -> None:
    names = _names(at_home)
    assert {stage: aws.jobs[name].noun for stage, name in names.items()} == {
        "prepare": "ProcessingJob",
        "manifest": "ProcessingJob",
        "train": "TrainingJob",
        "register": "ProcessingJob",
    }
    assert all(aws.jobs[name].status == "Completed" for name in names.values())


@pytest.mark.parametrize("place", ["local", "sandbox", "sagemaker"])
def test_repro_anywhere_else_has_nothing_to_do(
    at_home: BakedProject, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("RUN_ON", place)
    assert "Running stage" not in at_home.run("dvc", "repro").stdout
    assert at_home.run("git", "status", "--porcelain").stdout == ""


def test_repro_in_a_fresh_clone_has_nothing_to_do(at_home: BakedProject, tmp_path: Path) -> None:
    copied = clone(at_home, tmp_path / "clone", "HEAD")
    assert "Running stage" not in copied.run("dvc", "repro").stdout


def test_lock_has_the_entries_of_the_jobs(at_home: BakedProject) -> None:
    written = lock(at_home)
    for stage, name in _names(at_home).items():
        handed_back = read(at_home, f".dvc/tmp/jobs/sagemaker/{name}/out/result.json")["entry"]
        assert json.loads(json.dumps(written[stage])) == handed_back


def test_dataset_manifest_and_weights_are_those_of_a_local_run(
    at_home: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = clone(at_home, tmp_path / "clone", "HEAD")
    monkeypatch.setenv("RUN_ON", "local")
    before = {
        path: (copied.path / path).read_bytes() for path in ("data/manifest.parquet", "models/model/model.safetensors")
    }
    copied.run("dvc", "repro", "--force", "train")
    assert {path: (copied.path / path).read_bytes() for path in before} == before
    assert lock(copied)["prepare"] == lock(at_home)["prepare"]


def test_run_names_job_image_and_machine_and_the_version_its_commit(at_home: BakedProject, aws: Bed) -> None:
    client = MlflowClient(aws.mlflow_url)
    facts, name = read(at_home, "reports/train/lineage.json"), _names(at_home)["train"]
    assert (facts["job"], facts["image"], facts["instance_type"]) == (name, IMAGE, "ml.m5.xlarge")
    experiment = client.get_experiment_by_name(at_home.path.name)
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id], f"tags.mirror_id = '{facts['run']}'")
    assert run.data.tags["image"] == IMAGE
    assert run.data.metrics["test_acc"] == read(at_home, "reports/metrics.json")["test_acc"]
    assert len(client.get_metric_history(run.info.run_id, "val/acc")) == 3
    (version,) = client.search_model_versions()
    tagged = at_home.run("git", "rev-parse", f"{at_home.path.name}@v1.0.0^{{commit}}").stdout.strip()
    assert tagged == version.tags["result_commit"]


def test_job_was_told_no_secret_of_the_laptop(at_home: BakedProject, aws: Bed) -> None:
    secret = aws.store.environment()["AWS_SECRET_ACCESS_KEY"]
    key = aws.store.environment()["AWS_ACCESS_KEY_ID"]
    for name in _names(at_home).values():
        files = list((at_home.path / ".dvc/tmp/jobs/sagemaker" / name).rglob("*.json"))
        assert files
        for path in files:
            assert secret not in path.read_text(encoding="utf-8")
            assert key not in path.read_text(encoding="utf-8")


def test_code_is_at_a_name_made_of_its_content(at_home: BakedProject, aws: Bed) -> None:
    archives = {name: data for name, data in aws.objects("by-jobs").items() if name.endswith("code.tar.gz")}
    assert archives
    assert all(hashlib.sha256(data).hexdigest() in name for name, data in archives.items())
    for name in _names(at_home).values():
        request = aws.jobs[name].request
        assert request["RoleArn"] == ROLE
        assert any(name.rpartition("/")[0] in json.dumps(request) for name in archives)


def test_dry_run_prints_the_request_and_asks_nothing(at_home: BakedProject, aws: Bed) -> None:
    calls = aws.calls.total()
    request = json.loads(at_home.run("python", "-m", "mlops", "jobs", "dry-run", "train").stdout)
    assert aws.calls.total() == calls
    name = _names(at_home)["train"]
    assert request["TrainingJobName"] == name
    ours = {key: value for key, value in aws.jobs[name].request.items() if key not in ("Tags", "InputDataConfig")}
    assert {key: request[key] for key in ours} == ours


def test_queue_of_experiments_is_as_many_trainings_side_by_side(
    at_home: BakedProject, aws: Bed, tmp_path: Path
) -> None:
    copied = clone(at_home, tmp_path / "clone", "HEAD")
    copied.run("git", "config", "user.name", "Test")
    copied.run("git", "config", "user.email", "test@example.org")
    edit(copied, "params.yaml", "epochs: 3", "epochs: 4")
    commit(copied, "Longer")
    before = set(aws.jobs)
    for max_lr in ("0.004", "0.005", "0.006", "0.007"):
        copied.run("dvc", "exp", "run", "train", "--queue", "-S", f"train.max_lr={max_lr}")
    copied.run("dvc", "queue", "start", "-j", "4")
    wait_for_queue(copied)
    trials = experiments(copied)
    assert len(trials) == 4
    jobs = [job for name, job in aws.jobs.items() if name not in before]
    assert len(jobs) == 4
    assert max(job.history.created for job in jobs) < min(job.history.ended or 0 for job in jobs)  # side by side
    client = MlflowClient(aws.mlflow_url)
    experiment = client.get_experiment_by_name(at_home.path.name)
    assert experiment
    mirrored = {run.data.tags["mirror_id"]: run for run in client.search_runs([experiment.experiment_id])}
    for trial in trials.values():
        assert mirrored[metric(trial, "run")].data.metrics["test_acc"] == metric(trial, "test_acc")


def test_list_of_a_clone_that_started_nothing_has_everyones_jobs(at_home: BakedProject, tmp_path: Path) -> None:
    copied = clone(at_home, tmp_path / "clone", "HEAD")
    output = subprocess.run(
        ["python", "-m", "mlops", "jobs", "list", "--all"], cwd=copied.path, capture_output=True, text=True
    ).stdout
    assert set(_names(at_home).values()) <= set(output.split())

"""How a job is requested: defaults and a stage's own settings; what can't work is refused with its fix."""

import re
from pathlib import Path
from typing import Any

import pytest
from mlops import pipeline
from mlops.compute.spec import job_prefix, job_stem, spec_of
from mlops.errors import ProjectError
from mlops.pipeline import load_stage
from mlops.runner import runs_as_job
from ruamel.yaml import YAML

PLATFORM: dict[str, Any] = {
    "project": "demo",
    "tracking_uri": None,
    "run_on": "sandbox",
    "allow_other_environment": False,
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository without settings, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    for name in ("RUN_ON", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(
    stage: str, meta_job: dict[str, Any] | None, init_from: str | None = None, processes: Any = 1, **platform: Any
) -> None:
    """Write the three configuration files; without a `meta_job` the stage has no `meta`."""
    meta = {} if meta_job is None else {"meta": {"job": meta_job}}
    outs = {"train": [pipeline.RUN_REPORT], "register": [pipeline.REGISTER_REPORT]}.get(stage, [])
    files = {
        "platform.yaml": {**PLATFORM, **platform},
        "dvc.yaml": {"stages": {stage: {"cmd": "true", **meta, "outs": outs}}},
        "params.yaml": {"train": {"init_from": init_from, "processes": processes}},
    }
    for name, content in files.items():
        with Path(name).open("w", encoding="utf-8") as file:
            YAML().dump(content, file)


def test_spec_of_own_settings_go_before_defaults() -> None:
    write("train", {"kind": "training", "volume_gb": 100}, job={"volume_gb": 50, "instance_type": "ml.c5.large"})
    spec = spec_of("train")
    assert (spec.volume_gb, spec.instance_type, spec.max_runtime_s) == (100, "ml.c5.large", 3600)


@pytest.mark.parametrize(
    ("stage", "job", "platform", "error"),
    [
        ("train", {"kind": "batch"}, {}, r"dvc.yaml:stages.train.meta.job.kind is 'batch'"),
        ("train", {}, {}, r"dvc.yaml lacks the key stages.train.meta.job.kind"),
        ("train", {"kind": "training", "instance": "x"}, {}, r"meta.job.instance \(did you mean 'instance_type'\?\)"),
        ("train", {"kind": "training"}, {"job": {"volume": 3}}, r"platform.yaml .*job.volume \(did you mean 'volume_g"),
        ("train", {"kind": "training", "max_runtime_s": 0}, {}, r"max_runtime_s is 0: .*greater than or equal to 1"),
        ("prepare", {"kind": "processing", "spot": True}, {}, r"only a training[\s\S]*meta.job.spot: false"),
        ("train", {"kind": "processing", "spot": True}, {}, r"only a training[\s\S]*meta.job.spot: false"),
        ("train", {"kind": "training", "spot": True, "max_wait_s": 60}, {}, r"only 60 s[\s\S]*max_wait_s: 7200"),
        ("train", {"kind": "training", "spot": True, "keep_alive_s": 60}, {}, r"[\s\S]*meta.job.keep_alive_s: 0"),
        ("train", {"kind": "training", "subnets": ["subnet-1"]}, {}, r"both[\s\S]*meta.job.security_groups"),
        ("prepare", {"kind": "processing", "keep_alive_s": 60}, {}, r"[\s\S]*meta.job.keep_alive_s: 0"),
        ("manifest", {"kind": "processing", "instance_count": 2}, {}, r"same work 2 times[\s\S]*instance_count: 1"),
        (
            "train",
            {"kind": "training", "instance_count": 2},
            {},
            r"1 process\(es\)[\s\S]*processes: auto, or a multiple of 2",
        ),
        ("register", {"kind": "processing"}, {}, r"MLflow, which is a file[\s\S]*platform.yaml:tracking_uri: a server"),
        (
            "register",
            {"kind": "processing"},
            {"tracking_uri": "sqlite:////tmp/mlflow.db"},
            r"MLflow, which is a file[\s\S]*RUN_ON=local dvc repro register",
        ),
    ],
    ids=str,
)
def test_spec_of_what_can_not_work_is_refused_with_its_fix(
    stage: str, job: dict[str, Any], platform: dict[str, Any], error: str
) -> None:
    write(stage, job, **platform)
    with pytest.raises(ProjectError, match=error) as refused:
        spec_of(stage)
    # Where the fix is one value, that helps.
    if fixed := re.fullmatch(rf"dvc.yaml:stages.{stage}.meta.job.(\w+): (\w+)", refused.value.fix):
        write(stage, {**job, fixed[1]: YAML(typ="safe").load(fixed[2])}, **platform)
        spec_of(stage)


@pytest.mark.parametrize("processes", ["auto", 2, 4])
def test_spec_of_two_machines_takes_processes_that_they_can_share(processes: Any) -> None:
    write("train", {"kind": "training", "instance_count": 2}, processes=processes)
    assert spec_of("train").instance_count == 2


def test_spec_of_training_that_starts_from_a_version_needs_a_server() -> None:
    write("train", {"kind": "training"}, init_from="models:/demo/1")
    with pytest.raises(ProjectError, match="tracking_uri"):
        spec_of("train")
    write("train", {"kind": "training"}, init_from="models:/demo/1", tracking_uri="https://mlflow.example.org")
    assert spec_of("train").kind == "training"


def test_spec_of_a_server_with_a_password_is_no_place_for_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    write("register", {"kind": "processing"}, tracking_uri="https://mlflow.example.org")
    assert spec_of("register").kind == "processing"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of a person")
    with pytest.raises(ProjectError, match="MLFLOW_TRACKING_PASSWORD is not passed"):
        spec_of("register")


def test_runs_as_job_only_where_both_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    write("train", {"kind": "training"})
    assert runs_as_job(load_stage("train"))
    monkeypatch.setenv("RUN_ON", "local")
    assert not runs_as_job(load_stage("train"))
    monkeypatch.setenv("RUN_ON", "sandbox")
    write("train", None)
    assert not runs_as_job(load_stage("train"))


@pytest.mark.parametrize(
    ("name", "stage", "stem"),
    [
        ("demo", "train", "demo-train"),
        ("p" * 32, "manifest", f"{'p' * 32}-manifest"),
        ("My_Project", "train", "my-project-[0-9a-f]{6}-train"),
        ("p" * 57, "train", "p{25}-[0-9a-f]{6}-train"),
        ("3d.модель", "train@2024-01.csv", "x-3d-[0-9a-f]{6}-train-2024-01-csv-[0-9a-f]{6}"),
        ("модель", "s" * 40, "x-[0-9a-f]{6}-s{30}-[0-9a-f]{6}"),
    ],
    ids=["as-it-is", "longest-slug", "capitals", "long", "foreach", "other-letters"],
)
def test_job_stem_of_any_project_and_stage_makes_a_name_that_backends_take(name: str, stage: str, stem: str) -> None:
    write("train", None, project=name)
    assert re.fullmatch(stem, job_stem(stage))
    # Source: TrainingJobName in the API reference of SageMaker; the pattern of Project is aws/stack.yaml's.
    job = f"{job_stem(stage)}-{'0' * 12}-999"
    assert re.fullmatch("[a-zA-Z0-9](-*[a-zA-Z0-9])*", job)
    assert len(job) <= 63
    assert re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", job_prefix())
    assert len(job_prefix()) <= 32


def test_job_stem_differs_where_project_or_stage_differ() -> None:
    stems = set()
    for name in ("my_project", "My_Project", "my-project", "p" * 57, "p" * 58):
        write("train", None, project=name)
        stems |= {job_stem(stage) for stage in ("train", "train_", "Train", "t" * 40, "t" * 41)}
    assert len(stems) == 25

"""What SageMaker's machines have, and what is said of a job that does not use it."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from dvc.repo import Repo
from mlops.compute.sagemaker import image
from mlops.compute.sagemaker.checks import account, project
from mlops.compute.sagemaker.checks.project import CheckStatus
from mlops.compute.sagemaker.machines import gpu_count, mismatches
from mlops.compute.spec import JobSpec
from ruamel.yaml import YAML

Stage = Callable[..., list[str]]
# AWS's own figures, as moto has them; it lacks those that have left EC2.
DESCRIBED = json.loads(
    gzip.decompress((Path(moto.__file__).parent / "ec2/resources/instance_types.json.gz").read_bytes())
)
NAMES = boto3.client("sagemaker", region_name="us-east-1").meta.service_model.shape_for("TrainingInstanceType").enum


def test_gpu_count_is_what_aws_says_of_the_type() -> None:
    described = {name: DESCRIBED[name.removeprefix("ml.")] for name in NAMES if name.removeprefix("ml.") in DESCRIBED}
    assert len(described) > 200
    for name, facts in described.items():
        gpus = facts.get("GpuInfo", {}).get("Gpus", [])
        assert gpu_count(name) == sum(gpu["Count"] for gpu in gpus if gpu["Manufacturer"] == "NVIDIA"), name


def test_gpu_count_of_a_new_family_is_not_known() -> None:
    assert gpu_count("ml.g99.12xlarge") is None
    assert gpu_count("ml.m99.12xlarge") == 0
    assert all(gpu_count(name) is not None for name in NAMES)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Give a function that returns what is said of a job of `train` or of another stage, in a project."""
    monkeypatch.chdir(tmp_path)
    stages = {"prepare": {"cmd": "true"}, "train": {"cmd": "true", "outs": ["reports/run.json"]}}
    write("dvc.yaml", {"stages": stages})
    Repo.init(no_scm=True).close()

    def of(name: str, params: dict[str, Any] | None = None, **settings: Any) -> list[str]:
        write("params.yaml", {"train": params or {"processes": "auto", "precision": "fp32"}})
        return [f"{problem} | {fix}" for problem, fix in mismatches(name, JobSpec(kind="training", **settings))]

    return of


def write(name: str, content: dict[str, Any]) -> None:
    with Path(name).open("w", encoding="utf-8") as file:
        YAML().dump(content, file)


@pytest.mark.parametrize(
    ("name", "params", "settings", "expected"),
    [
        ("prepare", {}, {"instance_type": "ml.g5.xlarge"}, "has GPUs, and prepare does not train | .*instance_type"),
        ("train", {"processes": 1}, {"instance_type": "ml.g5.12xlarge"}, "is 1, .* has 4 | .*processes: auto"),
        ("train", {"processes": 8}, {"instance_type": "ml.g5.12xlarge"}, "is 8, .* has 4 | .*processes: auto"),
        (
            "train",
            {"processes": 4},
            {"instance_type": "ml.g5.12xlarge", "instance_count": 2},
            "is 4, .* 2 x ml.g5.12xlarge has 8 | ",
        ),
        (
            "train",
            {"processes": "auto"},
            {"instance_type": "ml.g5.12xlarge", "instance_count": 2, "environment": {"TRAIN_DEVICE": "cpu"}},
            r"8 GPU\(s\) of 2 x ml.g5.12xlarge would be idle: TRAIN_DEVICE is cpu | take it from",
        ),
        ("train", {"precision": "bf16"}, {"instance_type": "ml.g4dn.xlarge"}, "too old for | .*fp16 or fp32"),
        ("train", {"precision": "fp16"}, {"instance_type": "ml.m5.xlarge"}, "fp16, which needs a GPU | .*precision"),
        (
            "train",
            {"processes": "auto"},
            {"instance_type": "ml.g5.xlarge", "image": "1.dkr.ecr.us-east-1.amazonaws.com/own:cpu-0123456789ab"},
            "would be idle: torch in the image .* is for CPUs | .*make image ARGS=--gpu",
        ),
        ("train", {"processes": "auto"}, {"instance_type": "ml.g5.12xlarge", "instance_count": 2}, ""),
        ("train", {"processes": 8}, {"instance_type": "ml.g5.12xlarge", "instance_count": 2}, ""),
        ("train", {"processes": 1}, {"instance_type": "ml.g5.xlarge"}, ""),
        ("train", {"processes": 4, "precision": "bf16"}, {"instance_type": "ml.m5.xlarge"}, ""),
        ("train", {"processes": 4}, {"instance_type": "ml.g99.xlarge"}, ""),
        ("train", {"arch": "of a project whose training has no such keys"}, {"instance_type": "ml.g5.xlarge"}, ""),
        ("prepare", {}, {"instance_type": "ml.m5.xlarge"}, ""),
    ],
    ids=[
        *("no-training", "fewer", "more", "fewer-on-two", "cpu-on-gpu", "old-gpu", "no-gpu", "image", "auto", "all"),
        *("one", "cpus", "unknown", "other-params", "no-gpu-no-training"),
    ],
)
def test_mismatches_say_what_is_idle_or_lacking_and_the_fix(
    stage: Stage, name: str, params: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    lines = stage(name, params, **settings)
    if not expected:
        assert lines == []
        return
    (line,) = lines
    assert re.search(expected.replace(" | ", r" \| "), line), line


def test_doctor_reports_the_gpus_of_each_stage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage("train", {"processes": "auto"})  # writes the project

    def results(**types: str) -> list[tuple[CheckStatus, str]]:
        specs = [JobSpec(kind="training", instance_type=types[name]) for name in ("prepare", "train")]
        monkeypatch.setattr(project, "specs", lambda: specs)
        monkeypatch.setattr(project, "job_stages", lambda: ["prepare", "train"])
        return [(result.status, result.message) for result in project.gpus()]

    cpu, gpu = "ml.m5.xlarge", "ml.g5.12xlarge"
    assert results(prepare=cpu, train=cpu) == [(CheckStatus.OK, "no machine has any")]
    assert results(prepare=cpu, train=gpu) == [(CheckStatus.OK, "train uses 4 of 1 x ml.g5.12xlarge")]
    idle = (CheckStatus.BROKEN, "ml.g5.12xlarge has GPUs, and prepare does not train")
    assert results(prepare=gpu, train=gpu) == [idle, (CheckStatus.OK, "train uses 4 of 1 x ml.g5.12xlarge")]
    unknown = (CheckStatus.UNKNOWN, "how many GPUs ml.g99.xlarge has is not known")
    assert results(prepare=cpu, train="ml.g99.xlarge") == [unknown]


@pytest.mark.parametrize(
    ("tags", "instance_type", "is_broken"),
    [
        (["cpu-0123456789ab"], "ml.g5.xlarge", True),
        (["gpu-0123456789ab"], "ml.g5.xlarge", False),
        (["1"], "ml.g5.xlarge", False),
        (["cpu-0123456789ab"], "ml.m5.xlarge", False),
    ],
    ids=["cpu-on-gpu", "gpu", "of-others", "cpu"],
)
def test_doctor_knows_an_image_for_cpus_by_its_tag(
    monkeypatch: pytest.MonkeyPatch, tags: list[str], instance_type: str, is_broken: bool
) -> None:
    uri = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/own@sha256:{'a' * 64}"
    spec = JobSpec(kind="training", instance_type=instance_type, image=uri)
    details = {"imageDetails": [{"imageDigest": f"sha256:{'a' * 64}", "imageTags": tags}]}
    monkeypatch.setattr(account, "specs", lambda: [spec])
    monkeypatch.setattr(account, "image_of", lambda spec: spec.image)
    monkeypatch.setattr(account, "ask", lambda *names, **request: (details, ""))
    monkeypatch.setattr(account, "load_platform", lambda: type("Platform", (), {"region": "us-east-1"}))
    fixes = [result.fix for result in account.images() if result.status is CheckStatus.BROKEN]
    assert fixes == (["make image ARGS=--gpu"] if is_broken else [])


def test_image_of_the_framework_is_for_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("environment.json").write_text('{"torch": "2.10.0"}', encoding="utf-8")
    devices = {"ml.m5.xlarge": "cpu", "ml.g5.xlarge": "gpu", "ml.p6-b200.48xlarge": "gpu", "ml.g99.xlarge": "gpu"}
    for instance_type, device in devices.items():
        assert f"-{device}-" in image.default_image("us-east-1", instance_type)

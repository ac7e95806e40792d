"""What a container of SageMaker's tells the job that it starts."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from mlops import config
from mlops.compute import worker
from mlops.compute.sagemaker import entrypoint
from mlops.files import write_json

RESOURCES = {  # what SageMaker writes for a training on two machines
    "current_host": "algo-2",
    "current_instance_type": "ml.m5.xlarge",
    "current_group_name": "homogeneousCluster",
    "hosts": ["algo-1", "algo-2"],
    "network_interface_name": "eth0",
}
MACHINES = {
    "hosts": ["algo-1", "algo-2"],
    "current_host": "algo-2",
    "instance_type": "ml.m5.xlarge",
    "network_interface": "eth0",
    "keeps_checkpoints": True,
}


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The description of a job, in a container that has no machine of SageMaker's yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE_MACHINES", raising=False)
    monkeypatch.setattr(entrypoint, "RESOURCE_CONFIG", tmp_path / "resourceconfig.json")
    monkeypatch.setattr(entrypoint, "REASONS", {"training": tmp_path / "output" / "failure"})
    path = tmp_path / "job.json"
    write_json(path, {"origin": {"run": "a-run"}, "spec": {"kind": "training"}})
    return path


def write_resources(current_host: str) -> None:
    """Let the container be one of two machines."""
    write_json(entrypoint.RESOURCE_CONFIG, {**RESOURCES, "current_host": current_host})
    os.environ.pop("STAGE_MACHINES", None)


def test_contain_follower_machine_assists_and_knows_the_machines(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGE_MACHINES", "")  # what the code sets is taken back after the test
    write_resources("algo-2")

    def assist(path: Path) -> None:
        assert path == job_file
        raise SystemExit(3)

    monkeypatch.setattr(worker, "assist", assist)
    with pytest.raises(SystemExit, match="3"):
        entrypoint.contain(job_file, tmp_path / "out")
    assert json.loads(os.environ["STAGE_MACHINES"]) == MACHINES
    assert config.read_machines() == MACHINES
    assert not (tmp_path / "out").exists(), "one machine alone writes"


def test_contain_first_machine_runs_the_job_which_knows_the_machines(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGE_MACHINES", "")
    write_resources("algo-1")
    real, seen = subprocess.Popen, tmp_path / "seen"
    report = (
        f'printenv STAGE_MACHINES > {seen}; echo \'{{"reason": "it broke"}}\' > {tmp_path}/out/failure.json; exit 4'
    )
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: real(["sh", "-c", report], **options))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit, match="4"):
        entrypoint.contain(job_file, tmp_path / "out")
    assert json.loads(seen.read_text(encoding="utf-8")) == {**MACHINES, "current_host": "algo-1"}
    assert entrypoint.REASONS["training"].read_text(encoding="utf-8") == "it broke"


def test_contain_processing_job_has_one_machine_without_a_name(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrypoint, "_run", lambda *_: 0)
    with pytest.raises(SystemExit, match="0"):
        entrypoint.contain(job_file, tmp_path / "out")
    assert "STAGE_MACHINES" not in os.environ
    assert config.read_machines()["keeps_checkpoints"] is False

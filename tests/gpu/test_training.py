"""The stage `train` on a GPU: what it uses, that it is exact, that it repeats itself, and that it keeps the GPU busy.

make test-gpu
"""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from ..benchmarks import training_throughput
from ..conftest import BakedProject
from ..projects import copied, read
from ..servers.mlflow import until
from .conftest import DEVICE

pytestmark = pytest.mark.gpu

PRECISIONS = ["fp32", "bf16", "fp16"] if DEVICE == "cuda" else ["fp32", "bf16"]
EPOCHS, MANY_EPOCHS = 15, 60
ONE: dict[str, Any] = {"processes": 1, "epochs": EPOCHS}


def train(project: BakedProject, **params: Any) -> dict[str, Any]:
    """Train with these values of `params.yaml:train`, in any case; return the facts of the run."""
    set_params(project, **params)
    project.run("dvc", "repro", "--force", "--single-item", "train")
    facts: dict[str, Any] = read(project, "reports/train/lineage.json")
    assert facts["status"] == "FINISHED"
    return facts


def set_params(project: BakedProject, **params: Any) -> None:
    path, yaml = project.path / "params.yaml", YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["train"].update(params)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yaml.dump(content, file)


def weights(project: BakedProject) -> list[str]:
    """Return the hashes of the weights after each epoch."""
    rows = (project.path / "reports/train/weights.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [row.split("\t")[1] for row in rows]


@pytest.fixture
def trained(reproduced: BakedProject, tmp_path: Path) -> BakedProject:
    """The default project, to train in."""
    return copied(reproduced, tmp_path)


def test_run_names_the_device_that_it_was_computed_on(trained: BakedProject, gpus: int) -> None:
    facts = train(trained, processes="auto")
    assert (facts["device"], facts["precision"]) == (DEVICE, "fp32")
    assert re.fullmatch("[0-9a-f]{16}", facts["numeric_fingerprint"])
    assert read(trained, "reports/metrics.json")["test_acc"] > 0.9
    if DEVICE == "cuda":
        assert facts["processes"] == gpus, "one for each"
        assert facts["device_name"] == torch.cuda.get_device_name()
        assert facts["capability"] == ".".join(map(str, torch.cuda.get_device_capability()))
        assert facts["driver"].startswith(f"CUDA {torch.version.cuda}, driver ")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_again_gives_the_same_bits(trained: BakedProject, precision: str) -> None:
    first, before = train(trained, precision=precision, **ONE), weights(trained)
    again, after = train(trained, precision=precision, **ONE), weights(trained)
    assert len(before) == EPOCHS
    assert after == before
    assert again["numeric_fingerprint"] == first["numeric_fingerprint"] != ""
    assert again["precision"] == precision
    assert read(trained, "reports/metrics.json")["test_acc"] > 0.9


def test_precisions_have_fingerprints_and_weights_of_their_own(trained: BakedProject) -> None:
    runs = [(train(trained, precision=name, **ONE)["numeric_fingerprint"], *weights(trained)) for name in PRECISIONS]
    assert len({fingerprint for fingerprint, *_ in runs}) == len({tuple(hashes) for _, *hashes in runs}) == len(runs)


def test_products_are_of_fp32_unless_tf32_is_asked_for(trained: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys, torch
from mlops.training.device import build_fabric
fabric = build_fabric(precision=sys.argv[1])
torch.manual_seed(0)
left, right = (torch.randn(1024, 1024, device=fabric.device) for _ in range(2))
exact = left.double() @ right.double()
print(float(((left @ right).double() - exact).abs().max() / exact.abs().max()))
"""
    errors = {
        name: float(trained.run("python", "-c", code, name).stdout)
        for name in (["fp32", "tf32"] if DEVICE == "cuda" else ["fp32"])
    }
    assert errors["fp32"] < 1e-5
    if "tf32" in errors:
        assert errors["tf32"] > 1e-5


def test_two_processes_train_as_well_as_one(trained: BakedProject, gpus: int) -> None:
    if gpus < 2:
        pytest.skip(f"two processes need two GPUs, and this machine has {gpus}: not tested")
    train(trained, **ONE)
    alone, score = weights(trained), read(trained, "reports/metrics.json")["test_acc"]
    pair = {**ONE, "processes": 2}
    facts, both = train(trained, **pair), weights(trained)
    assert facts["processes"] == 2
    assert read(trained, "reports/metrics.json")["test_acc"] == pytest.approx(score, abs=0.03)
    assert both != alone, "sums in another order"
    train(trained, **pair)
    assert weights(trained) == both


@pytest.mark.skipif(os.name == "nt", reason="kills a group of processes")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_killed_training_that_goes_on_has_the_bits_of_one_that_was_not(
    trained: BakedProject, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(trained, **{**ONE, "epochs": MANY_EPOCHS, "precision": precision})
    whole = weights(trained)
    monkeypatch.setenv("CHECKPOINT_DIR", ".dvc/tmp/checkpoint")
    states = trained.path / ".dvc/tmp/checkpoint"
    command = ["dvc", "repro", "--force", "--single-item", "train"]
    process = subprocess.Popen(command, cwd=trained.path, start_new_session=True)
    until(lambda: process.poll() is not None or len(list(states.glob("[01].pt"))) == 2)
    assert process.poll() is None, "it ended too soon"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed = trained.run(*command)
    assert "training resumes after epoch" in resumed.stderr
    assert weights(trained) == whole
    assert len(read(trained, "reports/train/lineage.json")["resumed_at"]) == 1


def test_loop_keeps_the_gpu_as_busy_as_a_bare_one(trained: BakedProject) -> None:
    size = {"arch": "resnet18", "px": 64, "batch": 256, "records": 256 * 40} if DEVICE == "cuda" else {"records": 512}
    ratio = training_throughput.compare(trained, rounds=5, **size).ratio
    goal = 0.95 if DEVICE == "cuda" else 0.8  # on CPUs, steps of 8 x 8 pixels take 6 ms
    assert ratio >= goal, f"{ratio:.3f} of the bare loop's images a second"

"""The numeric fingerprint stands for the bits of a training; the hash of weights for the weights."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mlops.training.device import build_fabric
from mlops.training.numerics import numeric_fingerprint, weights_hash
from torch import Tensor, nn
from torch.nn import functional

from ..conftest import SKELETON

SHAPE, CLASSES = (32, 1, 8, 8), 10


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    body = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32)]
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, CLASSES))


def train(module: nn.Module, steps: int) -> str:
    """Return the hash of what a short training gives: the bits that the fingerprint is to stand for."""
    random = torch.Generator().manual_seed(3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(steps):
        images = torch.randint(0, 256, SHAPE, generator=random).float().div(127.5).sub(1)
        optimizer.zero_grad()
        functional.cross_entropy(module(images), torch.arange(SHAPE[0]) % CLASSES).backward()
        optimizer.step()
    return weights_hash(module.state_dict())


def print_both(threads: int) -> None:
    """Print the fingerprint and the weights after a short training, as a process of its own does."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    print(numeric_fingerprint(network(), SHAPE, CLASSES), train(network(), steps=30))


def in_process(threads: int = 1, **variables: str) -> tuple[str, str]:
    code = f"from tests.mlops.training.test_numerics import print_both; print_both({threads})"
    environment = {**os.environ, **variables, "PYTHONPATH": str(SKELETON)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    fingerprint, weights = done.stdout.split()
    return fingerprint, weights


@pytest.mark.slow
def test_fingerprint_differs_between_processes_exactly_where_the_weights_do() -> None:
    settings: dict[str, dict[str, Any]] = {
        "default": {},
        "again": {},
        "oneDNN": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        "older oneDNN": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
        "MKL": {"MKL_CBWR": "COMPATIBLE"},
        "newer MKL": {"MKL_CBWR": "AVX2"},
        "ATen": {"ATEN_CPU_CAPABILITY": "default"},
        "threads": {"threads": 2},
    }
    results = {name: in_process(**variables) for name, variables in settings.items()}
    assert results["default"] == results["again"]
    for name, (fingerprint, weights) in results.items():
        for other, (other_fingerprint, other_weights) in results.items():
            assert (fingerprint == other_fingerprint) == (weights == other_weights), f"{name} and {other}"
    assert len({weights for _, weights in results.values()}) > 1, "else nothing is shown"


def test_fingerprint_leaves_the_network_and_the_random_numbers_as_they_are() -> None:
    module = network()
    module[0].requires_grad_(False)
    module.eval()
    before, state = weights_hash(module.state_dict()), torch.get_rng_state()
    numeric_fingerprint(module, SHAPE, CLASSES)
    assert weights_hash(module.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert [parameter.requires_grad for parameter in module.parameters()][:3] == [False, False, True]


def test_fingerprint_is_the_same_whatever_the_network_has_learned() -> None:
    module = network()
    before = numeric_fingerprint(module, SHAPE, CLASSES)
    train(module, steps=3)
    assert numeric_fingerprint(module.requires_grad_(False), SHAPE, CLASSES) == before
    assert numeric_fingerprint(network(seed=7), SHAPE, CLASSES) == before
    assert len(before) == 16


@pytest.mark.parametrize("shape", [(16, 1, 8, 8), (33, 1, 8, 8)], ids=["fewer", "more"])
def test_fingerprint_of_another_batch_is_another_one(shape: tuple[int, ...]) -> None:
    assert numeric_fingerprint(network(), shape, CLASSES) != numeric_fingerprint(network(), SHAPE, CLASSES)


def test_fingerprint_of_large_images_takes_few_of_them() -> None:
    sizes = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            mean: Tensor = self.layer(images.mean((2, 3)))
            return mean

    for shape in ((256, 3, 224, 224), (256, 3, 1024, 1024), (1, 3, 8, 8)):
        numeric_fingerprint(Recorder(), shape, 2)
    assert sizes == [6, 2, 2], "two or more: BatchNorm can't take a variance over one"


class Outputs(NamedTuple):
    logits: Tensor
    auxiliary: Tensor


def test_fingerprint_of_a_network_with_two_outputs_takes_its_loss() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(64, CLASSES), nn.Linear(64, CLASSES)])

        def forward(self, images: Tensor) -> Outputs:
            return Outputs(*(head(images.flatten(1)) for head in self.heads))

    def loss(output: Outputs, labels: Tensor) -> Tensor:
        return functional.cross_entropy(output.logits, labels) + 0.4 * functional.cross_entropy(
            output.auxiliary, labels
        )

    def main_loss(output: Outputs, labels: Tensor) -> Tensor:
        return functional.cross_entropy(output.logits, labels)

    whole = numeric_fingerprint(TwoHeads(), SHAPE, CLASSES, loss=loss)
    assert whole == numeric_fingerprint(TwoHeads(), SHAPE, CLASSES, loss=loss)
    assert whole != numeric_fingerprint(TwoHeads(), SHAPE, CLASSES, loss=main_loss), "a head without gradients"


def test_fingerprint_of_a_step_that_is_not_finite_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    def infinite(output: Tensor, labels: Tensor) -> Tensor:
        return output.sum() / 0

    assert numeric_fingerprint(network(), SHAPE, CLASSES, loss=infinite) == ""
    assert "no numeric fingerprint" in caplog.text


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_fingerprint_has_the_precision_of_the_training(precision: str) -> None:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    alone, own = numeric_fingerprint(network(), SHAPE, CLASSES), numeric_fingerprint(network(), SHAPE, CLASSES, fabric)
    assert (own == alone) == (precision == "32-true")


def one_of_two(rank: int, port: int, folder: Path) -> None:
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    fabric = build_fabric(processes=2)
    (folder / str(rank)).write_text(numeric_fingerprint(network(seed=rank), SHAPE, CLASSES, fabric), encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="torch for Windows lacks libuv")
def test_fingerprint_of_two_processes_is_the_same_in_both_and_not_that_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, tmp_path), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    first, second = ((tmp_path / str(rank)).read_text(encoding="utf-8") for rank in range(2))
    alone = numeric_fingerprint(network(), SHAPE, CLASSES)
    assert first == second != alone


@pytest.mark.parametrize(
    "changed",
    [
        {"b": torch.zeros(2), "a": torch.ones(3)},
        {"a": torch.zeros(3), "b": torch.zeros(2)},
        {"a": torch.ones(3), "c": torch.zeros(2)},
        {"a": torch.ones(3, dtype=torch.int32), "b": torch.zeros(2)},
        {"a": torch.ones(3), "b": torch.zeros(1, 2)},
        {"a": torch.ones(3), "b": -torch.zeros(2)},
        {"a": torch.ones(3)},
    ],
    ids=["order", "bytes", "name", "dtype", "shape", "sign of zero", "fewer"],
)
def test_weights_hash_is_another_one_for_any_change_but_the_order(changed: Mapping[str, Tensor]) -> None:
    state = {"a": torch.ones(3), "b": torch.zeros(2)}
    assert (weights_hash(changed) == weights_hash(state)) == (list(changed) == ["b", "a"])


def test_weights_hash_is_of_the_values_and_not_of_how_they_lie_in_memory() -> None:
    weights = torch.arange(96.0).view(2, 3, 4, 4)
    state = {"weights": weights, "scalar": torch.tensor(3), "half": torch.ones(3, dtype=torch.bfloat16)}
    other = {**state, "weights": weights.to(memory_format=torch.channels_last).requires_grad_()}
    assert weights_hash(state) == weights_hash(other)

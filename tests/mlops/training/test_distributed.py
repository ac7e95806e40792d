"""Several processes train as one does."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from mlops.training.distributed import SINGLE_PROCESS, ProcessGroup, current_group, process_group
from team.model.dataset import Images
from team.model.networks import build
from team.model.training import Epoch
from torch import nn

from .loop import Result, free_port, join, params, pictures, train

PARAMS = params(epochs=2, max_lr=3e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("records", [2, 3, 5, 16, 17, 64])
def test_shard_batch_parts_are_the_batch_and_their_weighted_mean_is_its_mean(records: int, size: int) -> None:
    batch = torch.randperm(records)
    shares = [ProcessGroup(rank, size).shard_batch(batch) for rank in range(size)]
    assert all(len(part) >= 2 for part, _ in shares), "BatchNorm can't take a variance over one"
    assert torch.equal(torch.cat([part for part, weight in shares if weight]), batch)
    mean = sum(weight * part.double().mean() for part, weight in shares) / size
    assert float(mean) == pytest.approx(batch.double().mean().item())


def test_shard_batch_alone_is_the_batch_itself() -> None:
    batch = torch.randperm(5)
    mine, weight = SINGLE_PROCESS.shard_batch(batch)
    assert mine is batch
    assert weight == 1


def test_parallel_alone_is_the_network_itself() -> None:
    module = nn.Linear(1, 1)
    assert SINGLE_PROCESS.parallel(module) is module


def test_current_group_outside_of_any_is_a_group_of_one() -> None:
    assert current_group() == SINGLE_PROCESS


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))


def run(make: Callable[[], nn.Module], images: Images, group: ProcessGroup) -> Result:
    return train(make, (images, images), PARAMS, group=group)


def cases(group: ProcessGroup) -> dict[str, Result]:
    """Batches of 16 and 16 and then 2, which only one of two processes can share, or 5, shared unequally."""
    mobilenet = lambda: build("mobilenet_v3_small", 2, 3, None)  # noqa: E731  # its last BatchNorm sees one pixel per image
    return {
        "left over 2": run(plain, pictures(34), group),
        "left over 5": run(plain, pictures(37), group),
        "batch norm": run(mobilenet, pictures(34, 3, 32), group),
        "batch norm again": run(mobilenet, pictures(34, 3, 32), group),
    }


def one_of_two(rank: int, port: int, folder: Path) -> None:
    join(rank, 2, port)
    with process_group(2) as group:
        assert current_group() == group == ProcessGroup(rank, 2)
        results = {name: asdict(result) for name, result in cases(group).items()}
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What each of two real processes computed."""
    if os.name == "nt":
        pytest.skip("torch for Windows lacks libuv, which its rendezvous asks for")
    folder = tmp_path_factory.mktemp("pair")
    torch.multiprocessing.spawn(one_of_two, (free_port(), folder), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    loaded = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return [
        {name: Result(Epoch(**result["best"]), result["epochs"], result["weights"]) for name, result in results.items()}
        for results in loaded
    ]


@pytest.mark.parametrize(("case", "count"), [("left over 2", 34), ("left over 5", 37)])
def test_fit_on_two_processes_computes_what_one_computes(pair: list[dict[str, Result]], case: str, count: int) -> None:
    alone, both = run(plain, pictures(count), SINGLE_PROCESS), pair[0][case]
    for epoch, shared in zip(alone.epochs, both.epochs, strict=True):
        assert shared == pytest.approx(epoch, rel=1e-5), "losses, accuracy and learning rate"
    for name, weights in both.weights.items():
        assert torch.allclose(weights, alone.weights[name], atol=1e-5), name


@pytest.mark.parametrize("case", ["left over 2", "left over 5", "batch norm"])
def test_fit_on_two_processes_agrees_in_both(pair: list[dict[str, Result]], case: str) -> None:
    first, second = pair[0][case], pair[1][case]
    assert (first.best, first.epochs) == (second.best, second.epochs)
    trained = [name for name in first.weights if "running" not in name and "batches" not in name]
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in trained)


def test_fit_on_two_processes_twice_gives_the_same_bits(pair: list[dict[str, Result]]) -> None:
    first, again = pair[0]["batch norm"], pair[0]["batch norm again"]
    assert (first.best, first.epochs) == (again.best, again.epochs)
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)

"""Several processes train as one does."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlops.training.distributed import SINGLE_PROCESS, ProcessGroup, is_peer_failure, process_group
from team.model.networks import build
from team.model.training import Epoch, TrainConfig, fit, make_deterministic
from team.model.transforms import Images, Normalise
from torch import Tensor, nn

RECIPE = TrainConfig(epochs=2, batch_size=16, max_lr=3e-3, weight_decay=1e-4)
Result = tuple[list[Epoch], dict[str, Tensor]]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("records", [2, 3, 5, 16, 17, 64])
def test_share_parts_are_the_batch_and_their_weighted_mean_is_its_mean(records: int, size: int) -> None:
    batch = torch.randperm(records)
    shares = [ProcessGroup(rank, size).share(batch) for rank in range(size)]
    assert all(len(part) >= 2 for part, _ in shares), "BatchNorm can't take a variance over one"
    assert torch.equal(torch.cat([part for part, weight in shares if weight]), batch)
    mean = sum(weight * part.double().mean() for part, weight in shares) / size
    assert float(mean) == pytest.approx(batch.double().mean().item())


def test_share_alone_is_the_batch_itself() -> None:
    batch = torch.randperm(5)
    mine, weight = SINGLE_PROCESS.share(batch)
    assert mine is batch
    assert weight == 1


def test_parallel_alone_is_the_network_itself() -> None:
    module = nn.Linear(1, 1)
    assert SINGLE_PROCESS.parallel(module) is module


def test_is_lost_an_error_of_ones_own_is_not() -> None:
    assert is_peer_failure(
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection reset by peer")
    )
    assert not is_peer_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))


def pictures(count: int, channels: int = 1, px: int = 8) -> Images:
    random = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, channels, px, px), dtype=torch.uint8, generator=random)
    return Images(pixels, torch.arange(count) % 2)


def run(make: Callable[[], nn.Module], images: Images, group: ProcessGroup) -> Result:
    make_deterministic(group.rank, 1)  # another network in each, so that it matters whose is taken
    module, epochs = make(), []
    fit(module, images, images, Normalise.of(images.pixels), RECIPE, epochs.append, group)
    return epochs, module.state_dict()


def cases(group: ProcessGroup) -> dict[str, Result]:
    """Batches of 16 and 16 and then 2, which only one of two processes can share, or 5, shared unequally."""
    mobilenet = lambda: build("mobilenet_v3_small", 2, None)  # noqa: E731  # its last BatchNorm sees one pixel per image
    return {
        "left over 2": run(plain, pictures(34), group),
        "left over 5": run(plain, pictures(37), group),
        "batch norm": run(mobilenet, pictures(34, 3, 32), group),
        "batch norm again": run(mobilenet, pictures(34, 3, 32), group),
    }


def one_of_two(rank: int, port: int, folder: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with process_group(2) as group:
        found = {name: ([vars(epoch) for epoch in epochs], state) for name, (epochs, state) in cases(group).items()}
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What each of two real processes found."""
    if os.name == "nt":
        pytest.skip("torch for Windows lacks libuv, which its rendezvous asks for")
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, folder), nprocs=2)
    loaded = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return [
        {name: ([Epoch(**epoch) for epoch in epochs], state) for name, (epochs, state) in one.items()} for one in loaded
    ]


@pytest.mark.parametrize(("case", "count"), [("left over 2", 34), ("left over 5", 37)])
def test_fit_on_two_processes_computes_what_one_computes(pair: list[dict[str, Result]], case: str, count: int) -> None:
    epochs, state = run(plain, pictures(count), SINGLE_PROCESS)
    for one, both in zip(epochs, pair[0][case][0], strict=True):
        assert vars(both) == pytest.approx(vars(one), rel=1e-5), "losses, accuracy and learning rate"
    for name, weights in pair[0][case][1].items():
        assert torch.allclose(weights, state[name], atol=1e-5), name


@pytest.mark.parametrize("case", ["left over 2", "left over 5", "batch norm"])
def test_fit_on_two_processes_agrees_in_both(pair: list[dict[str, Result]], case: str) -> None:
    (first, weights), (second, others) = pair[0][case], pair[1][case]
    assert first == second
    trained = [name for name in weights if "running" not in name and "batches" not in name]
    assert all(torch.equal(weights[name], others[name]) for name in trained)


def test_fit_on_two_processes_twice_gives_the_same_bits(pair: list[dict[str, Result]]) -> None:
    (first, weights), (second, again) = pair[0]["batch norm"], pair[0]["batch norm again"]
    assert first == second
    assert all(torch.equal(weights[name], again[name]) for name in weights)

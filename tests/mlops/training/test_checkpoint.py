"""A training that is cut off and goes on ends as one that was not; what is no good is told, and not gone on from."""

import logging
import math
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlops.errors import ProjectError
from mlops.training import checkpoint as module
from mlops.training.checkpoint import NAMES, Checkpoints
from mlops.training.distributed import SINGLE_PROCESS, ProcessGroup, process_group
from mlops.training.serialization import pack, unpack
from safetensors.torch import save
from team.model.training import Epoch, TrainConfig, fit, make_deterministic
from team.model.transforms import Images, Normalise
from torch import Tensor, nn

RECIPE = TrainConfig(epochs=5, batch_size=16, max_lr=0.03, weight_decay=1e-4)
INPUTS = {"params": {"seed": 0}, "data": "abc"}
Result = tuple[Epoch, list[Epoch], dict[str, Tensor]]


class CutOffError(Exception):
    pass


@pytest.fixture(autouse=True)
def after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", math.inf)


def network() -> nn.Module:
    """One that needs all there is to restore: random numbers in each step, and running statistics."""
    layers = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)
    return nn.Sequential(nn.Flatten(), *layers)


def pictures(count: int) -> Images:
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    return Images(pixels, torch.arange(count) % 2)


def run(checkpoints: Checkpoints, cut_off_in: int = -1, group: ProcessGroup = SINGLE_PROCESS) -> Result:
    """Train from wherever `checkpoints` says; in the epoch `cut_off_in`, end before its state is saved."""
    make_deterministic(group.rank, 1)
    net, epochs = network(), []

    def report(epoch: Epoch) -> None:
        epochs.append(epoch)
        if epoch.number == cut_off_in:
            raise CutOffError

    images = pictures(50)
    best = fit(net, images, pictures(30), Normalise.of(images.pixels), RECIPE, report, group, checkpoints)
    return best, epochs, net.state_dict()


def cut_off(folder: Path, epoch: int) -> None:
    with pytest.raises(CutOffError):
        run(Checkpoints(folder, INPUTS), epoch)


def assert_same(found: Result, whole: Result) -> None:
    assert found[0] == whole[0], "the best epoch"
    assert found[1] == whole[1][-len(found[1]) or len(whole[1]) :], "the figures of each epoch"
    assert all(torch.equal(found[2][name], whole[2][name]) for name in whole[2]), "weights"


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_cut_off_training_that_goes_on_ends_with_the_same_bits(tmp_path: Path, epoch: int) -> None:
    cut_off(tmp_path, epoch)
    found = run(Checkpoints(tmp_path, INPUTS))
    assert [one.number for one in found[1]] == list(range(epoch, RECIPE.epochs))
    assert_same(found, run(Checkpoints()))


def test_cut_off_twice_goes_on_from_the_later_state(tmp_path: Path) -> None:
    cut_off(tmp_path, 1)
    cut_off(tmp_path, 3)
    found = run(Checkpoints(tmp_path, INPUTS))
    assert [one.number for one in found[1]] == [3, 4]
    assert_same(found, run(Checkpoints()))


def test_cut_off_after_the_last_epoch_computes_none_again(tmp_path: Path) -> None:
    whole = run(Checkpoints(tmp_path, INPUTS))
    found = run(Checkpoints(tmp_path, INPUTS))
    assert found[1] == []
    assert_same(found, whole)


def test_saving_changes_no_bit_of_the_result(tmp_path: Path) -> None:
    assert_same(run(Checkpoints(tmp_path, INPUTS)), run(Checkpoints()))


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def another_tree(data: bytes) -> bytes:
    return data.replace(b'\\"epochs\\"', b'\\"epoxhs\\"', 1)


def foreign(data: bytes) -> bytes:
    return save({"0": torch.zeros(1)}, {"tree": "{}"})


@pytest.mark.parametrize("damage", [half, flipped, another_tree, foreign, lambda data: b""])
def test_damaged_state_is_told_and_the_one_before_gone_on_from(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(tmp_path, 3)
    last = max((tmp_path / name for name in NAMES), key=lambda path: unpack(path.read_bytes())["state"]["epochs"])
    last.write_bytes(damage(last.read_bytes()))
    found = run(Checkpoints(tmp_path, INPUTS))
    assert f"{last} is damaged" in caplog.text
    assert [one.number for one in found[1]] == [2, 3, 4]
    assert_same(found, run(Checkpoints()))


def test_nothing_but_damaged_states_starts_anew_and_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"\xff" * 100)
    assert Checkpoints(tmp_path, INPUTS).state is None
    assert "starts from its first epoch" in caplog.text


@pytest.mark.parametrize(
    ("inputs", "named"),
    [({**INPUTS, "params": {"seed": 1}}, "params"), ({"params": INPUTS["params"]}, "data"), ({**INPUTS, "x": 1}, "x")],
    ids=["changed", "gone", "new"],
)
def test_state_of_other_inputs_is_told_and_not_gone_on_from(
    tmp_path: Path, inputs: dict[str, Any], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(tmp_path, 2)
    assert Checkpoints(tmp_path, inputs).state is None
    assert f"is of other inputs: {named}\n" in caplog.text
    assert "starts from its first epoch" in caplog.text


def test_going_on_replaces_the_older_state(tmp_path: Path) -> None:
    cut_off(tmp_path, 3)
    for name in NAMES:  # as S3 gives them back
        os.utime(tmp_path / name, (0, 0))
    cut_off(tmp_path, 4)
    states = [unpack((tmp_path / name).read_bytes())["state"]["epochs"] for name in NAMES]
    assert sorted(states) == [3, 4]


def test_files_are_carried_along(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path, INPUTS)
    first.carry = lambda: {"a/b.tsv": b"1\t2\n", "empty": b""}
    run(first)
    assert Checkpoints(tmp_path, INPUTS).files == {"a/b.tsv": b"1\t2\n", "empty": b""}


def test_save_waits_until_it_has_cost_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 1e-9)
    run(Checkpoints(tmp_path, INPUTS))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[0]]
    assert unpack((tmp_path / NAMES[0]).read_bytes())["state"]["epochs"] == 1


def test_save_that_fails_is_told_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    checkpoints = Checkpoints(tmp_path / "inside", INPUTS)
    (tmp_path / "inside").rmdir()
    (tmp_path / "inside").touch()
    assert_same(run(checkpoints), run(Checkpoints()))
    assert "no checkpoint is saved" in caplog.text


def test_folder_that_is_a_file_is_told_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match=r"CHECKPOINT_DIR[\s\S]*unset it"):
        Checkpoints(tmp_path / "file", INPUTS)


def test_clear_deletes_the_states_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    checkpoints = Checkpoints(tmp_path, INPUTS)
    run(checkpoints)
    checkpoints.clear()
    Checkpoints().clear()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def draw() -> list[float]:
    return [torch.randn(1).item(), torch.rand(1).item(), np.random.normal(), random.gauss(0, 1), random.random()]


def test_random_numbers_of_all_three_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    draw()  # so that a second Gaussian number is waiting in NumPy and Python
    Checkpoints(tmp_path, INPUTS).save({"epochs": 7})
    expected = draw() + draw()
    kept = Checkpoints(tmp_path, INPUTS)
    assert "goes on after epoch 7" in caplog.text
    kept.restore_random_numbers()
    assert draw() + draw() == expected


def test_unpack_gives_what_was_packed() -> None:
    plain = {"text": "ä", "none": None, "yes": True, "numbers": [1, 0.1, -math.inf, 5e-324, 2**60], "bytes": b"\0a"}
    tree = {**plain, "empty": {}, "list": [[], b""], "keys": {0: {"step": torch.tensor(3.0)}, "0": 1}}
    found = unpack(pack(tree))
    assert torch.equal(found["keys"][0].pop("step"), torch.tensor(3.0))
    assert found == {**tree, "keys": {0: {}, "0": 1}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_unpack_gives_tensors_of_every_kind(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    (found,) = unpack(pack([tensor.mT if tensor.ndim == 2 else tensor]))
    assert found.dtype == dtype
    assert torch.equal(found, tensor.mT if tensor.ndim == 2 else tensor)


def member(rank: int, size: int, port: int, folder: Path) -> None:
    """What each of several processes does: train, train and be cut off, go on; and save what it found."""
    module.SHARE = math.inf
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    own = folder / "first" if rank == 0 else folder / "not here"  # on other machines it may be another state
    with process_group(size) as group:
        whole = run(Checkpoints(), group=group)
        cut_off_in_group(own, group)
        found = run(Checkpoints(own, INPUTS, group), group=group)
    assert len(found[1]) == 3
    assert_same(found, whole)
    (folder / f"{rank} is done").touch()


def cut_off_in_group(folder: Path, group: ProcessGroup) -> None:
    with pytest.raises(CutOffError):
        run(Checkpoints(folder, INPUTS, group), 2, group)


@pytest.mark.skipif(os.name == "nt", reason="torch for Windows lacks libuv, which its rendezvous asks for")
def test_cut_off_processes_that_go_on_end_with_the_same_bits(tmp_path: Path) -> None:
    size = 3  # for two, the order of a sum would not matter
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(member, (size, port, tmp_path), nprocs=size)
    assert len(list(tmp_path.glob("* is done"))) == size
    assert not list((tmp_path / "not here").glob("*"))

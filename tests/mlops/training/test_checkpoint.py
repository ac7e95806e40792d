"""An interrupted training that resumes ends as one that was not; a checkpoint that is no good is reported, not used."""

import hashlib
import io
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from mlops.errors import ProjectError
from mlops.training import checkpoint as module
from mlops.training.checkpoint import NAMES, Checkpoints, pack, unpack

from . import loop
from .loop import EPOCHS, INPUTS, Result, stateful, train


@pytest.fixture(autouse=True)
def after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", math.inf)


run = partial(train, Fabric(accelerator="cpu", devices=1), stateful)


def cut_off(folder: Path, epoch: int) -> None:
    """Train from wherever the folder says; in an epoch, counted from 0, end before its state is saved."""
    assert loop.cut_off(run, folder, None, epoch) == Result()


def assert_same(result: Result, whole: Result, epochs: int) -> None:
    """Compare all bits with those of a training that was not cut off, of which the last `epochs` were computed."""
    assert result.losses == whole.losses[len(whole.losses) - epochs :]
    assert all(torch.equal(result.weights[name], whole.weights[name]) for name in whole.weights), "weights"


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_cut_off_training_that_resumes_ends_with_the_same_bits(tmp_path: Path, epoch: int) -> None:
    cut_off(tmp_path, epoch)
    assert_same(run(checkpoints=Checkpoints(tmp_path, INPUTS)), run(), epochs=EPOCHS - epoch)


def test_cut_off_twice_resumes_from_the_later_state(tmp_path: Path) -> None:
    cut_off(tmp_path, 1)
    cut_off(tmp_path, 3)
    assert_same(run(checkpoints=Checkpoints(tmp_path, INPUTS)), run(), epochs=2)


def test_cut_off_after_the_last_epoch_computes_none_again(tmp_path: Path) -> None:
    whole = run(checkpoints=Checkpoints(tmp_path, INPUTS))
    assert_same(run(checkpoints=Checkpoints(tmp_path, INPUTS)), whole, epochs=0)


def test_saving_changes_no_bit_of_the_result(tmp_path: Path) -> None:
    assert_same(run(checkpoints=Checkpoints(tmp_path, INPUTS)), run(), epochs=EPOCHS)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def another_key(data: bytes) -> bytes:
    assert b"epochs" in data
    return data.replace(b"epochs", b"epoxhs", 1)


def foreign(data: bytes) -> bytes:
    file = io.BytesIO()
    torch.save({"epochs": 3}, file)
    return file.getvalue()


@pytest.mark.parametrize("damage", [half, flipped, another_key, foreign, lambda data: b""])
def test_damaged_state_is_reported_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(tmp_path, 3)
    last = max((tmp_path / name for name in NAMES), key=lambda path: unpack(path.read_bytes())["state"]["epochs"])
    last.write_bytes(damage(last.read_bytes()))
    result = run(checkpoints=Checkpoints(tmp_path, INPUTS))
    assert f"{last} is damaged" in caplog.text
    assert_same(result, run(), epochs=3)


def test_nothing_but_damaged_states_starts_anew_and_reports_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"\xff" * 100)
    assert Checkpoints(tmp_path, INPUTS).state is None
    assert "starts from its first epoch" in caplog.text


class Code:
    """What pickle makes again by a call: here, of a function that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_state_with_code_is_damaged_and_runs_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = io.BytesIO()
    torch.save({"state": Code(tmp_path / "made")}, file)
    torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    (tmp_path / "made").rmdir()
    (tmp_path / NAMES[0]).write_bytes(hashlib.sha256(file.getvalue()).digest() + file.getvalue())
    assert Checkpoints(tmp_path, INPUTS).state is None
    assert f"{tmp_path / NAMES[0]} is damaged: it is not a checkpoint" in caplog.text
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("inputs", "named"),
    [({**INPUTS, "params": {"seed": 1}}, "params"), ({"params": INPUTS["params"]}, "data"), ({**INPUTS, "x": 1}, "x")],
    ids=["changed", "removed", "new"],
)
def test_state_of_other_inputs_is_reported_and_not_used(
    tmp_path: Path, inputs: dict[str, Any], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(tmp_path, 2)
    assert Checkpoints(tmp_path, inputs).state is None
    assert f"was made from other inputs: {named}\n" in caplog.text
    assert "starts from its first epoch" in caplog.text


def test_resuming_replaces_the_older_state(tmp_path: Path) -> None:
    cut_off(tmp_path, 3)
    for name in NAMES:  # as S3 gives them back
        os.utime(tmp_path / name, (0, 0))
    cut_off(tmp_path, 4)
    states = [unpack((tmp_path / name).read_bytes())["state"]["epochs"] for name in NAMES]
    assert sorted(states) == [3, 4]


def test_files_are_saved_with_a_state(tmp_path: Path) -> None:
    files = {"a/b.tsv": b"1\t2\n", "empty": b"", "any": bytes(range(256))}
    first = Checkpoints(tmp_path, INPUTS)
    first.extra_files = lambda: files
    run(checkpoints=first)
    assert Checkpoints(tmp_path, INPUTS).files == files


def test_save_waits_until_it_has_cost_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 1e-9)
    run(checkpoints=Checkpoints(tmp_path, INPUTS))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[0]]
    assert unpack((tmp_path / NAMES[0]).read_bytes())["state"]["epochs"] == 1


def test_save_that_fails_is_reported_and_training_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path / "inside", INPUTS)
    (tmp_path / "inside").rmdir()
    (tmp_path / "inside").touch()
    assert_same(run(checkpoints=checkpoints), run(), epochs=5)
    assert "no checkpoint is saved" in caplog.text


def test_folder_that_is_a_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match=r"CHECKPOINT_DIR[\s\S]*unset it"):
        Checkpoints(tmp_path / "file", INPUTS)


def test_clear_deletes_the_states_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    checkpoints = Checkpoints(tmp_path, INPUTS)
    run(checkpoints=checkpoints)
    checkpoints.clear()
    Checkpoints().clear()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_unpack_gives_what_was_packed() -> None:
    plain: dict[str, Any] = {
        "text": "ä",
        "none": None,
        "yes": True,
        "numbers": [1, 0.1, -math.inf, 5e-324, 2**60],
        "empty": {},
    }
    state = {**plain, "list": [[], (1, 2)], "keys": {0: {"step": torch.tensor(3.0)}, "0": 1}}
    unpacked = unpack(pack(state))
    assert torch.equal(unpacked["keys"][0].pop("step"), torch.tensor(3.0))
    assert unpacked == {**state, "keys": {0: {}, "0": 1}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_unpack_gives_tensors_of_every_kind(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    tensor = tensor.mT if tensor.ndim == 2 else tensor
    unpacked = unpack(pack({"tensor": tensor}))["tensor"]
    assert unpacked.dtype == dtype
    assert torch.equal(unpacked, tensor)


def test_scale_of_the_loss_in_fp16_is_restored(tmp_path: Path) -> None:
    first, second = (SimpleNamespace(is_global_zero=True, broadcast=lambda value: value) for _ in range(2))
    for fabric in (first, second):
        scaler = torch.amp.GradScaler("cpu")  # what Fabric has on a GPU
        fabric.strategy = SimpleNamespace(precision=MixedPrecision("16-mixed", "cpu", scaler))
    first.strategy.precision.scaler.scale(torch.ones(()))
    first.strategy.precision.scaler.update(512.0)
    Checkpoints(tmp_path, INPUTS, cast(Fabric, first)).save({"epochs": 1})
    Checkpoints(tmp_path, INPUTS, cast(Fabric, second))
    assert second.strategy.precision.scaler.get_scale() == 512.0

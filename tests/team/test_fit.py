"""The training on one process and on several, whole and cut off in any epoch: the same steps, the same bits."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from mlops.training import checkpoint

from ..mlops.training.test_processes import popen
from .fits import EPOCHS, STATEFUL, plain, run, stateful

COUNT = 3  # for two, the order of a sum would not matter
alone = Fabric(accelerator="cpu", devices=1)
Runs = list[dict[str, dict[str, Any]]]


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Compare all bits of two trainings, of which the second may have begun later."""
    assert first["best"] == second["best"]
    assert first["epochs"][-len(second["epochs"]) :] == second["epochs"]
    assert all(torch.equal(first["weights"][name], weights) for name, weights in second["weights"].items())


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_fit_that_is_cut_off_in_any_epoch_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    train = partial(run, alone, stateful, 40, **STATEFUL)
    assert train(folder=tmp_path, fail_after=epoch + 1) == {}
    resumed = train(folder=tmp_path)
    assert len(resumed["epochs"]) == EPOCHS - epoch
    assert_same(train(), resumed)


def test_fit_that_is_cut_off_after_its_patience_ends_where_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    train = partial(run, alone, plain, 40, max_lr=50.0, optimizer={"name": "SGD"}, patience=1)
    whole = train(folder=tmp_path)
    assert len(whole["epochs"]) < EPOCHS, "it gets worse"
    again = train(folder=tmp_path)
    assert again["epochs"] == []
    assert again["best"] == whole["best"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What each of several processes computed."""
    folder = tmp_path_factory.mktemp("runs")
    process = popen("tests.team.fits:results", folder, COUNT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(COUNT)]


@pytest.mark.slow
def test_fit_on_several_processes_takes_the_steps_of_one(runs: Runs) -> None:
    single, several = run(alone, plain, 37), runs[0]["plain"]
    for epoch, shared in zip(single["epochs"], several["epochs"], strict=True):
        assert shared == pytest.approx(epoch, rel=1e-4)
    for name, weights in several["weights"].items():
        assert torch.allclose(weights, single["weights"][name], atol=1e-5), name


@pytest.mark.slow
def test_fit_on_several_processes_agrees_and_repeats_itself(runs: Runs) -> None:
    for results in runs:
        assert results["whole"]["epochs"] == runs[0]["whole"]["epochs"]
        assert_same(results["whole"], results["again"])


@pytest.mark.slow
@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_fit_on_several_processes_that_is_cut_off_ends_with_the_same_bits(runs: Runs, epoch: int) -> None:
    for results in runs:
        assert len(results[str(epoch)]["epochs"]) == EPOCHS - epoch
        assert_same(results["whole"], results[str(epoch)])

"""The batches of a training: the same bits whoever makes them, and parts that add up to the step they are of."""

import hashlib
import itertools
import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops import ProjectError, TrainingLoader, evaluation_batches, mix_seed
from mlops.training import loader as module
from torch import Tensor
from torch.utils.data import Dataset


class Noisy(Dataset[Any]):
    """Items of all three kinds of random numbers, and of a sum that several threads would round otherwise."""

    random = True

    def __init__(self, count: int = 23) -> None:
        self.values = torch.rand(count, 70_000, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.tensor([torch.rand(1).item(), random.random(), np.random.rand()])
        return torch.cat([self.values[index].sum()[None], noise.float()]), index


class Plain(Dataset[Any]):
    """Items that are their positions, a batch at once if that is wanted."""

    random = False

    def __init__(self, count: int, fail_at: int = -1, kill_at: int = -1) -> None:
        self.count, self.fail_at, self.kill_at = count, fail_at, kill_at

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.fail_at:
            raise ProjectError(f"record {index} is damaged", "correct it")
        if index == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([float(index)]), index


class AtOnce(Plain):
    in_memory = True

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return torch.tensor(indices)[:, None].float(), torch.tensor(indices)


def process(rank: int = 0, count: int = 1) -> Any:
    """One process of a training, as Fabric describes it."""
    return SimpleNamespace(device=torch.device("cpu"), global_rank=rank, world_size=count)


def digest(loader: TrainingLoader, epochs: Sequence[int]) -> list[str]:
    """Return a hash of each epoch: what is loaded, and what the training draws meanwhile, such as for dropout."""
    digests = []
    for epoch in epochs:
        torch.manual_seed(epoch)
        whole = hashlib.sha256()
        for batch in loader.epoch(epoch):
            for tensor in (batch.images, batch.labels, torch.rand(3)):
                whole.update(tensor.numpy().tobytes())
        digests.append(whole.hexdigest())
    return digests


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return digest(TrainingLoader(Noisy(), 4, 0, process(), workers=0), range(3))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_epoch_is_the_same_for_any_number_of_workers_and_where_it_begins(workers: int, expected: list[str]) -> None:
    assert len(set(expected)) == 3
    random.seed(workers)
    np.random.seed(workers)
    loader = TrainingLoader(Noisy(), 4, 0, process(), workers=workers)
    assert digest(loader, range(3)) == expected
    assert digest(loader, [1]) == expected[1:2], "again"
    for _ in itertools.islice(loader.epoch(0), 2):  # an epoch that is left early
        pass
    assert digest(loader, [2]) == expected[2:]
    assert digest(TrainingLoader(Noisy(), 4, 0, process(), workers=workers), [2]) == expected[2:], "a new process"
    assert digest(TrainingLoader(Noisy(), 4, 1, process(), workers=workers), [0]) != expected[:1], "another seed"


def test_epoch_of_spawned_workers_is_the_same(expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)  # as on macOS and Windows
    try:
        assert digest(TrainingLoader(Noisy(), 4, 0, process(), workers=1), range(3)) == expected
    finally:
        multiprocessing.set_start_method(method, force=True)


def test_epoch_of_several_threads_is_the_same_and_leaves_their_number(expected: list[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert digest(TrainingLoader(Noisy(), 4, 0, process(), workers=0), range(3)) == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_leaves_the_random_numbers_of_the_training(workers: int) -> None:
    def numbers() -> tuple[float, float, float]:
        return torch.rand(1).item(), random.random(), np.random.rand()

    def seed() -> None:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)

    seed()
    expected = numbers()
    seed()
    list(TrainingLoader(Noisy(), 4, 0, process(), workers=workers).epoch(0))
    list(evaluation_batches(Noisy(), process(), 4, workers))
    assert numbers() == expected


def test_epoch_of_several_processes_has_the_samples_of_one(expected: list[str]) -> None:
    def samples(count: int, accumulate: int) -> dict[int, bytes]:
        loaders = [TrainingLoader(Noisy(), 8, 0, process(rank, count), accumulate, 0) for rank in range(count)]
        batches = [batch for loader in loaders for batch in loader.epoch(1) if batch.weight]
        labels = [label for batch in batches for label in batch.labels.tolist()]
        assert sorted(labels) == list(range(23)), "each record once"
        images = [image.numpy().tobytes() for batch in batches for image in batch.images]
        return dict(zip(labels, images, strict=True))

    single = samples(1, 1)
    assert samples(2, 1) == samples(3, 2) == single


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_parts_of_a_step_add_up_to_it(count: int, size: int, processes: int, accumulate: int, epoch: int) -> None:
    loaders = [TrainingLoader(AtOnce(count), size, 0, process(r, processes), accumulate, 0) for r in range(processes)]
    rows = [list(loader.epoch(epoch)) for loader in loaders]
    assert {len(row) for row in rows} == {loader.batches for loader in loaders}, "all processes step together"
    losses = torch.rand(count, dtype=torch.float64)
    step: list[tuple[Any, ...]] = []
    steps, seen = 0, []
    for batches in zip(*rows, strict=True):
        step.append(batches)
        assert len({batch.ends_step for batch in batches}) == 1
        if not batches[0].ends_step:
            continue
        parts = [batch for together in step for batch in together]
        assert min(len(batch.labels) for batch in parts) >= 2
        labels = torch.cat([batch.labels for batch in parts if batch.weight])
        assert {batch.records for batch in parts} == {len(labels)} and len(labels) <= size + 1
        loss = sum(batch.weight * losses[batch.labels].mean() for batch in parts) / processes
        assert loss == pytest.approx(losses[labels].mean().item())
        assert len(step) <= accumulate
        seen += labels.tolist()
        steps, step = steps + 1, []
    assert (
        step == []
        and sorted(seen) == list(range(count))
        and steps == loaders[0].steps == max(1, -(-(count - 1) // size))
    )


def test_epoch_of_one_process_has_weight_one_and_another_order_each_time() -> None:
    loader = TrainingLoader(Plain(10), 4, 0, process(), workers=0)
    orders = []
    for epoch in (0, 1):
        batches = list(loader.epoch(epoch))
        assert [(batch.weight, batch.ends_step, batch.records) for batch in batches] == [
            (1, True, n) for n in (4, 4, 2)
        ]
        assert all(batch.images.flatten().tolist() == batch.labels.tolist() for batch in batches)
        orders.append([label for batch in batches for label in batch.labels.tolist()])
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]
    same = TrainingLoader(AtOnce(10), 4, 0, process(), workers=0).epoch(1)
    assert [label for batch in same for label in batch.labels.tolist()] == orders[1]


@pytest.mark.parametrize("workers", [None, 0, 2])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_evaluation_batches_are_contiguous_parts_in_order(workers: int | None, count: int) -> None:
    for processes in (1, 2, 3):
        parts = [list(evaluation_batches(Plain(count), process(r, processes), 2, workers)) for r in range(processes)]
        for images, labels in itertools.chain(*parts):
            assert images.flatten().tolist() == labels.tolist()
        assert [label for part in parts for _, labels in part for label in labels.tolist()] == list(range(count))
        sizes = [sum(len(labels) for _, labels in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_record_is_reported_with_its_fix(workers: int) -> None:
    with pytest.raises(ProjectError, match="record 7 is damaged\nFix: correct it"):
        list(TrainingLoader(Plain(10, fail_at=7), 4, 0, process(), workers=workers).epoch(0))
    with pytest.raises(ProjectError, match="record 7 is damaged\nFix: correct it"):
        list(evaluation_batches(Plain(10, fail_at=7), process(), 4, workers))


def test_killed_worker_is_reported_with_a_way_out() -> None:
    with pytest.raises(ProjectError, match=r"that prepares batches (exited|is killed)[^()]*\nFix: .*TRAIN_WORKERS=0"):
        list(TrainingLoader(Plain(10, kill_at=7), 4, 0, process(), workers=2).epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_other_errors_of_a_dataset_are_its_own(error: type[Exception], workers: int) -> None:
    class Wrong(Plain):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            raise error("a shape is wrong")

    with pytest.raises(error, match="a shape is wrong"):
        list(TrainingLoader(Wrong(10), 4, 0, process(), workers=workers).epoch(0))


def test_number_of_workers_is_chosen_given_or_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(dataset: Dataset[Any], given: int | None = None) -> int:
        return TrainingLoader(dataset, 4, 0, process(), workers=given)._batches.num_workers

    def of(random: bool, in_memory: bool) -> Dataset[Any]:
        dataset: Any = AtOnce(10)
        dataset.random, dataset.in_memory = random, in_memory
        return dataset  # type: ignore[no-any-return]

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert [workers(of(random, in_memory)) for random, in_memory in itertools.product((False, True), repeat=2)] == [
        6,
        0,
        6,
        6,
    ]
    assert workers(of(True, False), 3) == 3
    monkeypatch.setenv("TRAIN_PROCESS_COUNT", "4")
    assert workers(of(True, False)) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)))
    assert workers(of(True, False)) == module.MOST_WORKERS
    monkeypatch.setenv("TRAIN_WORKERS", "5")
    assert workers(of(False, True), 3) == 5
    monkeypatch.setenv("TRAIN_WORKERS", "many")
    with pytest.raises(ProjectError, match=r"TRAIN_WORKERS is 'many'\nFix: set it to a number.* or unset it"):
        workers(of(False, True))


def test_mix_seed_is_the_same_everywhere_and_unrelated_for_neighbours() -> None:
    assert mix_seed(0, 1) == 17133762703416708090  # what the result of a run depends on
    seeds = {mix_seed(*numbers) for numbers in itertools.product(range(10), repeat=3)}
    assert len(seeds) == 1000 and mix_seed(1, 2) not in seeds
    bits = [bin(mix_seed(0, number) ^ mix_seed(0, number + 1)).count("1") for number in range(200)]
    assert 30 < sum(bits) / len(bits) < 34
    assert all(0 <= seed < 2**64 for seed in seeds)
    torch.default_generator.manual_seed(max(seeds))

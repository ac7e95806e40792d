"""The batches of a training, the same for any number of workers and processes, and after an interruption.

The order of an epoch is a function of (seed, epoch), and what is random about a sample, such as its augmentation, of
(seed, epoch, position): neither depends on who computes it, nor on what was computed before.
"""

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import ProjectError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_WORKERS = 16
"""Of a process, when nobody says how many: more seldom help, and each has the memory of its batches."""


class Batch(NamedTuple):
    """A part of the records of an optimizer step, for one process to compute on at once.

    The sum over the parts of a step and the mean over the processes of `weight` x mean loss is the mean loss over the
    step's records.
    """

    images: Tensor  # (N, ...), on the device
    labels: Tensor  # (N,) int64, on the device
    weight: float
    ends_step: bool  # the optimizer steps after it
    records: int  # of the whole step, in all processes


class _Part(NamedTuple):
    """A batch before it is loaded: positions in the dataset, (N,), and what `Batch` says of it."""

    positions: Tensor
    weight: float
    ends_step: bool
    records: int


def mix_seed(*numbers: int) -> int:
    """Return a seed of 64 bits from whole numbers: neighbours give unrelated ones.

    Args:
        numbers: Such as seed and epoch.
    """
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big")


class TrainingLoader:
    """The batches of each epoch, for one of the processes that train together.

    Args:
        dataset: Map-style. An item is (tensor, label). `dataset.random` False says that an item draws no random
            numbers, `dataset.in_memory` True that it takes no time; with both, `dataset.batch(positions)` gives
            (tensors, labels) at once.
        batch_size: Records of an optimizer step, 2 or more, over all processes. They share it in parts of two records
            or more, since BatchNorm can't take a variance over one; a last batch of one joins the one before.
        seed: Of order and samples.
        fabric: The process and its device.
        accumulate: Parts that each process computes one after the other, for want of memory.
        workers: Processes that prepare batches; None chooses. The environment variable TRAIN_WORKERS overrides it.

    Attributes:
        steps: Optimizer steps of an epoch.
        batches: Batches of an epoch, for each process: more than steps where they accumulate.

    Raises:
        ProjectError: TRAIN_WORKERS isn't a number.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        seed: int,
        fabric: "Fabric",
        accumulate: int = 1,
        workers: int | None = None,
    ) -> None:
        self._samples = _Samples(dataset, seed)
        self._batch_size, self._seed, self._accumulate, self._fabric = batch_size, seed, accumulate, fabric
        self._keys = _Keys()
        workers = _choose_workers(dataset, workers)
        self._batches = _batches(self._samples, self._keys, fabric, workers, persistent=True)
        steps = self._split(torch.arange(len(self._samples)))
        self.steps = len(steps)
        self.batches = sum(len(list(self._parts(step))) for step in steps)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield this process's batches of an epoch, counted from 0.

        Raises:
            ProjectError: A record can't be read, or a worker was killed.
        """
        count = len(self._samples)
        generator = torch.Generator().manual_seed(mix_seed(self._seed, number))
        steps = self._split(torch.randperm(count, generator=generator))
        parts = [part for step in steps for part in self._parts(step)]
        self._keys.keys = [part.positions + number * count for part in parts]
        for part, (images, labels) in zip(parts, _moved(self._batches, self._fabric), strict=True):
            yield Batch(images, labels, part.weight, part.ends_step, part.records)

    def _split(self, order: Tensor) -> list[Tensor]:
        steps = list(order.split(self._batch_size))
        if len(steps) > 1 and len(steps[-1]) == 1:
            steps[-2:] = [torch.cat(steps[-2:])]
        return steps

    def _parts(self, step: Tensor) -> Iterator[_Part]:
        """Yield this process's parts of the (N,) positions of a step."""
        processes, rank = self._fabric.world_size, self._fabric.global_rank
        parts = step.tensor_split(max(1, min(processes * self._accumulate, len(step) // 2)))
        for start in range(0, len(parts), processes):
            ends = start + processes >= len(parts)
            if start + rank < len(parts):
                own = parts[start + rank]
                yield _Part(own, len(own) * processes / len(step), ends, len(step))
            else:  # the others wait for its gradients
                yield _Part(step[:2], 0.0, ends, len(step))


def evaluation_batches(
    dataset: Dataset[Any], fabric: "Fabric", batch_size: int = 256, workers: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images, labels) of this process's part of a dataset, in order, on its device.

    Parts are contiguous: the first process has the first records.

    Args:
        dataset: As `TrainingLoader` takes it, whose errors there are.
        fabric: The process and its device.
        batch_size: Records that are computed at once.
        workers: Processes that prepare batches; None chooses.
    """
    count, processes, rank = len(dataset), fabric.world_size, fabric.global_rank  # type: ignore[arg-type]
    own = torch.arange(count * rank // processes, count * (rank + 1) // processes)
    keys = _Keys(list(own.split(batch_size)) if len(own) else [])
    workers = min(_choose_workers(dataset, workers), len(keys.keys) - 1)  # one batch: done before they start
    yield from _moved(_batches(_Samples(dataset, 0), keys, fabric, max(0, workers), persistent=False), fabric)


class _Keys:
    """The batches to load, each (N,) keys: epoch x records + position, so that workers need no word of the epoch."""

    def __init__(self, keys: Sequence[Tensor] = ()) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[int]]:
        return (keys.tolist() for keys in self.keys)


class _Failure(NamedTuple):
    """A ProjectError on its way out of a worker, which would make another error of it."""

    problem: str
    fix: str


class _Samples(Dataset[Any]):
    """A dataset as workers see it: by keys, a batch at once."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, keys: Sequence[int]) -> "tuple[Tensor, Tensor] | _Failure":
        try:
            return self._batch(keys)
        except ProjectError as error:
            return _Failure(error.problem, error.fix)

    def _batch(self, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        count = len(self)
        if not getattr(self.dataset, "random", True):
            positions = [key % count for key in keys]
            if getattr(self.dataset, "in_memory", False):
                return self.dataset.batch(positions)  # type: ignore[attr-defined, no-any-return]
            items = [self.dataset[position] for position in positions]
        else:
            with _randomness_restored():
                items = [self._random_item(*divmod(key, count)) for key in keys]
        return default_collate(items)  # type: ignore[no-any-return]  # in a worker: right into shared memory

    def _random_item(self, epoch: int, position: int) -> tuple[Tensor, int]:
        seed = mix_seed(self.seed, epoch, position)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 60 x the time, for devices
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return self.dataset[position]  # type: ignore[no-any-return]


@contextmanager
def _randomness_restored() -> Iterator[None]:
    """Without workers, it is the training process that draws: its dropout must not notice.

    One thread, as workers have: a sum over an image by several has other last bits.
    """
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def _batches(samples: _Samples, keys: _Keys, fabric: "Fabric", workers: int, persistent: bool) -> "DataLoader[Any]":
    return DataLoader(
        samples,
        batch_sampler=keys,
        collate_fn=_unchanged,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),  # else each epoch draws a number from the one of the training
    )


def _unchanged(batch: Any) -> Any:
    return batch


def _moved(batches: "DataLoader[Any]", fabric: "Fabric") -> Iterator[tuple[Tensor, Tensor]]:
    try:
        for batch in batches:
            if isinstance(batch, _Failure):
                raise ProjectError(*batch)
            images, labels = (tensor.to(fabric.device, non_blocking=True) for tensor in batch)
            yield images, labels
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # an error in one is no end of it
            raise
        fix = "give the machine or the container more memory (docker: --shm-size), or set TRAIN_WORKERS=0"
        how = str(error).partition(". ")[0].rpartition(") ")[2]  # is killed by signal: Bus error
        raise ProjectError(f"a process that prepares batches {how}", fix) from error


def _choose_workers(dataset: Dataset[Any], workers: int | None) -> int:
    if text := os.environ.get("TRAIN_WORKERS"):
        if not text.isdecimal():
            raise ProjectError(f"TRAIN_WORKERS is {text!r}", "set it to a number of processes, 0 or more, or unset it")
        return int(text)
    if workers is not None:
        return workers
    if getattr(dataset, "in_memory", False) and not getattr(dataset, "random", True):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores // int(os.environ.get("TRAIN_PROCESS_COUNT", "1")))  # which processes.py sets

"""A labelled split as PyTorch's map-style dataset: contents are read from the shards one by one, or kept decoded.

What is kept is decoded once, before the training. It makes it faster and never changes a bit.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import ProjectError
from ..records.contents import Contents, open_split
from ..records.source import SPLITS

T = TypeVar("T")
OTHER_SPLIT = "python -m mlops data split --suggest --write, then: dvc repro"
THREADS = 8  # that decode before the training, at most


class LabelledSplit(NamedTuple):
    """The contents of a split, and their labels, (N,) int64, as positions in the classes."""

    contents: Contents
    labels: Tensor


def open_labelled(directory: Path) -> tuple[tuple[str, ...], dict[str, LabelledSplit]]:
    """Open the splits of a dataset; the classes are the labels of `train`, sorted.

    Args:
        directory: The dataset, `data/dataset`.

    Returns:
        The classes, and the splits `train`, `val` and `test` by name.

    Raises:
        ProjectError: A split isn't there or is damaged, there is only one label to learn, or a label of val or test
            can't have been learned.
    """
    opened = {split: open_split(directory / split) for split in SPLITS}
    classes = tuple(opened["train"].labels.unique())
    if len(classes) < 2:
        raise ProjectError(
            f"the training split has one label, {classes[0]!r}", f"{OTHER_SPLIT}; or give records of other labels"
        )
    for split, contents in opened.items():
        if unseen := sorted(set(contents.labels.unique()) - set(classes)):
            raise ProjectError(
                f"{split} has labels that the training split lacks: {', '.join(map(repr, unseen))}",
                f"{OTHER_SPLIT}; or give more subjects with these labels",
            )
    positions = {split: torch.from_numpy(contents.labels.positions(classes)) for split, contents in opened.items()}
    return classes, {split: LabelledSplit(opened[split], positions[split]) for split in SPLITS}


class ContentDataset(Dataset[tuple[Tensor, int]]):
    """The items of a split: what a content is decoded to, changed at random if it is augmented; and its label.

    Args:
        contents: Encoded contents, with `record_ids` for errors.
        labels: (N,) int64.
        decode: Makes a tensor of a content; it raises ValueError if it can't, with a message that begins with a verb.
        augment: Makes an item of a decoded content, and may draw random numbers; None takes it as it is.
    """

    def __init__(
        self,
        contents: Contents,
        labels: Tensor,
        decode: Callable[[bytes], Tensor],
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.contents, self.labels, self.decode, self.augment = contents, labels, decode, augment
        self._kept: Tensor | list[Tensor] | None = None

    @property
    def random(self) -> bool:
        """Whether an item draws random numbers."""
        return self.augment is not None

    @property
    def in_memory(self) -> bool:
        """Whether contents are decoded already."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an item and its label; raise ProjectError if it is damaged."""
        decoded = self.read(index, self.decode) if self._kept is None else self._kept[index]
        return self.augment(decoded) if self.augment else decoded, int(self.labels[index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return several items at once, (N, ...), and their labels, (N,)."""
        if isinstance(self._kept, Tensor):
            return self._kept[indices], self.labels[indices]
        items, labels = zip(*(self[index] for index in indices), strict=True)
        return torch.stack(items), torch.tensor(labels)

    def keep(self) -> None:
        """Decode all contents, and keep them in memory."""
        decoded = self.each(range(len(self)), self.decode, "decode")
        first = next(decoded)
        if self.augment:  # which takes them as they are, of any size
            self._kept = [first, *decoded]
            return
        self._kept = torch.empty((len(self), *first.shape), dtype=first.dtype)
        self._kept[0] = first
        for index, item in enumerate(decoded, start=1):
            self._kept[index] = item

    def each(self, indices: Sequence[int], function: Callable[[bytes], T], title: str) -> Iterator[T]:
        """Yield what a function makes of the contents at some indices, in order, by several threads; `read`'s errors.

        Args:
            indices: Positions in the split.
            function: Makes something of a content.
            title: Of the progress that is shown.
        """
        waiting = iter(tqdm(indices, title, unit="record", delay=2))
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            while some := list(islice(waiting, 256)):
                yield from pool.map(lambda index: self.read(index, function), some)

    def read(self, index: int, function: Callable[[bytes], T]) -> T:
        """Return what a function makes of a content; a ValueError becomes a ProjectError that names the record."""
        try:
            return function(self.contents[index])
        except ValueError as error:
            problem = f"the content of record {self.contents.record_ids[index]!r} {error}"
            raise ProjectError(problem, "correct the source, then: dvc repro") from error

"""The state of a training after an epoch, in a folder: a training that was cut off goes on from it, to the same bits.

    CHECKPOINT_DIR=.dvc/tmp/checkpoint dvc repro train

It is saved after each epoch, unless that would take more than a hundredth of the time. No signal asks for it: within
an epoch there is no state to go on from, and machines also end without one.
"""

import logging
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProjectError
from ..files import atomic_write
from .distributed import SINGLE_PROCESS, ProcessGroup
from .serialization import pack, unpack

log = logging.getLogger(__name__)

SHARE = 0.01  # the part of the time that saving may take
NAMES = ("0.safetensors", "1.safetensors")  # in turn: while one is replaced, the other is whole
State = dict[str, Any]


class Checkpoints:
    """The last two states of one training.

    Args:
        folder: Where they are; None keeps none.
        inputs: What the result follows from, by name; in JSON's types. A state of others is of no use.
        group: The processes that train. The first reads and writes.

    Attributes:
        state: What to go on from; None to start.
        files: What was carried along with it: content by name.
        carry: Gives the files to carry along from now on.

    Raises:
        ProjectError: The folder can't be made.
    """

    def __init__(
        self, folder: Path | None = None, inputs: State | None = None, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self._folder, self._inputs, self._group = folder, inputs or {}, group
        self._due, self._next = 0.0, 0
        self.state: State | None = None
        self.files: dict[str, bytes] = {}
        self.carry: Callable[[], dict[str, bytes]] = dict
        if folder and (found := group.broadcast_bytes(self._newest(folder) if group.rank == 0 else b"")):
            kept = unpack(found)
            self.state, self.files = kept["state"], kept["files"]

    def _newest(self, folder: Path) -> bytes:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProjectError(f"CHECKPOINT_DIR can't be used: {error}", "set it to a folder, or unset it") from error
        found = []
        for number, name in enumerate(NAMES):
            try:
                data = (folder / name).read_bytes()
                found.append((unpack(data), number, data))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                log.warning("the checkpoint %s is damaged: %s", folder / name, error)
        for kept, number, data in sorted(found, key=lambda one: -int(one[0]["state"]["epochs"])):
            others = [key for key in kept["inputs"] | self._inputs if kept["inputs"].get(key) != self._inputs.get(key)]
            if not others:
                log.info("training goes on after epoch %s of %s", kept["state"]["epochs"], folder / NAMES[number])
                self._next = 1 - number
                return data
            log.warning("the checkpoint %s is of other inputs: %s", folder / NAMES[number], ", ".join(others))
        if any((folder / name).exists() for name in NAMES):
            log.warning("training starts from its first epoch")
        return b""

    def save(self, state: State) -> None:
        """Save a state, where it is time to; all processes come here after the same epoch.

        Args:
            state: What `state` is to be; `epochs` is how many are done.
        """
        if self._folder is None or not self._group.broadcast(torch.tensor(time.monotonic() >= self._due)):
            return
        begin = time.monotonic()
        numbers = self._group.all_gather(_random_numbers())
        if self._group.rank == 0:
            whole = {"inputs": self._inputs, "state": {**state, "random": numbers}, "files": self.carry()}
            self._write(self._folder / NAMES[self._next], pack(whole))
        end = time.monotonic()
        self._due = end + (end - begin) / SHARE

    def _write(self, path: Path, data: bytes) -> None:
        try:
            with atomic_write(path) as new:
                new.write_bytes(data)
            self._next = 1 - self._next
        except OSError as error:  # a full disk, say: nothing that a training should end for
            log.warning("no checkpoint is saved: %s", error)

    def restore_random_numbers(self) -> None:
        """Let random numbers go on where they were; the last thing to restore, since building a network draws some."""
        if self.state:
            _set_random_numbers(self.state["random"][self._group.rank])

    def clear(self) -> None:
        """Delete them: their training has ended well."""
        for path in (self._folder / name for name in NAMES if self._folder):
            path.unlink(missing_ok=True)


def _random_numbers() -> Tensor:
    """Return the state of torch's, NumPy's and Python's generators, (N,) float64: it holds all their integers."""
    _, keys, *rest = np.random.get_state()
    _, internal, gauss = random.getstate()
    own = [*keys, *rest, *internal, math.nan if gauss is None else gauss]
    return torch.cat([torch.get_rng_state().double(), torch.tensor(own, dtype=torch.float64)])


def _set_random_numbers(state: Tensor) -> None:
    of_torch, keys, rest, internal, gauss = state.split([len(state) - 1253, 624, 3, 625, 1])
    torch.set_rng_state(of_torch.to(torch.uint8))
    position, has_gauss, cached = rest.tolist()
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    random.setstate((3, tuple(map(int, internal.tolist())), None if math.isnan(gauss.item()) else gauss.item()))

"""The state of a training after an epoch, in a folder: an interrupted training resumes from it, bit-identically.

    CHECKPOINT_DIR=.dvc/tmp/checkpoint dvc repro train

A state is saved after each epoch, unless saving would take more than a hundredth of the time. It has no random numbers:
whatever is random in an epoch is a function of the seed, the epoch, and a position in it or the rank of a process.
"""

import hashlib
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ProjectError
from ..files import atomic_write

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

SHARE = 0.01  # the part of the time that saving may take
NAMES = ("0.pt", "1.pt")  # in turn: while one is replaced, the other is whole
State = dict[str, Any]


def pack(state: State) -> bytes:
    """Return tensors, numbers and texts, in dicts and lists, as `torch.save` writes them, behind their SHA-256."""
    file = io.BytesIO()
    torch.save(state, file)
    return hashlib.sha256(file.getbuffer()).digest() + file.getbuffer()


def unpack(data: bytes) -> State:
    """Return what `pack` was given, tensors on the CPU. No pickled code is run.

    Raises:
        ValueError: It is damaged, or something else.
    """
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError("its SHA-256 does not match its content")
    try:
        return dict(torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True))
    except Exception as error:  # which type depends on what the content is
        raise ValueError(f"it is not a checkpoint: {error}") from error


class Checkpoints:
    """The last two states of one training, which the first of its processes reads and writes.

    Args:
        folder: Where they are; None keeps none.
        inputs: What determines the result, by name, in JSON's types. A state made from other inputs is ignored.
        fabric: The processes that train; None for this one alone.
    """

    def __init__(self, folder: Path | None = None, inputs: State | None = None, fabric: "Fabric | None" = None) -> None:
        self._folder, self._inputs, self._fabric = folder, inputs or {}, fabric
        self._due, self._next = 0.0, 0
        self.state: State | None = None  # to resume from; None to start
        self.files: dict[str, bytes] = {}  # saved with it: content by name
        self.extra_files: Callable[[], dict[str, bytes]] = dict  # returns the files to save from now on
        if folder and (data := self._broadcast(self._newest(folder) if self._is_first else b"")):
            saved = unpack(data)
            self.state = saved["state"]
            self.files = {name: content.numpy().tobytes() for name, content in saved["files"].items()}
            if fabric:
                fabric.strategy.precision.load_state_dict(saved["precision"])

    @property
    def _is_first(self) -> bool:
        return self._fabric is None or self._fabric.is_global_zero

    def _broadcast(self, value: Any) -> Any:
        return self._fabric.broadcast(value) if self._fabric else value

    def _newest(self, folder: Path) -> bytes:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProjectError(f"CHECKPOINT_DIR can't be used: {error}", "set it to a folder, or unset it") from error
        paths = [path for path in (folder / name for name in NAMES) if path.exists()]
        candidates = []
        for path in paths:
            try:
                data = path.read_bytes()
                candidates.append((unpack(data), path, data))
            except (OSError, ValueError) as error:
                log.warning("the checkpoint %s is damaged: %s", path, error)
        for saved, path, data in sorted(candidates, key=lambda candidate: -int(candidate[0]["state"]["epochs"])):
            old = saved["inputs"]
            changed = [key for key in old | self._inputs if old.get(key) != self._inputs.get(key)]
            if not changed:
                log.info("training resumes after epoch %s of %s", saved["state"]["epochs"], path)
                self._next = 1 - NAMES.index(path.name)
                return data
            log.warning("the checkpoint %s was made from other inputs: %s", path, ", ".join(changed))
        if paths:
            log.warning("training starts from its first epoch")
        return b""

    def save(self, state: State) -> None:
        """Save a state, if it is time to; all processes call this after the same epoch. `epochs` says how many."""
        if self._folder is None or not self._broadcast(time.monotonic() >= self._due):
            return
        begin = time.monotonic()
        if self._is_first:
            contents = self.extra_files().items()
            files = {name: torch.tensor(np.frombuffer(content, np.uint8)) for name, content in contents}
            precision = self._fabric.strategy.precision.state_dict() if self._fabric else {}  # the scale of fp16's loss
            data = pack({"inputs": self._inputs, "state": state, "precision": precision, "files": files})
            try:
                with atomic_write(self._folder / NAMES[self._next]) as new:
                    new.write_bytes(data)
                self._next = 1 - self._next
            except OSError as error:  # such as a full disk: no reason to stop training
                log.warning("no checkpoint is saved: %s", error)
        end = time.monotonic()
        self._due = end + (end - begin) / SHARE

    def clear(self) -> None:
        """Delete them, after the training has ended well."""
        for path in (self._folder / name for name in NAMES if self._folder):
            path.unlink(missing_ok=True)

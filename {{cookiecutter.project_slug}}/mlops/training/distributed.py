"""The processes that train together: each takes its share of every batch, and their mean is what one would compute.

A `Group` of one does nothing at all. A larger one is what `torchrun` started: see `torchrun.py`.
"""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(days=1)  # while the first process pushes data; one that ended is noticed at once all the same


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training, and which of them this is.

    Args:
        rank: The number of this process, from 0. The first is the one that reports and writes.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return what to train with in place of `module`, which it trains: all start from the first one's weights.

        At each step the gradients become their mean over the processes, and buffers, such as the running statistics of
        BatchNorm, those of the first. Statistics of a batch are of a process's own share of it.
        """
        return module if self.size == 1 else DistributedDataParallel(module)

    def shard_batch(self, batch: Tensor) -> tuple[Tensor, float]:
        """Return this process's part of a batch, and the weight with which its mean loss enters that of all.

        The mean over the processes of weight x loss is the loss of the whole batch, however unequal the parts are. A
        part has two records or more, since BatchNorm can't take a variance over one. Where that leaves nothing, a
        process computes along on two records with weight 0, since the others wait for its gradients.

        Args:
            batch: (N,) positions, N of 2 or more.
        """
        if self.size == 1:
            return batch, 1.0
        parts = batch.tensor_split(min(self.size, len(batch) // 2))
        if self.rank >= len(parts):
            return batch[:2], 0.0
        return parts[self.rank], len(parts[self.rank]) * self.size / len(batch)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over the processes, in each of them."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
            value /= self.size
        return value

    def broadcast(self, value: Tensor) -> Tensor:
        """Return the first process's `value`, in each of them; they give tensors of the same shape and dtype."""
        if self.size > 1:
            torch.distributed.broadcast(value, src=0)
        return value

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Return the first process's bytes, in each of them."""
        if self.size == 1:
            return data
        length = int(self.broadcast(torch.tensor(len(data))))
        mine = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(length, dtype=torch.uint8)
        return self.broadcast(mine).numpy().tobytes()

    def all_gather(self, value: Tensor) -> Tensor:
        """Return the `value` of each process, (size, ...), in each of them; they have the same shape and dtype."""
        if self.size == 1:
            return value[None]
        found = [torch.empty_like(value) for _ in range(self.size)]
        torch.distributed.all_gather(found, value)
        return torch.stack(found)


SINGLE_PROCESS = ProcessGroup()


@contextlib.contextmanager
def process_group(processes: int) -> Iterator[ProcessGroup]:
    """Meet the other processes, or none for 1, and leave them at the end of the block.

    To stop all is to interrupt the first: the others end when it leaves them. When another one ends, the first has the
    time to record that (torchrun waits for 30 s before it kills).
    """
    if processes == 1:
        yield SINGLE_PROCESS
        return
    torch.distributed.init_process_group(_backend(), timeout=PATIENCE)
    group = ProcessGroup(torch.distributed.get_rank(), torch.distributed.get_world_size())
    if group.rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield group
    finally:
        torch.distributed.destroy_process_group()


def _backend() -> str:
    """Return how tensors travel between processes: on CPUs by gloo; networks on CUDA devices would take "nccl"."""
    return "gloo"


def is_peer_failure(error: BaseException) -> bool:
    """Return whether an error only says that another process ended, which itself has, or had, more to say."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return type(error) is RuntimeError and "/gloo/" in str(error)  # gloo's errors have no type, but their source file

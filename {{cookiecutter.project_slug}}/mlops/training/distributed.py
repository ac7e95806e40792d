"""Several processes that train together: started by torchrun, they train as one would, and report once how they ended.

    params.yaml:train.processes: 4

Source: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import read_machines
from ..errors import ProjectError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

PEER_FAILED, INTERRUPTED = 3, 130  # exit codes of a process: another one ended; Ctrl-C
POLL_S = 1.0  # how often a process checks that the one that started it still runs


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training, and which of them this is."""

    rank: int = 0  # the number of this process; the first is the one that reports and writes
    size: int = 1  # how many there are

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return what to train in place of `module`, which is trained with it: all start from the first one's weights.

        At each step the gradients become their mean over the processes, and buffers, such as the running statistics of
        BatchNorm, those of the first. Statistics of a batch are those of a process's own part of it.
        """
        return module if self.size == 1 else DistributedDataParallel(module)

    def shard_batch(self, batch: Tensor) -> tuple[Tensor, float]:
        """Return this process's part of a batch of (N,) positions, N of 2 or more, and the weight of its mean loss.

        The mean over the processes of weight x loss is the loss of the whole batch, however unequal the parts are. A
        part has two records or more, since BatchNorm can't take a variance over one. A process left without a part
        computes on two records with weight 0, since the others wait for its gradients.
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
        """Return the first process's `value`, in each of them; all pass tensors of the same shape and dtype."""
        if self.size > 1:
            torch.distributed.broadcast(value, src=0)
        return value

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Return the first process's bytes, in each of them."""
        if self.size == 1:
            return data
        length = int(self.broadcast(torch.tensor(len(data))))
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(length, dtype=torch.uint8)
        return self.broadcast(own).numpy().tobytes()

    def all_gather(self, value: Tensor) -> Tensor:
        """Return the `value` of each process, (size, ...), in each of them; all have the same shape and dtype."""
        if self.size == 1:
            return value[None]
        values = [torch.empty_like(value) for _ in range(self.size)]
        torch.distributed.all_gather(values, value)
        return torch.stack(values)


SINGLE_PROCESS = ProcessGroup()


def current_group() -> ProcessGroup:
    """Return the group that this process is in; outside `process_group`, a group of one."""
    if not torch.distributed.is_initialized():
        return SINGLE_PROCESS
    return ProcessGroup(torch.distributed.get_rank(), torch.distributed.get_world_size())


@contextlib.contextmanager
def process_group(processes: int) -> Iterator[ProcessGroup]:
    """Join the group of processes that torchrun started, for the time of the block; for 1, there is none to join.

    Interrupting the first process stops all: the others end when it leaves them. When another one ends, the first has
    time to record it (torchrun kills after 30 s).
    """
    if processes == 1:
        yield SINGLE_PROCESS
        return
    # So long may the first process push data; a process that ended is noticed at once anyway.
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=1))
    group = current_group()
    if group.rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield group
    finally:
        torch.distributed.destroy_process_group()


def run_processes(work: Callable[[], None], processes: int, threads: int) -> None:
    """Do a stage's work in this process, or in several that torchrun starts, here or on all machines of a job.

    Each of these runs the same command, and so comes here again.

    Args:
        work: Does it; `training_run` in it knows the processes that train together.
        processes: How many, on all machines of a job together.
        threads: CPU threads of each.

    Raises:
        ProjectError: What one of them raised; or it was killed, or torchrun has started another number.
        KeyboardInterrupt: The stage was stopped by Ctrl-C or SIGTERM; the processes have ended.
    """
    if not should_launch(processes):
        with report_errors(), process_group(processes):
            work()
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main  # in this process: how the others ended arrives as an exception, not as text

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else torchrun warns, and sets 1
    for name in ("torch.distributed.elastic", "torch.distributed.run"):  # they log what `first_failure` reports
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False

    def interrupt(number: int, frame: object) -> NoReturn:
        # The processes get SIGTERM and SIGHUP as Ctrl-C: torchrun's SIGTERM says that another one failed.
        raise SignalException(f"signal {number}", signal.SIGINT)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)
    with tempfile.TemporaryDirectory(prefix="torchrun-") as logs:
        try:
            main([*options(processes), "--log-dir", logs, "-m", "mlops", *sys.argv[1:]])
        except SignalException:
            # Ctrl-C while the first process only waits for MLflow costs nothing: then all is written.
            if len(list(Path(logs).rglob("done"))) < processes:
                raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise first_failure(error.failures, processes) from None


def should_launch(processes: int) -> bool:
    """Return whether this process has to start torchrun; raise when torchrun has started another number of them."""
    if "RANK" not in os.environ:
        return processes > 1
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        problem = f"torchrun started {started} processes, params.yaml:train.processes is {processes}"
        raise ProjectError(problem, "start the stage without torchrun, which it starts itself: dvc repro train")
    return False


def options(processes: int) -> list[str]:
    """Return torchrun's options for this machine; raise when the machines can't have the same number each."""
    config = read_machines()
    hosts = sorted(config["hosts"])
    if processes % len(hosts):
        problem = f"params.yaml:train.processes is {processes}, which {len(hosts)} machines can't share evenly"
        raise ProjectError(problem, f"set params.yaml:train.processes to a multiple of {len(hosts)}")
    # One process prints for all. For the signals, see run_processes.
    common = [f"--nproc-per-node={processes // len(hosts)}", "--local-ranks-filter=0", "--signals-to-handle=SIGINT"]
    if len(hosts) == 1:  # by address, since a laptop's name may not resolve
        return ["--standalone", "--local-addr=127.0.0.1", *common]
    nodes = [f"--nnodes={len(hosts)}", f"--node-rank={hosts.index(config['current_host'])}"]
    return [*nodes, f"--master-addr={hosts[0]}", "--master-port=29500", *common]  # torchrun's default port


def first_failure(failures: Mapping[int, "ProcessFailure"], processes: int) -> Exception:
    """Return the first error that one of `processes` reported; else what is known of how one ended, by rank."""
    reports = {rank: failure.error_file_data for rank, failure in failures.items() if "time" in failure.error_file_data}
    if reports:
        rank, report = min(reports.items(), key=lambda item: item[1]["time"])
        if "fix" in report:
            return ProjectError(report["problem"], report["fix"])
        error = OSError(*report["os"]) if "os" in report else RuntimeError(f"process {rank} of {processes} failed")
        error.add_note(f"In process {rank} of {processes}:\n{report['message']}")
        return error
    for rank, failure in failures.items():
        code = failure.exitcode
        if code not in (PEER_FAILED, -signal.SIGTERM):
            how = f"was killed by {failure.signal_name()}" if code < 0 else f"ended with code {code}"
            fix = "run again: dvc repro train; if memory ran out (each process holds all images), lower "
            problem = f"process {rank} (of 0 to {processes - 1}) {how}, and training with it"
            return ProjectError(problem, f"{fix}params.yaml:train.processes")
    return ProjectError("a process on another machine ended, and training with it", "see that machine's log")


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Report an exception to torchrun, if that started this process: it is printed once, and not by every rank."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to record; waiting would not be interrupted
    parent = os.getppid()

    def exit_with_parent() -> None:  # when that was killed: DVC would not know of the outputs that this one writes
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    try:
        yield
        Path(path).with_name("done").touch()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        # gloo's errors have no type of their own, but name their source file.
        if isinstance(error, torch.distributed.DistError) or (type(error) is RuntimeError and "/gloo/" in str(error)):
            sys.exit(PEER_FAILED)  # another process ended, which reports the cause itself
        report: dict[str, Any] = {"time": time.time(), "timestamp": int(time.time()), "message": traceback.format_exc()}
        if isinstance(error, ProjectError):
            report |= {"message": str(error), "problem": error.problem, "fix": error.fix}
        elif isinstance(error, OSError):  # a full disk has a fix too
            report["os"] = (error.errno, error.strerror, error.filename)
        Path(path).write_text(json.dumps(report, default=str), encoding="utf-8")
        sys.exit(2 if "fix" in report else 1)

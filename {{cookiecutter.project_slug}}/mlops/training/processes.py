"""Start the processes of a training, and report once how they ended.

    params.yaml:train.processes: 4

A single process trains in place. For several, the process that DVC starts trains nothing: it starts them, passes Ctrl-C
on, and raises the error that came first. They find their places in LOCAL_RANK, NODE_RANK, MASTER_ADDR and MASTER_PORT,
which Fabric reads. What ends a process ends all: when this one is killed, their standard input ends, and so they do.

Fabric's own launchers kill the first process before it has recorded how the training ended.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from ..config import read_machines
from ..errors import ProjectError
from . import device as devices
from .device import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

COMMAND = [sys.executable, "-m", "mlops"]  # with the arguments of this process
PEER_FAILED, INTERRUPTED = 3, 130  # exit codes of a process: another one ended; Ctrl-C
GRACE_S = 30.0  # for the first process to record how the training ended; then it is killed
PEER_GRACE_S = 5.0  # for the others to notice
POLL_S = 0.05
LESS_MEMORY = (
    "lower params.yaml:train.batch_size or train.processes, or set train.cache: none; "
    "with TRAIN_WORKERS=0 there are fewer processes"
)
PORT = "29500"  # where several machines meet, at the first of them
REPORT, COUNT = "TRAIN_PROCESS_REPORT", "TRAIN_PROCESS_COUNT"  # variables of a process: its file; how many on a machine


def run_processes(
    work: Callable[["Fabric"], None],
    processes: int | Literal["auto"],
    threads: int,
    precision: Precision = "fp32",
    deterministic: bool = True,
    portable: bool = False,
) -> None:
    """Do a stage's work in this process, or in several, here or on all machines of a job.

    Each of several runs the same command, and so comes here again; what follows this call is done by this one alone.

    Args:
        work: Does it; `fabric.global_rank` tells it which of `fabric.world_size` processes it is in.
        processes: How many, on all machines of a job together; `auto`: one for each GPU, else one for each machine.
        threads: CPU threads of each.
        precision: Of products: fp32, tf32, bf16 or fp16.
        deterministic: Whether the same inputs must give the same bits.
        portable: Whether all x86 CPUs must: it takes 2 to 5 times as long. The work then runs in a process of its
            own, since torch reads variables that say so when it is imported.

    Raises:
        ProjectError: What one of them raised, or it was killed; the machine lacks a device, or can't do what is asked.
        KeyboardInterrupt: The stage was stopped by Ctrl-C or SIGTERM; the processes have ended.
    """
    machines = len(read_machines()["hosts"])
    settings: dict[str, Any] = {"threads": threads, "precision": precision, "deterministic": deterministic}
    settings["portable"] = portable
    if REPORT in os.environ:
        _take_part(work, int(os.environ[COUNT]), machines, settings)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ProjectError("torchrun started this stage", "start it without: dvc repro train (see train.processes)")
    if portable:
        devices.check_portable(precision)
    if (count := count_processes(processes)) * machines > 1 or portable:
        _supervise(count, threads, devices.PORTABLE if portable else {})
        return
    fabric = devices.build_fabric(**settings)
    with translate_errors():
        _report_unused(fabric, 1)
        work(fabric)


def count_processes(processes: int | Literal["auto"]) -> int:
    """Return how many processes train on this machine; raise ProjectError if its machines can't have as many each."""
    if processes == "auto":
        import torch

        return torch.cuda.device_count() if devices.find_device() == "cuda" else 1
    machines = len(read_machines()["hosts"])
    if processes % machines:
        problem = f"params.yaml:train.processes is {processes}, which {machines} machines can't share evenly"
        raise ProjectError(problem, f"set params.yaml:train.processes to auto, or a multiple of {machines}")
    return processes // machines


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Raise ProjectError for those errors of torch that a parameter avoids."""
    try:
        yield
    except MemoryError as error:
        raise ProjectError("the machine's memory ran out", LESS_MEMORY) from error
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        text = str(error)
        if "CPUAllocator: can't allocate memory" in text:  # with lines of C++, or of a process that prepares batches
            raise ProjectError("the machine's memory ran out", LESS_MEMORY) from error
        if "out of memory" in text or "STATUS_ALLOC_FAILED" in text:
            fix = "lower params.yaml:train.batch_size, or raise train.accumulate"
            raise ProjectError(f"the GPU's memory ran out: {text.partition('. ')[0]}", fix) from error
        if "does not have a deterministic implementation" not in text:
            raise
        problem = f"{text.partition(',')[0]}, so it would give other bits each time"
        raise ProjectError(problem, "use another layer, or set params.yaml:train.deterministic: false") from error


def _report_unused(fabric: "Fabric", here: int) -> None:
    import torch

    if fabric.is_global_zero and (line := devices.unused_line(fabric.device.type, here, torch.get_num_threads())):
        log.warning("%s", line)


def _take_part(work: Callable[["Fabric"], None], count: int, machines: int, settings: dict[str, Any]) -> NoReturn:
    """Do the work in one of several processes, and end it. It leaves its error in a file: one alone is printed."""
    report = Path(os.environ[REPORT])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to record
    threading.Thread(target=_exit_with_supervisor, daemon=True).start()
    try:
        fabric = devices.build_fabric(count, machines, **settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt_once if fabric.is_global_zero else signal.SIG_IGN)
        report.with_suffix(".ready").touch()
        with translate_errors():
            _report_unused(fabric, count)
            work(fabric)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(_report(error, report))
    import torch.distributed

    if torch.distributed.is_initialized():  # not for a single process
        torch.distributed.destroy_process_group()
    sys.exit(0)


def _exit_with_supervisor() -> None:
    """End this process when the one that started it is gone: DVC would not know of the outputs that this one writes."""
    if not os.read(sys.stdin.fileno(), 1):
        os._exit(1)


def _interrupt_once(number: int, frame: object) -> NoReturn:
    """Raise KeyboardInterrupt, and let no second one interrupt the record of the first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _report(error: Exception, path: Path) -> int:
    """Write what the supervisor is to raise; return the exit code."""
    import torch.distributed

    # gloo's errors have no type of their own, but name their source file.
    is_loss = isinstance(error, torch.distributed.DistError) or (type(error) is RuntimeError and "/gloo/" in str(error))
    report: dict[str, Any] = {"time": time.time(), "is_loss": is_loss, "traceback": traceback.format_exc()}
    if isinstance(error, ProjectError):
        report |= {"problem": error.problem, "fix": error.fix}
    elif isinstance(error, OSError):  # a full disk has a fix too
        report["os"] = (error.errno, error.strerror, error.filename)
    path.write_text(json.dumps(report, default=str), encoding="utf-8")
    return PEER_FAILED if is_loss else 2 if "fix" in report else 1


def _supervise(count: int, threads: int, more: dict[str, str]) -> None:
    """Start the processes of this machine, wait for them, and raise what ended them."""
    requests: list[int] = []  # signals that ask this process to stop
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` does
        numbers.append(signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda number, _: requests.append(number)) for number in numbers}
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        folder, variables = Path(name), {**rendezvous(), **more, COUNT: str(count)}
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        try:
            for rank in range(count):
                processes.append(_start(rank, folder, variables))
            while not requests and any(process.poll() is None for process in processes):
                if any(process.returncode for process in processes):
                    break
                time.sleep(POLL_S)
            codes, is_interrupted = [process.poll() for process in processes], bool(requests)  # before it ends any
            if (folder / "0.ready").exists():  # else there is nothing to record yet
                _end(processes, variables["NODE_RANK"] == "0", is_interrupted)
        finally:
            for process in processes:
                _kill(process)
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
        if is_interrupted and any(process.returncode for process in processes):
            raise KeyboardInterrupt  # else all is written: Ctrl-C came while the first one only waited for MLflow
        if any(codes):
            raise first_error(codes, folder, count * int(variables["NODE_RANK"]))


def rendezvous() -> dict[str, str]:
    """Return the variables by which the processes of all machines find each other."""
    machines = read_machines()
    hosts = sorted(machines["hosts"])
    if len(hosts) == 1:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))  # by address, since a laptop's name may not resolve
            port = str(listener.getsockname()[1])
        return {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    node = str(hosts.index(machines["current_host"]))
    variables = {"NODE_RANK": node, "MASTER_ADDR": hosts[0], "MASTER_PORT": os.environ.get("MASTER_PORT", PORT)}
    if interface := machines["network_interface"]:
        variables |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    return variables


def _start(rank: int, folder: Path, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start one process. The first one prints for all; what others print is looked at when they are killed."""
    own = {"LOCAL_RANK": str(rank), REPORT: str(folder / f"{rank}.json")}
    with (folder / f"{rank}.log").open("wb") as log_file:
        return subprocess.Popen(
            [*COMMAND, *sys.argv[1:]],
            env={**os.environ, **variables, **own},
            stdin=subprocess.PIPE,  # ends with this process
            stdout=subprocess.DEVNULL if rank else None,
            stderr=log_file if rank else None,
            start_new_session=True,  # the terminal's Ctrl-C comes to this process alone, which passes it on once
        )


def _end(processes: "list[subprocess.Popen[bytes]]", has_first: bool, is_interrupted: bool) -> None:
    """Give the first process of all time to record how the training ended, and the others to notice that it left."""
    first = processes[0]
    if has_first:
        if is_interrupted and first.poll() is None and os.name != "nt":  # on Windows, Ctrl-C comes to all of a console
            first.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(GRACE_S)
    until = time.monotonic() + (PEER_GRACE_S if has_first else GRACE_S)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and those that it started, such as a DataLoader's, if it still runs."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its session has the same number
        else:
            process.kill()
        process.wait()


def first_error(codes: list[int | None], folder: Path, first_rank: int) -> Exception:
    """Return the first error that a process reported; else what is known of how one ended, by rank.

    Args:
        codes: Exit codes of the processes of this machine, as they were when the first had ended.
        folder: Has their reports, and what they printed.
        first_rank: The rank of the first of them.
    """
    reports = {
        rank: json.loads(path.read_text(encoding="utf-8"))
        for rank in range(len(codes))
        if (path := folder / f"{rank}.json").exists()
    }
    for rank, report in sorted(reports.items(), key=lambda item: float(item[1]["time"])):
        if report["is_loss"]:
            continue
        if "fix" in report:
            return ProjectError(report["problem"], report["fix"])
        error = OSError(*report["os"]) if "os" in report else RuntimeError(f"process {first_rank + rank} failed")
        error.add_note(f"In process {first_rank + rank}:\n{report['traceback']}")
        return error
    for rank, code in enumerate(codes):
        if code and code != PEER_FAILED:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            sys.stderr.write((folder / f"{rank}.log").read_text(encoding="utf-8", errors="replace")[-2000:])
            problem = f"process {first_rank + rank} (of {first_rank} to {first_rank + len(codes) - 1}) {how}"
            fix = "run again: dvc repro train; if memory ran out, lower params.yaml:train.batch_size or train.processes"
            return ProjectError(f"{problem}, and training with it", fix)
    lost = next((report["traceback"].splitlines()[-1] for report in reports.values()), "")
    problem = f"a process on another machine ended, or can't be reached, and training with it: {lost}"
    return ProjectError(problem, "see the log of the other machine; on a single one, run again: dvc repro train")

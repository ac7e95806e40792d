"""Start the same stage in several processes with torchrun, and tell once how they ended.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..config import read_machines
from ..errors import ProjectError
from .distributed import ProcessGroup, is_peer_failure, process_group

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

PORT = 29500  # on the first of several machines; torchrun's default
LOST, INTERRUPTED = 3, 130  # exit codes of a process: another one ended; Ctrl-C
WATCH_S = 1.0  # between two looks at whether the starter lives


def should_launch(processes: int) -> bool:
    """Return whether this process is to start torchrun, rather than to train.

    Raises:
        ProjectError: torchrun has started another number of processes.
    """
    if "RANK" not in os.environ:
        return processes > 1
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        raise ProjectError(
            f"torchrun started {started} processes, params.yaml:train.processes is {processes}",
            "start the stage without torchrun, which it starts itself: dvc repro train",
        )
    return False


def run_processes(work: Callable[[ProcessGroup], None], processes: int, threads: int) -> None:
    """Do a stage's work in this process, or in several that torchrun starts with the same stage.

    Args:
        work: Takes the group of processes, of which this is one.
        processes: How many, on all machines of a job together.
        threads: CPU threads of each.

    Raises:
        ProjectError: What one of them raised; or it was killed, or torchrun has started another number.
    """
    if should_launch(processes):
        start(processes, threads, *sys.argv[1:])
        return
    with report_errors(), process_group(processes) as group:
        work(group)


def start(processes: int, threads: int, *arguments: str) -> None:
    """Run `python -m mlops <arguments>` in several processes, here or on all machines of a job.

    torchrun's own `main` runs in this process: there is one process less to wait for and to be left over, and how the
    others ended arrives as an exception, not as text to look through.

    Args:
        processes: How many, on all machines together.
        threads: CPU threads of each.
        arguments: Of the command line.

    Raises:
        ProjectError: What one of them raised; or it was killed.
        KeyboardInterrupt: Someone wanted the end, by Ctrl-C or SIGTERM; the processes have ended.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else torchrun warns, and sets 1
    _silence()
    _forward_as_interrupt()
    with tempfile.TemporaryDirectory(prefix="torchrun-") as logs:
        try:
            main([*options(processes), "--log-dir", logs, "-m", "mlops", *arguments])
        except SignalException:
            # Ctrl-C while the first process only waits for MLflow costs nothing: then all is written.
            if len(list(Path(logs).rglob("done"))) < processes:
                raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise first_failure(error.failures, processes) from None


def options(processes: int) -> list[str]:
    """Return torchrun's options for this machine.

    Args:
        processes: How many, on all machines together.

    Raises:
        ProjectError: The machines can't have the same number of processes each.
    """
    quiet = ["--local-ranks-filter=0", "--signals-to-handle=SIGINT"]  # one prints for all; see _forward_as_interrupt
    config = read_machines()
    hosts = sorted(config["hosts"])
    if processes % len(hosts):
        raise ProjectError(
            f"params.yaml:train.processes is {processes}, which {len(hosts)} machines can't share evenly",
            f"set params.yaml:train.processes to a multiple of {len(hosts)}",
        )
    here = [f"--nproc-per-node={processes // len(hosts)}", *quiet]
    if len(hosts) == 1:  # by address, since a laptop's name may not resolve
        return ["--standalone", "--local-addr=127.0.0.1", *here]
    rank = hosts.index(config["current_host"])
    first = [f"--master-addr={hosts[0]}", f"--master-port={PORT}"]
    return [f"--nnodes={len(hosts)}", f"--node-rank={rank}", *first, *here]


def first_failure(failures: Mapping[int, "ProcessFailure"], processes: int) -> Exception:
    """Return the error to tell, of all those with which processes ended.

    Args:
        failures: How they ended, by rank; with what `telling` wrote, if it did.
        processes: How many there were.
    """
    said = [(rank, failure.error_file_data) for rank, failure in failures.items() if "time" in failure.error_file_data]
    if not said:
        return _unsaid(failures, processes)
    rank, first = min(said, key=lambda one: one[1]["time"])
    if "fix" in first:
        return ProjectError(first["problem"], first["fix"])
    error = OSError(*first["os"]) if "os" in first else RuntimeError(f"process {rank} of {processes} failed")
    error.add_note(f"In process {rank} of {processes}:\n{first['message']}")
    return error


def _unsaid(failures: Mapping[int, "ProcessFailure"], processes: int) -> ProjectError:
    alone = {rank: failure for rank, failure in failures.items() if failure.exitcode not in (LOST, -signal.SIGTERM)}
    if not alone:
        return ProjectError("a process on another machine ended, and training with it", "see that machine's log")
    rank, failure = next(iter(alone.items()))
    how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with code {failure.exitcode}"
    return ProjectError(
        f"process {rank} (of 0 to {processes - 1}) {how}, and training with it",
        "run again: dvc repro train; if memory ran out (each process holds all images), "
        "lower params.yaml:train.processes",
    )


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Leave an error of the block to the process that started this one, to be told once for all of them.

    Where torchrun did not start this process, do nothing.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to record; waiting would not be interrupted
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        yield
        Path(path).with_name("done").touch()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if is_peer_failure(error):
            sys.exit(LOST)
        _tell(Path(path), error)


def _tell(path: Path, error: Exception) -> NoReturn:
    said: dict[str, Any] = {"time": time.time(), "timestamp": int(time.time()), "message": traceback.format_exc()}
    if isinstance(error, ProjectError):
        said |= {"message": str(error), "problem": error.problem, "fix": error.fix}
    elif isinstance(error, OSError):  # a full disk has a fix too
        said["os"] = (error.errno, error.strerror, error.filename)
    path.write_text(json.dumps(said, default=str), encoding="utf-8")
    sys.exit(2 if "fix" in said else 1)


def _end_with(starter: int) -> None:
    """End this process once the one that started it was killed: its outputs would be written behind DVC's back."""
    while os.getppid() == starter:
        time.sleep(WATCH_S)
    os._exit(1)


def _silence() -> None:
    """Keep torchrun from logging what `cause` tells."""
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


def _forward_as_interrupt() -> None:
    """Let the end of this process reach the others as Ctrl-C does; torchrun sends SIGTERM when one of them failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    def stop(number: int, frame: object) -> NoReturn:
        raise SignalException(f"signal {number}", signal.SIGINT)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)

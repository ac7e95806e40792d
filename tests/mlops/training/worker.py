"""A command that trains in processes, as `python -m mlops stage train` does: `stage CASE FOLDER PROCESSES`.

A case is a function below, or one of another module, `module:function`.
"""

import importlib
import logging
import math
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Literal

from . import light  # noqa: F401

# isort: split
import click
import torch
from lightning_fabric import Fabric
from mlops.cli import Verbs
from mlops.errors import ProjectError
from mlops.training import checkpoint, numerics, processes
from mlops.training.checkpoint import Checkpoints

from .loop import INPUTS, cut_off, plain, stateful, train


def results(fabric: Fabric, folder: Path) -> None:
    """Train networks on batches of unequal parts, one twice, and one that is cut off and resumes."""
    checkpoint.SHARE = math.inf
    own = folder / ("first" if fabric.is_global_zero else "elsewhere")  # on other machines it may be another state
    with_states = partial(train, fabric, stateful)
    runs = {
        "left over 2": train(fabric, plain, 34),
        "left over 5": train(fabric, plain, 37),
        "batch norm": with_states(),
        "batch norm again": with_states(),
        "cut off": cut_off(with_states, own, fabric, 2),
        "resumed": with_states(checkpoints=Checkpoints(own, INPUTS, fabric)),
    }
    torch.save({name: vars(run) for name, run in runs.items()}, folder / f"{fabric.global_rank}.pt")


def record(fabric: Fabric, folder: Path) -> None:
    """Train until something ends it; the first process records how."""
    (folder / f"{fabric.global_rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
    print(f"process {fabric.global_rank} prints")
    print(f"process {fabric.global_rank} warns", file=sys.stderr)
    status = "FAILED"
    try:
        while True:
            is_over = fabric.all_reduce(torch.tensor(float((folder / "stop").exists())), reduce_op="sum")
            fail = folder / f"fail {fabric.global_rank}"
            if fail.exists() and fail.read_text(encoding="utf-8") == "mistake":
                raise ZeroDivisionError("division by zero")
            if fail.exists():
                raise ProjectError("this process has enough", "lower its load")
            if is_over:  # for all in the same step
                break
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if fabric.is_global_zero:
            time.sleep(0.2)  # as to send the rest to MLflow
            (folder / "status").write_text(status, encoding="utf-8")


def nondeterministic(fabric: Fabric, folder: Path) -> None:
    """Compute what has no deterministic implementation."""
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def bits(fabric: Fabric, folder: Path) -> None:
    """Print the numeric fingerprint of a small convolutional network, and a hash of its weights after some steps."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    optimizer = torch.optim.AdamW(module.parameters(), 0.01)
    for _ in range(5):
        images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 10
        torch.nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    fingerprint = numerics.numeric_fingerprint(module, (64, 1, 8, 8), 10, fabric)
    print("bits", fingerprint, numerics.weights_hash(module.state_dict())[:16], flush=True)


def unstarted(fabric: Fabric, folder: Path) -> None:
    raise AssertionError("the processes end while they start")


@click.group(cls=Verbs)
def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


@main.command()
@click.argument("name")
@click.argument("folder", type=Path)
@click.argument("count")
def stage(name: str, folder: Path, count: str) -> None:
    processes.COMMAND = [sys.executable, "-m", "tests.mlops.training.worker"]
    module, _, function = name.rpartition(":")
    work = getattr(importlib.import_module(module), function) if module else globals()[function]
    if name == "unstarted" and processes.REPORT in os.environ:
        (folder / f"{os.environ['LOCAL_RANK']}.pid").write_text(str(os.getpid()), encoding="utf-8")
        signal.pause()
    number: int | Literal["auto"] = "auto" if count == "auto" else int(count)
    is_portable = "TEST_PORTABLE" in os.environ
    processes.run_processes(lambda fabric: work(fabric, folder), number, threads=1, portable=is_portable)
    print("after the processes")


if __name__ == "__main__":
    main()

"""The price of `train.portable`: the time of a training step with it, as a multiple of one without.

    python -m tests.benchmarks portable

Two processes per network, started with the variables that `train.portable` sets and without, make steps in turn.
"""

import os
import statistics
import subprocess
import sys

from ..conftest import BakedProject
from .timing import alternate

PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}  # as mlops/training/device.py has it
STEPS = """
import sys, torch
name, px, channels, batch, portable = sys.argv[1:]
sys.path.insert(0, ".")
import importlib, pathlib
package = next(path.parent.name for path in pathlib.Path(".").glob("*/interface.py"))
networks = importlib.import_module(f"{package}.model.networks")
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
if portable == "1":
    torch.backends.mkldnn.set_flags(False)
    torch.backends.nnpack.set_flags(False)
module = networks.build(name, 10, int(channels)).train()
optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
images, labels = torch.rand(int(batch), int(channels), int(px), int(px)), torch.arange(int(batch)) % 10
for line in sys.stdin:
    for _ in range(int(line)):
        torch.nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    print("done", flush=True)
"""
CASES = {  # steps of a round
    "small_cnn, 64 of 8 x 8": (("small_cnn", "8", "1", "64"), 100),
    "mobilenet_v3_small, 32 of 96 x 96": (("mobilenet_v3_small", "96", "3", "32"), 4),
    "resnet18, 32 of 64 x 64": (("resnet18", "64", "3", "32"), 2),
}


def measure(project: BakedProject, full: bool) -> str:
    """Time steps of each network, with and without."""
    rows = []
    for title, (arguments, steps) in CASES.items():
        seconds = alternate(*_steppers(project, arguments, steps), 9 if full else 5)
        portable, plain = map(statistics.median, seconds)
        rows.append(f"| {title} | {plain / steps * 1e3:.1f} | {portable / steps * 1e3:.1f} | {portable / plain:.2f} |")
    return "\n".join(
        ["| network, batch | ms a step | portable, ms a step | ratio |", "|---|---:|---:|---:|", *rows, ""]
    )


def _steppers(project: BakedProject, arguments: tuple[str, ...], steps: int) -> "tuple[_Stepper, _Stepper]":
    return _Stepper(project, (*arguments, "1"), PORTABLE, steps), _Stepper(project, (*arguments, "0"), {}, steps)


class _Stepper:
    """A process that makes some steps when it is called."""

    def __init__(
        self, project: BakedProject, arguments: tuple[str, ...], variables: dict[str, str], steps: int
    ) -> None:
        self._steps = steps
        self._process = subprocess.Popen(
            [sys.executable, "-c", STEPS, *arguments],
            cwd=project.path,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{self._steps}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

"""The stage `train` of the default project against the one of an earlier version of the template, in turn.

    python -m tests.benchmarks digits

Processor time is of `python -m mlops stage train` and what it starts; accuracy is of the loops, with other seeds. The
earlier version is the last one that trained on tensors in memory, on CPUs only; it is taken from Git's history.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ..conftest import TEMPLATE, BakedProject
from ..projects import read
from .timing import alternate, copy_of

EARLIER = "7af89a40b0e32fb8bb3da0f4218ce928462c5540"
SEEDS = 8


def measure(project: BakedProject, full: bool) -> str:
    """Train both in turn; then with other seeds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        before, after = earlier(Path(folder, "earlier")), copy_of(project, Path(folder))
        for made in (before, after):
            made.run("dvc", "repro", "train")
        times = alternate(lambda: train(before), lambda: train(after), 15 if full else 5, children_s)
        scores = {made: [train(made, seed) for seed in range(SEEDS)] for made in (before, after)}
    rows = "| train | processor time, s | mean test accuracy, seeds 0 to 7 | mean test loss |\n|---|---:|---:|---:|\n"
    for name, made, seconds in zip(("before", "now"), (before, after), times, strict=True):
        accuracy, loss = (statistics.mean(values) for values in zip(*scores[made], strict=True))
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        rows += f"| {name} | {spread} | {accuracy:.4f} | {loss:.4f} |\n"
    return f"{rows}\nratio of times: {statistics.median(times[1]) / statistics.median(times[0]):.2f}\n"


def earlier(folder: Path) -> BakedProject:
    """Generate the default project of the earlier version."""
    template = folder / "template"
    template.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", EARLIER], cwd=TEMPLATE, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x"], cwd=template, input=archive, check=True)
    bake = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "--default-config"]
    subprocess.run([*bake, "--output-dir", str(folder)], check=True, stdout=subprocess.DEVNULL)
    package = next(folder.glob("*/*/interface.py")).parent
    project = BakedProject(package.parent, package.name)
    project.run("python", "-m", "mlops", "setup")
    return project


def children_s() -> float:
    """Return the processor time of the processes that this one started and waited for, seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def train(project: BakedProject, seed: int = 0) -> tuple[float, float]:
    """Train as DVC would; return accuracy and loss on the test set."""
    shutil.rmtree(project.path / "models/model")
    params = project.path / "params.yaml"
    lines = params.read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [f"  seed: {seed}\n" if line.startswith("  seed: ") else line for line in lines]
    params.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "mlops", "stage", "train"]
    environment = {**os.environ, "DVC_STAGE": "train", "DVC_ROOT": str(project.path)}
    subprocess.run(command, cwd=project.path, env=environment, check=True, stdout=subprocess.DEVNULL)
    figures = read(project, "reports/metrics.json")
    return figures["test_acc"], figures["test_loss"]

"""Training throughput: the generated project's loop against a bare loop over tensors in memory.

    python tests/benchmarks/training_throughput.py [project]

Both train the same network on the same 1,024 random images with the same batches, optimizer and schedule, in turn in
one process, and measure themselves on 384 others after each epoch. The project's loop does so as its stage does: from
8-bit pixels, deterministic, with the best weights kept and every figure logged by DVCLive. `project` is a generated
project; by default one is baked. Prints Markdown; the goal is a ratio of 0.95 or more.
"""

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from dvclive import Live
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

TEMPLATE = Path(__file__).parents[2]
TRAIN, VAL, PX, CLASSES = 1024, 384, 8, 10
EPOCHS, BATCH, MAX_LR, WEIGHT_DECAY = 15, 64, 3e-3, 1e-4
ROUNDS = 7


def main() -> None:
    """Run the benchmark and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path, help="a generated project; by default one is baked")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = (options.project or bake(Path(folder))).resolve()
        package = next(project.glob("*/model/training.py")).parent.parent.name
        sys.path.insert(0, str(project))
        os.chdir(folder)
        torch.manual_seed(0)
        torch.set_num_threads(1)
        pixels = torch.randint(0, 256, (TRAIN + VAL, 1, PX, PX), dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (TRAIN + VAL,))
        times = alternate(
            lambda build: ours(package, build, pixels, labels),
            lambda build: bare(build, pixels, labels),
            importlib.import_module(f"{package}.model.networks"),
        )
        os.chdir(project)
    project_rate, bare_rate = (TRAIN * EPOCHS / statistics.median(seconds) for seconds in times)
    print("| images/s, project | images/s, bare loop | ratio (goal ≥ 0.95) |\n|---:|---:|---:|")
    print(f"| {project_rate:,.0f} | {bare_rate:,.0f} | {project_rate / bare_rate:.3f} |")


def bake(folder: Path) -> Path:
    """Generate a project with the default answers, and return its path."""
    from cookiecutter.main import cookiecutter

    return Path(cookiecutter(str(TEMPLATE), no_input=True, output_dir=str(folder)))


def alternate(
    first: Callable[[nn.Module], None], second: Callable[[nn.Module], None], networks: ModuleType
) -> tuple[list[float], list[float]]:
    """Time both loops in turn, each on a new network, and return their seconds without those of a first, warm round."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + ROUNDS):
        for run, seconds in zip((first, second), times, strict=True):
            module = networks.build("small_cnn", CLASSES, None)
            start = time.perf_counter()
            run(module)
            seconds.append(time.perf_counter() - start)
    return times[0][1:], times[1][1:]


def ours(package: str, module: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    """Train as the stage does."""
    training, transforms, stage = (
        importlib.import_module(f"{package}.{name}") for name in ("model.training", "model.transforms", "stages.train")
    )
    training.make_deterministic(0, 1)
    train, val = (transforms.Images(pixels[part], labels[part]) for part in (slice(TRAIN), slice(TRAIN, None)))
    recipe = training.Recipe(EPOCHS, BATCH, MAX_LR, WEIGHT_DECAY)
    live = Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None)
    normalise = transforms.Normalise.of(train.pixels)
    training.fit(module, train, val, normalise, recipe, lambda epoch: stage._report(epoch, live))
    live.end()


def bare(module: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    """Train with nothing but PyTorch, on normalised float32 images."""
    torch.use_deterministic_algorithms(False)
    images = (pixels / 255 - 0.5) / 0.29
    optimizer = torch.optim.AdamW(module.parameters(), lr=MAX_LR, weight_decay=WEIGHT_DECAY)
    schedule = OneCycleLR(optimizer, max_lr=MAX_LR, total_steps=EPOCHS * TRAIN // BATCH)
    for _ in range(EPOCHS):
        module.train()
        order = torch.randperm(TRAIN)
        for start in range(0, TRAIN, BATCH):
            batch = order[start : start + BATCH]
            loss = functional.cross_entropy(module(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        module.eval()
        with torch.inference_mode():
            (module(images[TRAIN:]).argmax(1) == labels[TRAIN:]).float().mean().item()


if __name__ == "__main__":
    main()

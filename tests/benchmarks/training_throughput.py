"""Training throughput: the generated project's loop against a bare loop over tensors in memory.

    python -m tests.benchmarks training_throughput

Both train the same network on the same 1,024 random images with the same batches, optimizer and schedule, in turn in
one process, and measure themselves on 384 others after each epoch. The project's loop does so as its stage does: from
8-bit pixels, deterministic, with the best weights kept and every figure logged by DVCLive.
"""

import contextlib
import importlib
import statistics
import sys
import tempfile

import torch
from dvclive import Live
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from ..conftest import BakedProject
from .timing import alternate

TRAIN, VAL, PX, CLASSES = 1024, 384, 8, 10
EPOCHS, BATCH, MAX_LR, WEIGHT_DECAY = 15, 64, 3e-3, 1e-4


def measure(project: BakedProject, full: bool) -> str:
    """Time both loops in turn, each on a new network."""
    sys.path.insert(0, str(project.path))
    networks = importlib.import_module(f"{project.package}.model.networks")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        torch.manual_seed(0)
        torch.set_num_threads(1)
        pixels = torch.randint(0, 256, (TRAIN + VAL, 1, PX, PX), dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (TRAIN + VAL,))
        seconds = alternate(
            lambda: ours(project.package, networks.build("small_cnn", CLASSES, 1, None), pixels, labels),
            lambda: bare(networks.build("small_cnn", CLASSES, 1, None), pixels, labels),
            21 if full else 7,
        )
    rate, bare_rate = (TRAIN * EPOCHS / statistics.median(times) for times in seconds)
    return (
        "| images/s, project | images/s, bare loop | ratio | goal |\n|---:|---:|---:|---:|\n"
        f"| {rate:,.0f} | {bare_rate:,.0f} | {rate / bare_rate:.3f} | ≥ 0.95 |\n"
    )


def ours(package: str, module: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    """Train as the stage does."""
    training, transforms, dataset = (
        importlib.import_module(f"{package}.model.{name}") for name in ("training", "transforms", "dataset")
    )
    mlops = importlib.import_module("mlops")
    training.make_deterministic(0, 1)
    train, val = (dataset.Images(pixels[part], labels[part]) for part in (slice(TRAIN), slice(TRAIN, None)))
    params = training.TrainParams(
        arch="small_cnn",
        weights=None,
        init_from=None,
        image_px=PX,
        epochs=EPOCHS,
        batch_size=BATCH,
        max_lr=MAX_LR,
        weight_decay=WEIGHT_DECAY,
        seed=0,
        threads=1,
        processes=1,
    )
    live = Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None)
    normalise = transforms.Normalise.of(train.pixels)
    training.fit(module, train, val, normalise, params, mlops.TrainingRun(live=live))
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

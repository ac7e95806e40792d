"""Training throughput: the generated project's loop against a bare loop over tensors in memory.

    python -m tests.benchmarks training_throughput

Both train the same network on the same random images with the same batches, optimizer and schedule, in turn in one
process, and measure themselves on others after each epoch. The project's loop does so as its stage does: from 8-bit
pixels, deterministic, with the best weights kept and hashed and every figure logged by DVCLive. On the CPU, processor
time is compared; on a GPU (`make test-gpu`), time, and the bare loop has the same deterministic kernels.
"""

import contextlib
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from ..conftest import BakedProject
from .timing import alternate

CLASSES, EPOCHS, MAX_LR, WEIGHT_DECAY = 10, 15, 3e-3, 1e-4
SIZES: dict[str, dict[str, Any]] = {  # of the default network
    "1,024 of 8 x 8 (the digits), batches of 64": {"records": 1024, "px": 8, "batch": 64, "epochs": EPOCHS},
    "2,000 of 32 x 32, batches of 64": {"records": 2000, "px": 32, "batch": 64, "epochs": 1},
}


class Images(torch.utils.data.Dataset[Any]):
    """Decoded images with labels, as the project keeps those of a small split."""

    random, in_memory = False, True

    def __init__(self, count: int, channels: int, px: int) -> None:
        """Make random ones."""
        self.pixels = torch.randint(0, 256, (count, channels, px, px), dtype=torch.uint8)
        self.labels = torch.arange(count) % CLASSES

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.labels)

    def batch(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        """Return images and labels at once."""
        return self.pixels[positions], self.labels[positions]


class Comparison(NamedTuple):
    """Images a second of the project's loop and of the bare one."""

    rate: float
    bare_rate: float

    @property
    def ratio(self) -> float:
        """The project's throughput in those of the bare loop."""
        return self.rate / self.bare_rate


def measure(project: BakedProject, full: bool) -> str:
    """Time both loops in turn, each on a new network."""
    rows = "| images | images/s, project | images/s, bare loop | ratio | goal |\n|---|---:|---:|---:|---:|\n"
    for name, size in SIZES.items():
        result = compare(project, rounds=21 if full else 7, **size)
        rows += f"| {name} | {result.rate:,.0f} | {result.bare_rate:,.0f} | {result.ratio:.3f} | ≥ 0.95 |\n"
    return rows


def compare(
    project: BakedProject,
    rounds: int,
    records: int,
    arch: str = "small_cnn",
    px: int = 8,
    batch: int = 64,
    epochs: int = 3,
) -> Comparison:
    """Train with both loops in turn, on the device that the project finds."""
    sys.path.insert(0, str(project.path))
    names = ("networks", "training", "transforms", "dataset")
    networks, training, transforms, dataset = (importlib.import_module(f"{project.package}.model.{n}") for n in names)
    mlops, device = importlib.import_module("mlops"), importlib.import_module("mlops.training.device")
    Live = importlib.import_module("mlops.tracking.live").Live
    with contextlib.chdir(project.path):
        params = mlops.params("train", training.TrainParams)
    # The optimizer and the schedule stay those of the default project: `bare` has the same.
    params = params.model_copy(update={"arch": arch, "image_px": px, "batch_size": batch, "epochs": epochs})
    fabric = device.build_fabric(threads=1)
    torch.manual_seed(0)
    channels = 1 if arch == "small_cnn" else 3
    train, val = Images(records, channels, px), Images(max(64, records // 10), channels, px)
    data = dataset.Dataset(tuple(map(str, range(CLASSES))), channels, train, val, val)
    normalise = transforms.Normalise.of(train.pixels[:1024].numpy())

    def ours() -> None:
        Path("reports/train/weights.tsv").unlink(missing_ok=True)
        live = Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None)
        module = networks.build(arch, CLASSES, channels)
        training.fit(module, data, normalise, params, fabric, mlops.TrainingRun(live=live))
        live.end()

    def plain() -> None:
        torch.use_deterministic_algorithms(fabric.device.type != "cpu")
        bare(networks.build(arch, CLASSES, channels), train, val, normalise, epochs, batch, fabric.device)
        torch.use_deterministic_algorithms(True)

    clock = time.process_time if fabric.device.type == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        seconds = alternate(ours, plain, rounds, clock)
    return Comparison(*(records * epochs / statistics.median(times) for times in seconds))


def bare(
    module: nn.Module, train: Images, val: Images, normalise: Any, epochs: int, batch: int, device: torch.device
) -> None:
    """Train with nothing but PyTorch: on the CPU on normalised float32 images, on a GPU on pinned copies of 8 bits."""
    module.to(device)
    if device.type == "cpu":
        images, val_images = normalise(train.pixels), normalise(val.pixels)
    else:
        module.to(memory_format=torch.channels_last)
        images, val_images = train.pixels.pin_memory(), normalise(val.pixels.to(device))
    labels = train.labels.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=MAX_LR, weight_decay=WEIGHT_DECAY)
    steps = -(-len(train) // batch)
    schedule = OneCycleLR(optimizer, max_lr=MAX_LR, total_steps=epochs * steps)
    for _ in range(epochs):
        module.train()
        order = torch.randperm(len(train))
        for positions in order.split(batch):
            inputs = images[positions]
            if device.type != "cpu":
                inputs = normalise(inputs.pin_memory().to(device, non_blocking=True))
            loss = functional.cross_entropy(module(inputs), labels[positions.to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        module.eval()
        with torch.inference_mode():
            guesses = torch.cat([module(part).argmax(1) for part in val_images.split(256)])
            (guesses.cpu() == val.labels).float().mean().item()

"""One measurement of `loading.py`, in a process of its own: python loading_trainer.py '{"project": …, "work": …}'.

Prints its figures as JSON. The other side of each comparison is torchvision's reference recipe for classification:
ImageFolder, a DataLoader, its transforms in their order.

Source: https://github.com/pytorch/vision/tree/main/references/classification (presets.py, train.py)
"""

import importlib
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]  # of an epoch: float32 images, labels


def cpu_s() -> float:
    """Return the processor time of this process and its children so far, seconds."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [process.cpu_times() for process in (psutil.Process(), *psutil.Process().children(recursive=True))]
    return float(ended.ru_utime + ended.ru_stime + sum(times.user + times.system for times in alive))


def own_mb() -> float:
    """Return the memory of this process and its children that no file backs, shared pages once, in MB."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return total / 1024


class Measurement:
    """What the works below share.

    Args:
        project: The root of the generated project.
        package: The name of the team's package.
        folder: With `data` for the project, and `files` for ImageFolder.
        px: Side of the images that the network gets.
        augment: As in params.yaml; "none" keeps what is small in memory.
        options: Of the work.
    """

    def __init__(self, project: str, package: str, folder: str, px: int, augment: str, **options: Any) -> None:
        """Let the project be imported."""
        sys.path.insert(0, project)
        self.package, self.folder, self.px, self.augment, self.options = package, Path(folder), px, augment, options

    def module(self, name: str) -> ModuleType:
        """Import a module of the project: `mlops`, or one of the team's `model`."""
        return importlib.import_module(name if name == "mlops" else f"{self.package}.model.{name}")

    def project(self, workers: int | None) -> Batches:
        """Return the project's way."""
        dataset, transforms = self.module("dataset"), self.module("transforms")
        data = dataset.read_dataset(self.folder / "data", transforms.Preprocess(self.px, 3), self.augment).train
        process = SimpleNamespace(device=torch.device("cpu"), global_rank=0, world_size=1)
        loader = self.module("mlops").TrainingLoader(data, BATCH, 0, process, workers=workers)
        normalise = transforms.Normalise(MEAN, STD)
        return lambda epoch: ((normalise(batch.images), batch.labels) for batch in loader.epoch(epoch))

    def reference(self, workers: int) -> Batches:
        """Return torchvision's way."""
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2

        steps = [v2.RandomResizedCrop(self.px, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        steps += [v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD)]
        data = ImageFolder(self.folder / "files", v2.Compose(steps))
        loader = torch.utils.data.DataLoader(
            data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=True
        )
        return lambda epoch: loader

    def tensors(self, workers: int) -> Batches:
        """Return plain indexing of tensors: what nothing in memory can be faster than."""
        dataset, transforms = self.module("dataset"), self.module("transforms")
        data = dataset.read_dataset(self.folder / "data", transforms.Preprocess(self.px, 3), "none", "memory").train
        pixels, labels = data.batch(range(len(data)))
        normalise = transforms.Normalise(MEAN, STD)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for part in torch.randperm(len(labels)).split(BATCH):
                yield normalise(pixels[part]), labels[part]

        return batches

    def network(self) -> nn.Module:
        """Return the network to train; none if only loading is measured."""
        name = self.options.get("network")
        return self.module("networks").build(name, 10, 3) if name else nn.Identity()

    def compare(self) -> dict[str, Any]:
        """Go over the images in turn by two ways; return images a second and CPU ms an image of each round."""
        ways = {name: getattr(self, name)(self.options["workers"]) for name in self.options["ways"]}
        trainings = {name: Training(self.network()) for name in ways}
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(1 + self.options["rounds"]):
            for name, batches in ways.items():
                processor, clock = cpu_s(), time.perf_counter()
                count = trainings[name].run(batches(number), self.options.get("steps"))
                seconds, processor = time.perf_counter() - clock, cpu_s() - processor
                figures[name].append((count / seconds, processor / count * 1000))
        return {name: rounds[1:] for name, rounds in figures.items()}

    def first_step(self) -> dict[str, Any]:
        """Make a first step; return the processor time of this process till then, imports and all."""
        batches = getattr(self, self.options["ways"][0])(self.options["workers"])
        Training(self.network()).run(batches(0), 1)
        return {"cpu_s": cpu_s(), "wall_s": time.time() - psutil.Process().create_time()}

    def memory(self) -> dict[str, Any]:
        """Open, shuffle, and make some steps; return the peak of memory that no file backs, and the time to open."""
        start = time.perf_counter()
        batches = self.project(self.options["workers"])
        opened, peak, count = time.perf_counter() - start, own_mb(), 0
        epochs = itertools.chain.from_iterable(map(batches, itertools.count()))  # few records have as many steps
        for number, (images, _) in enumerate(epochs):
            count += len(images)
            if number % 20 == 0:
                peak = max(peak, own_mb())
            if number + 1 == self.options["steps"]:
                break
        return {"peak_mb": peak, "open_s": opened, "images": count}


class Training:
    """A network that takes a step a batch; without weights, batches are only loaded."""

    def __init__(self, module: nn.Module) -> None:
        """Make an optimizer for a network."""
        self.module = module.train()
        weights = list(module.parameters())
        self.optimizer = torch.optim.AdamW(weights) if weights else None

    def run(self, batches: Iterable[tuple[Tensor, Tensor]], steps: int | None) -> int:
        """Take so many steps, None for all; return the number of images."""
        count = 0
        for number, (images, labels) in enumerate(batches, 1):
            count += len(labels)
            if self.optimizer:
                self.optimizer.zero_grad()
                functional.cross_entropy(self.module(images), labels).backward()
                self.optimizer.step()
            if number == steps:
                break
        return count


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work = given.pop("work")
    print(json.dumps(getattr(Measurement(**given), work)()))

"""Images from the shards: speed against torchvision's reference recipe and against memory, and what memory they take.

    python -m tests.benchmarks loading [--full]

Made images, JPEGs of 256 pixels and PNGs of 32: noise and gradients, in 10 classes. Each comparison runs both sides in
turn in one process (`loading_trainer.py`), which computes with one thread. Ratios are of processor time an image, all
processes together, since on two cores that is what a training waits for; images a second are told beside them.
Memory is what no file backs, shared pages once: the page cache is apart. `--full` opens 1,200,000 images, by the bytes
of a few hundred (20 GB of disk).
"""

import importlib
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from ..conftest import BakedProject

TRAINER = Path(__file__).with_name("loading_trainer.py")
PHOTOS, SMALL = 4_000, 20_000
PHOTO_PX, CROP_PX, SMALL_PX = 256, 160, 32
SHARDS = 16
Figures = dict[str, Any]


def measure(project: BakedProject, full: bool) -> str:
    """Make the images, then compare."""
    rounds = 5 if full else 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(project, folder)
        photos = [picture(index, PHOTO_PX, "JPEG") for index in range(PHOTOS)]
        bench.write("photos", photos, files=True)
        bench.write("small", [picture(index, SMALL_PX, "PNG") for index in range(SMALL)])
        rows = ["| | workers | project, images/s | other, images/s | CPU ms an image | other | CPU ratio | goal |"]
        rows.append("|---|---:|---:|---:|---:|---:|---:|---:|")
        ways = ("project", "reference")
        for workers in (0, 2):
            title = "photos, 160 px, against ImageFolder: loading"
            rows.append(bench.compare(title, "≥ 1.2", "photos", ways, rounds, workers))
        for network, steps in (("mobilenet_v3_small", 20), ("resnet18", 8)):
            title = f"the same: training {network}"
            rows.append(bench.compare(title, "≥ 1.2", "photos", ways, rounds, 2, network=network, steps=steps))
        for network in ("", "small_cnn"):
            title = f"32 px in memory, against tensors: {f'training {network}' if network else 'loading'}"
            goal = "≥ 0.95" if network else ""
            options = {"network": network, "steps": 25} if network else {}
            rows.append(bench.compare(title, goal, "small", ("project", "tensors"), 5 * rounds, 0, **options))
        tables = ["\n".join(rows), bench.first_step(rounds), bench.memory(photos, full)]
    return "\n\n".join(tables) + "\n"


def picture(index: int, px: int, kind: str) -> bytes:
    """Return an encoded image: coarse colours, blown up, with noise."""
    random = np.random.default_rng(index)
    coarse = Image.fromarray(random.integers(0, 256, (px // 16, px // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((px, px), Image.Resampling.BICUBIC))
    noise = random.normal(0, 6, (px, px, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


class Bench:
    """Datasets in a folder, and measurements on them with a project's code."""

    def __init__(self, project: BakedProject, folder: Path) -> None:
        """Let the project's writer of shards be imported."""
        self.project, self.folder = project, folder
        sys.path.insert(0, str(project.path))
        self.shards: Any = importlib.import_module("mlops.records.shards")
        self.problems: Any = importlib.import_module("mlops.records.source").Problems("")

    def write(self, name: str, images: list[bytes], count: int = 0, files: bool = False) -> None:
        """Write a dataset of so many records, of these images in turn; `files` adds a folder for ImageFolder."""
        count = count or len(images)
        for split, size in (("train", count), ("val", 100), ("test", 100)):
            path = self.folder / name / "data" / split
            path.mkdir(parents=True)
            for shard in range(SHARDS):
                rows = self._rows(images, range(shard, size, SHARDS))
                self.shards._write_shard(path / f"shard-{shard:03}.parquet", rows, self.problems)
        for index, image in enumerate(images) if files else ():
            file = self.folder / name / "files" / f"c{index % 10}" / f"{index:06}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)

    def _rows(self, images: list[bytes], indices: range) -> Iterator[tuple[tuple[str, ...], bytes]]:
        for index in indices:
            yield (f"{index:07}", f"s{index // 5}", f"c{index % 10}", "", ""), images[index % len(images)]

    def run(self, work: str, name: str, **options: Any) -> Figures:
        """Do one work of the trainer in a process of its own; return its figures."""
        px, augment = (SMALL_PX, "none") if name == "small" else (CROP_PX, "standard")
        given: Figures = {"work": work, "project": str(self.project.path), "package": self.project.package}
        given |= {"folder": str(self.folder / name), "px": px, "augment": augment, **options}
        command = [sys.executable, str(TRAINER), json.dumps(given)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=self.folder)
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures

    def compare(
        self, title: str, goal: str, name: str, ways: tuple[str, str], rounds: int, workers: int, **options: Any
    ) -> str:
        """Return a row of the table of speeds."""
        figures = self.run("compare", name, ways=ways, rounds=rounds, workers=workers, **options)
        (rate, cost), (other_rate, other_cost) = (
            (statistics.median(rates), statistics.median(costs))
            for rates, costs in (zip(*figures[way], strict=True) for way in ways)
        )
        return (
            f"| {title} | {workers} | {rate:,.0f} | {other_rate:,.0f} | {cost:.3f} | {other_cost:.3f} "
            f"| {other_cost / cost:.2f} | {goal} |"
        )

    def first_step(self, rounds: int) -> str:
        """Return a table of the processor time from the start of a process to its first step."""
        seconds: dict[str, list[float]] = {"project": [], "reference": []}
        for _ in range(1 + rounds):
            for way, times in seconds.items():
                options = {"ways": [way], "workers": 2, "network": "mobilenet_v3_small"}
                times.append(self.run("first_step", "photos", **options)["cpu_s"])
        first, second = (statistics.median(times[1:]) for times in seconds.values())
        return (
            "| to the first step on photos: project, CPU s | reference, CPU s | ratio | goal |\n|---:|---:|---:|---:|\n"
            f"| {first:.2f} | {second:.2f} | {first / second:.2f} | ≤ 1.1 |"
        )

    def memory(self, photos: list[bytes], full: bool) -> str:
        """Return a table of memory and time to open, by the number of records."""
        lines = ["| records | workers | peak, MB | above 1,000 records | goal | to open, s |"]
        lines.append("|---:|---:|---:|---:|---:|---:|")
        least = dict[int, float]()
        for count, steps in ((1_000, 300), (100_000, 300), *([(1_200_000, 1_000)] if full else [])):
            self.write(f"records-{count}", photos[:500], count)
            for workers in (0, 2):
                figures = self.run("memory", f"records-{count}", workers=workers, steps=steps)
                peak = figures["peak_mb"]
                goal = {100_000: "≤ 1,200 above", 1_200_000: "≤ 4,000"}.get(count, "")
                above = peak - least.setdefault(workers, peak)
                lines.append(
                    f"| {count:,} | {workers} | {peak:,.0f} | {above:,.0f} | {goal} | {figures['open_s']:.1f} |"
                )
        return "\n".join(lines)

"""Time things in turn, so that what disturbs the machine disturbs both."""

import importlib
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from ..conftest import BakedProject

Action = Callable[[], object]


def measure(name: str, project: BakedProject, full: bool) -> str:
    """Run the benchmark `name`, and return its tables as Markdown."""
    return str(importlib.import_module(f".{name}", __package__).measure(project, full))


def alternate(
    first: Action, second: Action, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[float]]:
    """Run both in turn, and return the seconds of each by a clock, without those of a first, warm round."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + rounds):
        for action, times in zip((first, second), seconds, strict=True):
            start = clock()
            action()
            times.append(clock() - start)
    return seconds[0][1:], seconds[1][1:]


def ratio_table(names: tuple[str, str], seconds: tuple[list[float], list[float]], goal: float) -> str:
    """Show both medians, with the fastest and slowest round, and their ratio."""
    first, second = map(statistics.median, seconds)
    spread = [f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})" for times in seconds]
    return (
        f"| rounds | {names[0]}, s | {names[1]}, s | ratio | goal |\n|---:|---:|---:|---:|---:|\n"
        f"| {len(seconds[0])} | {spread[0]} | {spread[1]} | {first / second:.2f} | ≤ {goal} |\n"
    )


def copy_of(project: BakedProject, folder: Path) -> BakedProject:
    """Copy a project in which nothing has run to a new place, with a storage of its own."""
    path = folder / project.path.name
    shutil.copytree(project.path, path, symlinks=True)
    copied = BakedProject(path, project.package)
    copied.run("dvc", "remote", "modify", "--local", "storage", "url", (path / "dvc-storage").as_posix())
    return copied

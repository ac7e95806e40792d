"""What the pipeline costs: `dvc repro` from nothing against one plain script that does the same work.

    python -m tests.benchmarks pipeline

The script (`plain_script.py`) makes the same dataset, manifest, contact sheets, network, plots and registered model,
and logs them with MLflow's own calls. It has no stages, cache, remote or lineage. Packages are installed and MLflow's
database exists before either is timed.
"""

import itertools
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from ..conftest import BakedProject
from .timing import alternate, copy_of, ratio_table

SCRIPT = Path(__file__).with_name("plain_script.py")


def measure(project: BakedProject, full: bool) -> str:
    """Run both in turn, each time from nothing, and tell where the pipeline's time goes."""
    rounds = 7 if full else 3
    parts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        copies = (copy_of(project, Path(folder, str(number))) for number in range(2 * (1 + rounds)))
        fresh = iter(list(copies))
        seconds = alternate(lambda: parts.append(_repro(next(fresh))), lambda: _script(next(fresh)), rounds)
    both = ratio_table(("dvc repro", "plain script"), seconds, goal=1.25)
    names = list(parts[0])
    medians = [statistics.median(part[name] for part in parts[1:]) for name in names]
    head = f"| seconds of | {' | '.join(names)} |\n|---|{'---:|' * len(names)}\n"
    return f"{both}\n{head}| dvc repro | {' | '.join(f'{median:.2f}' for median in medians)} |\n"


def _repro(project: BakedProject) -> dict[str, float]:
    """Run the pipeline; return the seconds before the first stage, and from each stage's start to the next."""
    marks = {"start": time.perf_counter()}
    command = ["dvc", "repro"]
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as dvc:
        assert dvc.stdout is not None
        output = []
        for line in dvc.stdout:
            output.append(line)
            if line.startswith("Running stage"):
                marks[line.split("'")[1]] = time.perf_counter()
    assert dvc.returncode == 0, "".join(output)
    times = itertools.pairwise([*marks.values(), time.perf_counter()])
    return {name: end - start for name, (start, end) in zip(marks, times, strict=True)}


def _script(project: BakedProject) -> None:
    shutil.copy(SCRIPT, project.path)
    project.run("python", SCRIPT.name, project.package)

"""Measure a project that is generated for it: `make bench`.

    python -m tests.benchmarks [pipeline] [noop] [training_throughput] [digits] [data_scale] [logging_cost]
                               [mirror_status] [job_overhead] [sagemaker] [records] [verbs] [consent] [loading]
                               [lineage] [portable] [--full]

Prints a Markdown table for each, as it comes out; ratios are of medians, between things that were run in turn. On a
machine that does other work at the same time, run it again. Nothing here is part of the tests.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from ..conftest import TEMPLATE, BakedProject
from .timing import measure

NAMES = (
    "pipeline",
    "noop",
    "training_throughput",
    "digits",
    "data_scale",
    "logging_cost",
    "mirror_status",
    "job_overhead",
    "sagemaker",
    "records",
    "verbs",
    "consent",
    "loading",
    "lineage",
    "portable",
)


def main() -> None:
    """Generate a project, set it up, and run the benchmarks that were named."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(NAMES)}; by default all")
    parser.add_argument(
        "--full",
        action="store_true",
        help="more rounds, 1,000,000 records (3 GB of disk), 50,000 steps, an index of 10,000,000 records, "
        "1,200,000 images (20 GB)",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = ready(Path(folder).resolve())
        # Each in a process of its own: what one imports is in the memory that another measures.
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
            for name in options.names or NAMES:
                start = time.perf_counter()
                table = processes.submit(measure, name, project, options.full).result()
                print(f"### {name}\n\n{table}\n({time.perf_counter() - start:.0f} s)\n", flush=True)


def ready(folder: Path) -> BakedProject:
    """Generate a project with the default answers, and set it up: packages are there, nothing has run."""
    for name in list(os.environ):
        if name.startswith(("DVC_", "MLFLOW_", "GIT_")) or name == "RUN_ON":
            del os.environ[name]
    # As `make` does in a project; and without what tells its makers of its use, over the network.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    os.environ |= {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ |= {"DVC_SITE_CACHE_DIR": str(folder / "site"), "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    bake = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--default-config"]
    subprocess.run([*bake, "--output-dir", str(folder)], check=True, stdout=subprocess.DEVNULL)  # it says what to type
    package = next(folder.glob("*/*/interface.py")).parent
    project = BakedProject(package.parent, package.name)
    project.run("python", "-m", "mlops", "setup")
    return project


if __name__ == "__main__":
    main()

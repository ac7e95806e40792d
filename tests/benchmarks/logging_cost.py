"""What recording costs a training at each step: the project's way against MLflow's own calls and DVCLive as it is.

    python -m tests.benchmarks logging_cost [--full]

A training here (`logging_trainer.py`, each in a process of its own, in turn) sleeps as long as a step is, makes
figures, and records them. What is measured is the time of the calls that record (a step's figures and its end), and the
processor time of the whole process, less that of a training which records nothing. That includes its threads and what
it does at the end; imports and the start of the run are told apart. "% of 10 ms" is of the larger of the two. The goals
for the project's way: 1 %, as cheap in the last tenth of the steps as in the first, and a 30th of `mlflow.log_metric`.

A training is stopped when its calls have taken as long as their limit; the table tells the steps that it made. MLflow
is an SQLite file, or a server with one worker on such a file. DVCLive sends nothing to MLflow; the project's sidecar
sends all, and a training whose run MLflow does not have whole in the end fails the benchmark. "Sidecar s" is its
processor time, imports and all.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..conftest import BakedProject

TRAINER = Path(__file__).with_name("logging_trainer.py")
NAMES = {
    "bare": "nothing",
    "dvclive": "DVCLive",
    "log_metric": "mlflow.log_metric",
    "log_metrics": "mlflow.log_metrics, once a step",
    "async": "mlflow.log_metric, synchronous=False",
    "ours": "**the project**",
}
STEPS, LONG = 1_000, 50_000
WIDTHS = (1, 20)
"""Metrics a step."""
STEP_MS = 1.0
SHORT_S, LONG_S, WHOLE_S = 0.5, 60.0, 600.0
"""Limits of the time in calls. What MLflow's threads have taken on by then, they send for many times as long."""

Cost = dict[str, float]


def measure(project: BakedProject, full: bool) -> str:
    """Measure the ways in turn and the project's with longer and shorter steps; `full` adds complete and long runs."""
    with TemporaryDirectory() as folder, server(Path(folder)) as address:
        stores = {"sqlite": f"sqlite:///{(project.path / 'mlflow.db').as_posix()}", "server": address}
        tables = [comparison(project, stores, 3 if full else 1, SHORT_S)]
        tables.append(paces(project, stores if full else {"sqlite": stores["sqlite"]}))
        if full:
            tables.append("To the end:\n\n" + comparison(project, stores, 1, WHOLE_S))
            tables.append(long_runs(project, stores))
    return "\n".join(tables)


def comparison(project: BakedProject, stores: dict[str, str], rounds: int, limit_s: float) -> str:
    """Compare all ways; a figure is the median of the rounds."""
    head = ["metrics", "store", "way", "steps", "calls µs: mean", "p50", "p99", "CPU µs", "% of 10 ms"]
    head += ["log_metric ÷: calls", "CPU", "start s", "end s", "sidecar s"]
    rows = []
    for width in WIDTHS:
        ways = [("bare", ""), ("dvclive", "")]
        for store in stores:
            ways += [(name, store) for name in NAMES if name not in ("bare", "dvclive")]
        if width == 1:
            ways = [way for way in ways if way[0] != "log_metrics"]  # it is the same
        costs_of: dict[tuple[str, str], list[Cost]] = {way: [] for way in ways}
        for _ in range(rounds):
            for name, store in ways:
                costs_of[name, store].append(train(project, name, stores.get(store, ""), width, limit_s=limit_s))
        costs = {way: median(each) for way, each in costs_of.items()}
        for (name, store), cost in costs.items():
            bare = costs["bare", ""]
            ratios = ["", ""]
            if store:
                theirs = costs["log_metric", store]
                ratios = [
                    f"{theirs['mean_us'] / cost['mean_us']:.0f}",
                    f"{extra(theirs, bare) / extra(cost, bare):.0f}",
                ]
            cells = [str(width), store, NAMES[name], *calls(cost, bare), *ratios]
            rows.append([*cells, f"{cost['begin_s']:.1f}", f"{cost['end_s']:.1f}", seconds(cost, "sidecar_s")])
    return table(head, rows)


def paces(project: BakedProject, stores: dict[str, str]) -> str:
    """Measure the project's way in a tight loop, where rows are written together, and where each step is written."""
    head = ["step", "metrics", "store", "steps", "calls µs: mean", "p50", "p99", "CPU µs", "% of 10 ms"]
    head += ["max", "end s", "sidecar s"]
    rows = []
    for step_ms in (0.0, 10.0):
        bare = train(project, "bare", "", max(WIDTHS), steps=STEPS // 4, step_ms=step_ms)
        for width in WIDTHS:
            for store, uri in stores.items():
                cost = train(project, "ours", uri, width, step_ms=step_ms)
                pace = f"{step_ms:.0f} ms" if step_ms else "none"
                figures = [f"{cost['max_us']:.0f}", f"{cost['end_s']:.1f}", seconds(cost, "sidecar_s")]
                rows.append([pace, str(width), store, *calls(cost, bare), *figures])
    return table(head, rows)


def long_runs(project: BakedProject, stores: dict[str, str]) -> str:
    """Measure whether a step's cost grows with the run."""
    head = ["metrics", "store", "way", "steps", "calls µs: mean", "p50", "p99", "CPU µs", "% of 10 ms"]
    head += ["last tenth, mean µs", "÷ first", "the same, p50", "end s", "sidecar s", "sidecar µs a step", "behind s"]
    rows = []
    for width in WIDTHS:
        bare = train(project, "bare", "", width)
        for name, store in (("dvclive", ""), *(("ours", store) for store in stores)):
            limit_s = LONG_S if name == "dvclive" else WHOLE_S
            cost = train(project, name, stores.get(store, ""), width, steps=LONG, limit_s=limit_s)
            cells = [str(width), store, NAMES[name], *calls(cost, bare), f"{cost['last_us']:.0f}"]
            cells += [f"{cost['growth']:.2f}", f"{cost['growth_p50']:.2f}", f"{cost['end_s']:.1f}"]
            each = f"{cost['sidecar_s'] / cost['steps'] * 1e6:.0f}" if store else ""
            rows.append([*cells, seconds(cost, "sidecar_s"), each, seconds(cost, "behind_s")])
    return table(head, rows)


def train(
    project: BakedProject,
    name: str,
    uri: str,
    width: int,
    steps: int = STEPS,
    step_ms: float = STEP_MS,
    limit_s: float = WHOLE_S,
) -> Cost:
    """Run one training in the project, and return what it cost."""
    command = [sys.executable, str(TRAINER), name, str(width), str(steps), str(step_ms), str(limit_s)]
    done = subprocess.run(
        command, cwd=project.path, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"
    cost: Cost = json.loads(done.stdout.splitlines()[-1])
    return cost


def median(costs: list[Cost]) -> Cost:
    """Return the medians of each figure."""
    return {key: statistics.median(cost[key] for cost in costs) for key in costs[0]}


def extra(cost: Cost, bare: Cost) -> float:
    """Return microseconds of processor time a step that recording took."""
    return max(cost["cpu_us"] - bare["loop_cpu_us"], 0.1)


def calls(cost: Cost, bare: Cost) -> list[str]:
    """Return the cells that each table has."""
    times = [f"{cost[key]:,.0f}" for key in ("steps", "mean_us", "p50_us", "p99_us")]
    cpu = extra(cost, bare)
    return [*times, f"{cpu:,.0f}", f"{max(cpu, cost['mean_us']) / 10_000:.1%}"]


def seconds(cost: Cost, key: str) -> str:
    """Return a cell that only the project's way has."""
    return f"{cost[key]:.1f}" if key in cost else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run an MLflow server on an SQLite file, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{(folder / 'mlflow.db').as_posix()}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the server answers.

    Raises:
        AssertionError: It ended, with what it said.
    """
    while process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))

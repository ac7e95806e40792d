"""A training that computes nothing, and records figures in one of several ways: see `logging_cost.py`.

    python logging_trainer.py <method> <metrics a step> <steps> <ms of a step> <limit, s>

Runs in the root of a generated project after its `setup`, with the address of MLflow in `MLFLOW_TRACKING_URI`. Prints
what it cost as JSON. It stops when the limit has passed, and says how many steps it made.
"""

import contextlib
import json
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

sys.path[0] = os.getcwd()  # the project's code, and not the benchmarks beside this file

FACTS = (
    *("name", "project", "user", "data_git_commit_id", "git_remote_url", "git_branch", "baseline_commit"),
    *("dataset_path", "dataset_md5", "data_version", "manifest_sha256", "consent_sha256", "consent_excluded"),
    *("dvc_exp_name", "dvc_remote_url", "cpu_capability"),
)
"""What a training tells about itself; here it does not matter what."""

Log = Callable[[int, dict[str, float]], object]


def main() -> None:
    """Train, and print the cost."""
    method = sys.argv[1]
    metrics, steps = map(int, sys.argv[2:4])
    step_s, limit_s = float(sys.argv[4]) / 1000, float(sys.argv[5])
    begin = time.perf_counter()
    with METHODS[method]() as log:
        ready, cpu = time.perf_counter(), time.process_time()
        calls = list(training(log, metrics, steps, step_s, limit_s))
        loop_cpu, ending = time.process_time() - cpu, time.perf_counter()
    end, cpu = time.perf_counter(), time.process_time() - cpu
    run_cost = {"begin_s": ready - begin, "end_s": end - ending, "loop_cpu_us": loop_cpu / len(calls) * 1e6}
    print(json.dumps(run_cost | {"cpu_us": cpu / len(calls) * 1e6} | of_calls(calls) | of_sidecar(method)))


def training(log: Log, metrics: int, steps: int, step_s: float, limit_s: float) -> Iterator[float]:
    """Give the seconds that each step's calls took."""
    names = [f"train/metric_{number:02}" for number in range(metrics)]
    taken = 0.0
    for step in range(steps):
        time.sleep(step_s)
        values = {name: math.sin(step + number) for number, name in enumerate(names)}
        start = time.perf_counter()
        log(step, values)
        end = time.perf_counter()
        taken += end - start
        yield end - start
        if taken > limit_s:
            return


def of_calls(calls: list[float]) -> dict[str, float]:
    """Return microseconds, and how the last tenth of the steps compares with the first."""
    ordered, tenth = sorted(calls), max(len(calls) // 10, 1)
    first, last = calls[:tenth], calls[-tenth:]
    return {
        "steps": len(calls),
        "mean_us": statistics.fmean(calls) * 1e6,
        "p50_us": statistics.median(calls) * 1e6,
        "p99_us": ordered[math.ceil(len(ordered) * 0.99) - 1] * 1e6,
        "max_us": ordered[-1] * 1e6,
        "last_us": statistics.fmean(last) * 1e6,
        "growth": statistics.fmean(last) / statistics.fmean(first),
        "growth_p50": statistics.median(last) / statistics.median(first),
    }


def of_sidecar(method: str) -> dict[str, float]:
    """Wait until the sidecar has sent all, and return how long that took and the processor time that it used."""
    if method != "ours":
        return {}
    start = time.perf_counter()
    with contextlib.suppress(ChildProcessError):  # there is none left
        while True:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # its own thread takes what it leaves
            time.sleep(0.02)
    assert not import_module("mlops.tracking.uploader").waiting(), "MLflow did not take the run"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"behind_s": time.perf_counter() - start, "sidecar_s": used.ru_utime + used.ru_stime}


@contextlib.contextmanager
def bare() -> Iterator[Log]:
    """Record nothing."""
    yield lambda step, values: None


@contextlib.contextmanager
def log_metric() -> Iterator[Log]:
    """Call MLflow for each figure, and wait."""
    with mlflow_run() as mlflow:
        yield lambda step, values: [mlflow.log_metric(name, value, step) for name, value in values.items()]


@contextlib.contextmanager
def log_metrics() -> Iterator[Log]:
    """Call MLflow once a step, and wait."""
    with mlflow_run() as mlflow:
        yield lambda step, values: mlflow.log_metrics(values, step)


@contextlib.contextmanager
def asynchronous() -> Iterator[Log]:
    """Call MLflow for each figure; its threads send them."""
    with mlflow_run() as mlflow:
        yield lambda step, values: [
            mlflow.log_metric(name, value, step, synchronous=False) for name, value in values.items()
        ]
        mlflow.flush_async_logging()


@contextlib.contextmanager
def dvclive() -> Iterator[Log]:
    """Write files with DVCLive as it is, and send nothing to MLflow."""
    from dvclive import Live

    with Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None) as live:
        yield lambda step, values: write(live, values)


@contextlib.contextmanager
def ours() -> Iterator[Log]:
    """Write files as the project's training does, while its sidecar sends them to MLflow."""
    run = import_module("mlops.tracking.run")
    facts = dict.fromkeys(FACTS, "cost") | {
        "run": f"cost{os.getpid()}",
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "parents": [],
        "environment_differences": [],
    }
    with run.recorded(facts) as live:
        yield lambda step, values: write(live, values)


@contextlib.contextmanager
def mlflow_run() -> Iterator[Any]:
    """Give MLflow's module, with a run begun."""
    import mlflow

    mlflow.set_experiment("cost")
    with mlflow.start_run():
        yield mlflow


def write(live: Any, values: dict[str, float]) -> None:
    """Log one step with DVCLive's interface."""
    for name, value in values.items():
        live.log_metric(name, value, timestamp=True)
    live.next_step()


METHODS = {
    "bare": bare,
    "log_metric": log_metric,
    "log_metrics": log_metrics,
    "async": asynchronous,
    "dvclive": dvclive,
    "ours": ours,
}

if __name__ == "__main__":
    main()

"""A training without a network to train: what the tests of the mirror break things around.

    cd <generated project> && python trainer.py <run> --step-s 0.01 --steps 500

Writes how long the calls of each step took to `<run>.latency`: seconds, a line per step.
"""

import argparse
import importlib
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "0" * 64
HOUR_S = 3600


def main() -> None:
    """Log steps until there were enough of them, or until the file `end` exists."""
    args = _arguments()
    sys.path.insert(0, str(Path.cwd()))
    recorded = importlib.import_module("mlops.tracking.run").recorded
    facts = _facts(args.run)
    _write_manifest()
    Path(f"{args.run}.ready").touch()
    while args.after and not args.after.exists():
        time.sleep(0.05)
    with recorded(facts) as live, Path(f"{args.run}.latency").open("w", encoding="utf-8") as latencies:
        live.log_params({"train": {"max_lr": 0.1, "steps": args.steps}})
        live.log_image("sample.png", np.zeros((8, 8), np.uint8))
        for step in _steps(args):
            values = {f"train/{curve}": math.sin(step + curve) for curve in range(args.curves)}
            begin = time.perf_counter()
            for name, value in values.items():
                live.log_metric(name, value)
            live.next_step()
            print(time.perf_counter() - begin, file=latencies, flush=True)
        live.log_metric("test_acc", 0.5, plot=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--step-s", type=float, default=0.01)
    parser.add_argument("--curves", type=int, default=3)
    parser.add_argument("--after", type=Path, help="the steps begin when this file exists")
    parser.add_argument("--back-at", type=int, default=-1, help="the step before which the clock goes back an hour")
    return parser.parse_args()


def _steps(args: argparse.Namespace) -> Iterator[int]:
    end = Path(f"{args.run}.end")
    right = time.time
    for step in itertools.takewhile(lambda _: not end.exists(), range(args.steps)):
        if step == args.back_at:
            time.time = lambda: right() - HOUR_S
        yield step
        time.sleep(args.step_s)


def _facts(run: str) -> dict[str, Any]:
    return {
        "run": run,
        "name": f"gouty-{run}",
        "project": "digit-classifier",
        "user": "A. Person",
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "data_git_commit_id": "c" * 40,
        "git_remote_url": "https://example.org/digits.git",
        "git_branch": "main",
        "baseline_commit": "b" * 40,
        "dataset_path": "data/dataset",
        "dataset_md5": f"{'d' * 32}.dir",
        "data_version": "v1.0",
        "manifest_sha256": MANIFEST,
        "consent_sha256": "e" * 64,
        "consent_excluded": 0,
        "dvc_exp_name": "gouty-fifo",
        "dvc_remote_url": "s3://bucket/dvc",
        "parents": [],
        "cpu_capability": "AVX2",
        "environment_differences": [],
    }


def _write_manifest() -> None:
    Path("data").mkdir(exist_ok=True)
    Path("reports").mkdir(exist_ok=True)
    Path("data/manifest.parquet").write_text("a manifest", encoding="utf-8")
    Path("reports/manifest.json").write_text(json.dumps({"sha256": [MANIFEST]}), encoding="utf-8")


if __name__ == "__main__":
    main()

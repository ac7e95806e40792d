"""Our `Live` writes what DVCLive's writes, and loses no row."""

import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dvclive
import numpy as np
import pytest
from mlops import config
from mlops.tracking import live as module
from mlops.tracking.live import Live
from mlops.tracking.run_files import CURVES, PLOTS, Curves

PLAIN: dict[str, Any] = {"save_dvc_exp": False, "dvcyaml": None, "report": None}


@pytest.fixture(autouse=True)
def no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No DVC repository around, and each step written as it ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(module, "FLUSH_SHARE", math.inf)


def rows(folder: str) -> list[tuple[str, int, str]]:
    return [(row.name, row.step, str(row.value)) for row in Curves(Path(folder), 0).new_rows()]


def untimed(path: Path) -> bytes:
    return re.sub(rb"^\d{13}\t", b"", path.read_bytes().replace(b"\r", b""), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "values",
    [[0.1, 1e-300, 5.0], [1, 2, True], [math.nan, math.inf, -math.inf], ["a", 'b\t"c"', "d\ne"], [np.float32(0.1)]],
    ids=["float", "int", "not finite", "text", "numpy"],
)
def test_log_metric_writes_what_dvclive_writes(values: list[Any]) -> None:
    for folder, kind in (("ours", Live), ("theirs", dvclive.Live)):
        with kind(folder, **PLAIN) as live:
            for value in values:
                live.log_metric("deep/in/it", value, timestamp=True)
                live.log_metric("flat", value, timestamp=True)
                live.log_metric("unplotted", value, plot=False)
                live.next_step()
            live.summary["best"] = 1
    assert rows("ours") == rows("theirs")
    ours, theirs = (Path(folder, "metrics.json").read_bytes() for folder in ("ours", "theirs"))
    assert ours == theirs
    for name in ("deep/in/it.tsv", "flat.tsv"):
        ours, theirs = (untimed(Path(folder, CURVES, name)) for folder in ("ours", "theirs"))
        assert ours == theirs


def test_log_metric_of_no_known_kind_is_refused() -> None:
    from dvclive.error import InvalidDataTypeError

    with Live("run", **PLAIN) as live, pytest.raises(InvalidDataTypeError):
        live.log_metric("loss", [1.0])


def test_next_step_brings_the_row_to_the_file() -> None:
    live = Live("run", **PLAIN)
    for step in range(5):
        live.log_metric("loss", step / 10)
        live.next_step()
        assert [row[1] for row in rows("run")] == list(range(step + 1))
    live.end()


def test_live_process_that_is_killed_leaves_the_rows_of_its_ended_steps() -> None:
    code = f"""
import os, signal
from mlops.tracking import live as module
module.FLUSH_SHARE = float("inf")
live = module.Live("run", **{PLAIN})
for step in range(100):
    live.log_metric("loss", step / 10)
    live.next_step()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(Path(config.__file__).parents[1])}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row[1] for row in rows("run")] == list(range(100))


def test_live_resumed_goes_on_after_the_last_whole_row() -> None:
    with Live("run", **PLAIN) as live:
        for step in range(3):
            live.log_metric("loss", step / 10)
            live.next_step()
    path = Path("run") / CURVES / "loss.tsv"
    with path.open("ab") as file:
        file.write(b"1700000000000\t3\t0.3\n17000")  # the summary does not know of step 3, and the disk was full
    with Live("run", resume=True, **PLAIN) as live:
        assert live.step == 4
        live.log_metric("loss", 0.4)
        live.next_step()
    assert [row[1] for row in rows("run")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_live_resumed_from_what_was_written_goes_on_after_it(steps: int) -> None:
    first = Live("run", **PLAIN)
    for step in range(steps):
        first.log_metric("loss", step / 10)
        first.next_step()
    first.write()
    with Live("run", resume=True, **PLAIN) as live:
        assert live.step == steps
    first.end()


def test_log_plot_describes_how_to_draw_it() -> None:
    with Live("run", **PLAIN) as live:
        live.log_plot("points", [{"a": 1, "b": 2}], x="a", y="b", template="scatter")
        live.log_sklearn_plot("confusion_matrix", [0, 1, 1], [0, 1, 0], name="deep/matrix")
    configs = json.loads(Path("run", PLOTS).read_text(encoding="utf-8"))
    assert configs["plots/custom/points.json"]["template"] == "scatter"
    assert configs["plots/sklearn/deep/matrix.json"]["x"] == "actual"
    assert all(Path("run", name).exists() for name in configs)

"""The project's Live stands in for DVCLive's own: the callbacks of frameworks write the same with both."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ..conftest import Bake

SCRIPT = Path(__file__).with_name("frameworks.py")

# Curves that the training must have, with their numbers of rows; and a parameter that its callback logs.
TRAININGS: dict[str, tuple[dict[str, int], dict[str, float]]] = {
    "lightning": (
        {"train/step/loss": 9, "train/epoch/loss": 3, "val/loss": 3, "test/loss": 1, "batch": 9, "epoch": 16},
        {"learning_rate": 0.1},
    ),
    "hugging_face": (
        {"loss": 6, "grad_norm": 6, "learning_rate": 6, "epoch": 10, "eval/loss": 3, "train/runtime": 1},
        {"max_steps": -1, "num_train_epochs": 2},
    ),
    "keras": ({"train/loss": 4, "train/mae": 4, "eval/loss": 4, "eval/mae": 4}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("framework", TRAININGS)
def test_live_with_the_callback_of_a_framework_writes_what_dvclive_writes(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    project, runs = bake(), tmp_path / "runs"
    environment = {**os.environ, "PYTHONPATH": str(project.path), "HF_HUB_OFFLINE": "1"}
    command = (sys.executable, str(SCRIPT), framework, str(runs))
    done = subprocess.run(command, cwd=project.path, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr

    stock, ours = curves(runs / "stock"), curves(runs / "ours")
    rows, logged = TRAININGS[framework]
    assert {name: len(stock[name]) - 1 for name in rows} == rows
    assert ours == stock
    assert (runs / "ours" / "metrics.json").read_bytes() == (runs / "stock" / "metrics.json").read_bytes()
    params = read_params(runs / "ours")
    assert {name: params[name] for name in logged} == logged
    assert params == read_params(runs / "stock")


def curves(run: Path) -> dict[str, list[list[str]]]:
    """Return header and rows of each curve as text, without the timestamps that only the project's Live writes."""
    folder, by_name = run / "plots" / "metrics", {}
    for path in folder.rglob("*.tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t"))
        places = [place for place, column in enumerate(rows[0]) if column != "timestamp"]
        by_name[path.relative_to(folder).with_suffix("").as_posix()] = [
            [row[place] for place in places] for row in rows
        ]
    return by_name


def read_params(run: Path) -> dict[str, object]:
    """Return the parameters of a run, none when there is no file of them."""
    path = run / "params.yaml"
    params: dict[str, object] = YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return params

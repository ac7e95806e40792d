"""Parameters for tests of the training: those of `params.yaml`, whatever you add there, with a small recipe."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
OWN: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
SMALL = {
    **OWN,
    "arch": "small_cnn",
    "arch_options": {},
    "weights": None,
    "init_from": None,
    "image_px": 8,
    "epochs": 4,
    "batch_size": 64,
    "max_lr": 0.003,
    "weight_decay": 0.0001,
    "seed": 0,
    "threads": 1,
    "processes": 1,
}

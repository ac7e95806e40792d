"""What `mlops` calls: a content is a flower as JSON, a model the mean of each label, its weights JSON too."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TRAVELS = ("__init__.py", "interface.py")
WEIGHTS = "means.json"
REQUIREMENTS = ("mlflow",)
Model = dict[str, dict[str, float]]


def load(directory: Path) -> Model:
    """Return the mean of each measurement, by label."""
    model: Model = json.loads((directory / WEIGHTS).read_text(encoding="utf-8"))
    return model


def predict(model: Model, contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the label whose means are nearest to each flower."""
    flowers = [json.loads(content) for content in contents]
    return [{"label": min(model, key=lambda label: _distance(model[label], flower))} for flower in flowers]


def _distance(means: dict[str, float], flower: dict[str, float]) -> float:
    return sum((flower[name] - mean) ** 2 for name, mean in means.items())


def example(model: Model) -> bytes:
    """Return a flower of nothing but zeros."""
    return json.dumps(dict.fromkeys(next(iter(model.values())), 0.0)).encode()


def compare(actual: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return the share of right labels."""
    return {"acc": sum(map(str.__eq__, actual, predicted)) / len(actual)}


def decode(content: bytes) -> str:
    """Return the extension of a flower's file."""
    json.loads(content)
    return "json"

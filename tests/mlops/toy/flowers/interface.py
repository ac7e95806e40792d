"""What `mlops` calls: a content is a flower as JSON, a model the mean of each label, its weights JSON too."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TRAVELS = ("__init__.py", "interface.py")
WEIGHTS = "means.json"
REQUIREMENTS = ("mlflow",)
Model = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Metric:
    """A figure by which models are compared."""

    name: str
    function: "Callable[[np.ndarray, np.ndarray], float]"
    higher_is_better: bool = True
    needs_probabilities: bool = False
    labels: int = 2


METRICS = (Metric("acc", lambda actual, probabilities: float((probabilities.argmax(1) == actual).mean())),)


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


def decode(content: bytes) -> str:
    """Return the extension of a flower's file."""
    json.loads(content)
    return "json"

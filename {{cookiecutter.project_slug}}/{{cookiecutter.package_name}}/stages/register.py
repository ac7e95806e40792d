"""Stage `register`: register the trained model in MLflow, when it is good enough, allowed and safely stored.

    dvc repro register

Only what the model itself is and what `params.yaml` asks decides, so the stage can be replayed from DVC's cache.
Comparing with the model in use, and putting it in use, are acts of a person: `python -m mlops registry promote`.
"""

import json
from pathlib import Path

from mlops import ProjectError, StrictModel, params, register
from pydantic import Field

MODEL_DIR = Path("models/model")
METRICS_PATH = Path("reports/metrics.json")


class RegisterParams(StrictModel):
    """The gate: for metrics of `reports/metrics.json`, the lowest and the highest value that is good enough."""

    at_least: dict[str, float] = Field(default_factory=dict)
    at_most: dict[str, float] = Field(default_factory=dict)


def main() -> None:
    """Run the stage."""
    check_gate(json.loads(METRICS_PATH.read_text(encoding="utf-8")), params("register", RegisterParams))
    register(MODEL_DIR)


def check_gate(metrics: dict[str, float], gate: RegisterParams) -> None:
    """Compare the metrics of the saved weights with the thresholds.

    Raises:
        ProjectError: A threshold is missed, or names a metric that does not exist.
    """
    unknown = (gate.at_least.keys() | gate.at_most.keys()) - metrics.keys()
    if unknown:
        raise ProjectError(
            f"the gate asks for {', '.join(sorted(unknown))}; {METRICS_PATH} has {', '.join(sorted(metrics))}",
            "correct params.yaml:register",
        )
    low, high = gate.at_least.items(), gate.at_most.items()
    missed = [
        f"{name} is {metrics[name]}, at least {limit} is asked" for name, limit in low if not metrics[name] >= limit
    ]
    missed += [
        f"{name} is {metrics[name]}, at most {limit} is asked" for name, limit in high if not metrics[name] <= limit
    ]
    if missed:
        raise ProjectError(
            f"the model is not good enough to register: {'; '.join(missed)}",
            "improve it, or change params.yaml:register",
        )

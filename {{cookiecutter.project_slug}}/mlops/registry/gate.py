"""The gate: what a model must reach before it is registered."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from ..config import StrictModel
from ..contract import known_metrics
from ..errors import ProjectError
from ..files import read_json
from ..records.manifest import count_labels
from ..records.source import SPLITS

ACCURACIES = {"test_acc": "test", "val_acc": "val"}
"""The metrics that `majority` is defined for, and the splits that they are measured on."""


class Gate(StrictModel):
    """`params.yaml:register`: the lowest and the highest value of metrics with which a model is registered.

    `majority` in place of a lowest value is what `majority_bound` returns, and must be exceeded.
    """

    at_least: dict[str, float | Literal["majority"]] = Field(default_factory=dict)
    at_most: dict[str, float] = Field(default_factory=dict)

    @field_validator("at_least", "at_most")
    @classmethod
    def _bounds_what_is_worse(cls, limits: dict[str, float | str], info: ValidationInfo) -> dict[str, float | str]:
        """Refuse a limit in the wrong direction; of figures that are not in `METRICS`, nobody knows which is worse."""
        for name in limits:
            split, _, metric = name.partition("_")
            if split not in SPLITS or metric not in known_metrics():
                continue
            more, bound = ("more", "at_least") if known_metrics()[metric].higher_is_better else ("less", "at_most")
            if bound != info.field_name:
                raise ValueError(f"of {name}, {more} is better: it has its limit in register.{bound}")
        return limits

    @field_validator("at_least")
    @classmethod
    def _majority_is_of_an_accuracy(cls, limits: dict[str, float | str]) -> dict[str, float | str]:
        if names := sorted({name for name, limit in limits.items() if limit == "majority"} - ACCURACIES.keys()):
            raise ValueError(f"majority is for {' and '.join(ACCURACIES)}; give {', '.join(names)} a number")
        return limits


def check_gate(gate: Gate, metrics: Path, manifest: Path) -> None:
    """Compare the metrics of a model with the gate, and print by how much each limit is passed.

    Args:
        gate: The limits.
        metrics: The JSON file that has the metrics.
        manifest: The data manifest, which has the labels that `majority` counts.

    Raises:
        ProjectError: A limit is missed, or is for a metric that does not exist.
    """
    values: dict[str, float] = read_json(metrics)
    if unknown := (gate.at_least.keys() | gate.at_most.keys()) - values.keys():
        raise ProjectError(
            f"the gate asks for {', '.join(sorted(unknown))}; {metrics.as_posix()} has {', '.join(sorted(values))}",
            "correct params.yaml:register",
        )
    passed: list[str] = []
    missed: list[str] = []
    for name, limit in gate.at_least.items():
        if limit == "majority":
            lowest, origin = majority_bound(manifest, ACCURACIES[name])
            good = values[name] > lowest
        else:
            lowest, origin = limit, ""
            good = values[name] >= lowest
        (passed if good else missed).append(_distance(name, values[name], lowest) + origin)
    for name, highest in gate.at_most.items():
        (passed if values[name] <= highest else missed).append(_distance(name, values[name], highest))
    if missed:
        raise ProjectError(
            f"the model is not good enough to register: {'; '.join(missed)}",
            "improve it, or change params.yaml:register",
        )
    for line in passed:
        print(line)


def majority_bound(manifest: Path, split: str) -> tuple[float, str]:
    """Return the accuracy that always giving the most frequent label of `train` could reach on a split, by chance.

    Returns:
        The upper bound of the two-sided 95 % Wilson interval of that answer's accuracy, and a text of its origin.
    """
    import pyarrow.parquet as pq
    from scipy.stats import binomtest  # slow to import

    counts = count_labels(pq.read_table(manifest, columns=["split", "label"]))
    labels = sorted({label for _, label in counts})
    # Of labels that train has equally often, the one that does best.
    label = max(labels, key=lambda name: (counts["train", name], counts[split, name]))
    right, records = counts[split, label], sum(counts[split, name] for name in labels)
    bound = binomtest(right, records).proportion_ci(method="wilson").high
    share = f"always {label!r} is right for {100 * right / records:.1f} % of {records} records"
    return float(bound), f" (majority: {share}; upper 95 % bound)"


def _distance(name: str, value: float, limit: float) -> str:
    return f"{name} {value:.4f} is {abs(value - limit):.4f} {'below' if value < limit else 'above'} {limit:.4f}"

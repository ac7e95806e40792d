"""Register the trained model in MLflow, when it is good enough, allowed and safely stored.

    dvc repro register

Only what the model itself is and what `params.yaml` asks decides, so the stage can be replayed from DVC's cache.
Comparing with the model in use, and putting it in use, are acts of a person.
"""

from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field

from ..data import consent
from ..errors import ProjectError
from ..files import read_json, write_json
from ..model import pyfunc
from ..registry import versions
from ..settings import Section, load_params
from ..tracking import storage
from ..tracking.record import read_facts

MODEL_DIR = Path("models/model")
METRICS_PATH = Path("reports/metrics.json")
MANIFEST_PATH = Path("data/manifest.parquet")


class RegisterParams(Section):
    """The gate.

    Args:
        at_least: For each metric of `reports/metrics.json`, the lowest value that is good enough.
        at_most: The same, the highest value.
    """

    at_least: dict[str, float] = Field(default_factory=dict)
    at_most: dict[str, float] = Field(default_factory=dict)


def main() -> None:
    """Run the stage."""
    params = load_params("register", RegisterParams)
    check_gate(read_json(METRICS_PATH), params)
    check_consent()
    storage.push(["train"])
    write_json(versions.REGISTERED, versions.register(MODEL_DIR, pyfunc.log))


def check_gate(metrics: dict[str, float], params: RegisterParams) -> None:
    """Compare the metrics of the saved weights with the thresholds.

    Raises:
        ProjectError: A threshold is missed, or names a metric that there is not.
    """
    unknown = (params.at_least.keys() | params.at_most.keys()) - metrics.keys()
    if unknown:
        raise ProjectError(
            f"the gate asks for {', '.join(sorted(unknown))}; {METRICS_PATH} has {', '.join(sorted(metrics))}",
            "correct params.yaml:register",
        )
    missed = [
        f"{name} is {metrics[name]}, at least {low} is asked"
        for name, low in params.at_least.items()
        if not metrics[name] >= low
    ]
    missed += [
        f"{name} is {metrics[name]}, at most {high} is asked"
        for name, high in params.at_most.items()
        if not metrics[name] <= high
    ]
    if missed:
        raise ProjectError(
            f"the model is not good enough to register: {'; '.join(missed)}",
            "improve it, or change params.yaml:register",
        )


def check_consent() -> None:
    """Check every subject of the dataset against the registry as it is now.

    Raises:
        ProjectError: A subject of the dataset has no consent.
    """
    if read_facts()["consent_sha256"] == consent.NOT_REQUIRED:
        return
    registered = consent.read(consent.PATH)
    subjects = set(pq.read_table(MANIFEST_PATH, columns=["subject_id"])["subject_id"].to_pylist())
    denied = sorted(subject for subject in subjects if not registered.allows(subject))
    if denied:
        doubts = registered.doubts(denied)
        raise ProjectError(
            f"the dataset holds {len(denied)} subject(s) without consent: {', '.join(denied[:5])}",
            f"dvc repro: prepare leaves them out{f'; {doubts}' if doubts else ''}",
        )

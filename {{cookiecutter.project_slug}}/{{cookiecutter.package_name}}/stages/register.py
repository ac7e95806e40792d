"""Stage `register`: register the trained model in MLflow, when it is good enough, allowed and safely stored.

    dvc repro register

Only what the model itself is and what `params.yaml` asks decides, so the stage can be replayed from DVC's cache.
Comparing with the model in use, and putting it in use, are acts of a person: `python -m mlops registry promote`.
"""

from pathlib import Path

from mlops import Gate, check_gate, params, register


def main() -> None:
    """Run the stage."""
    check_gate(params("register", Gate), Path("reports/metrics.json"), Path("data/manifest.parquet"))
    register(Path("models/model"))

"""A registered version, measured again on the data of its commit, says what it said when it was trained, to the bit."""

import json

import pytest

from ..conftest import BakedProject

VERSION = "models:/digit-classifier/1"


@pytest.mark.slow
def test_evaluation_of_a_version_has_the_figures_and_the_predictions_of_its_training(project: BakedProject) -> None:
    reports = project.path / "reports"
    (project.path / "data/consent.csv").write_text(
        "subject_id,consent_status,effective_at\nnobody,active,\n", encoding="utf-8"
    )
    words = ("python", "-m", "mlops", "evaluate", VERSION, "--on", VERSION)
    refused = project.run(*words, check=False)
    assert "none is left: 390 have no consent today" in refused.stderr
    project.run("git", "checkout", "--quiet", "data/consent.csv")
    row = json.loads(project.run(*words, "--output", "exports/again.parquet", "--json").stdout)
    recorded = json.loads((reports / "metrics.json").read_text(encoding="utf-8"))
    assert {f"test_{name}": round(value, 4) for name, value in row["metrics"].items()} == {
        name: value for name, value in recorded.items() if name.startswith("test_")
    }
    again = (project.path / "exports/again.parquet").read_bytes()
    assert again == (reports / "predictions.parquet").read_bytes()

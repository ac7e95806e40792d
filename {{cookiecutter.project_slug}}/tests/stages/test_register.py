"""Only a model that is good enough, and whose subjects consent, is registered."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops.errors import ProjectError
from {{ cookiecutter.package_name }}.stages.register import RegisterParams, check_consent, check_gate

METRICS = {"test_acc": 0.95, "test_loss": 0.2}


@pytest.mark.parametrize(
    ("at_least", "at_most"), [({"test_acc": 0.95}, {"test_loss": 0.2}), ({}, {})], ids=["at-the-limit", "no-gate"]
)
def test_gate_good_enough_passes(at_least: dict[str, float], at_most: dict[str, float]) -> None:
    check_gate(METRICS, RegisterParams(at_least=at_least, at_most=at_most))


@pytest.mark.parametrize(
    ("metrics", "params", "said"),
    [
        (METRICS, RegisterParams(at_least={"test_acc": 0.96}), "test_acc is 0.95, at least 0.96 is asked"),
        (METRICS, RegisterParams(at_most={"test_loss": 0.1}), "test_loss is 0.2, at most 0.1 is asked"),
        (METRICS, RegisterParams(at_least={"f1": 0.5}), "the gate asks for f1"),
        ({"test_acc": float("nan")}, RegisterParams(at_least={"test_acc": 0.0}), "test_acc is nan"),
    ],
    ids=["too-low", "too-high", "unknown", "nan"],
)
def test_gate_otherwise_refuses(metrics: dict[str, float], params: RegisterParams, said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        check_gate(metrics, params)


def test_consent_withdrawn_since_the_dataset_was_made_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    pq.write_table(pa.table({"subject_id": ["00123", "NA"]}), "data/manifest.parquet")
    registry = Path("data/consent.csv")
    lines = (
        "subject_id,consent_status,effective_at\n00123,active,2026-01-01T00:00:00Z\nNA,active,2026-01-01T00:00:00Z\n"
    )
    registry.write_text(lines, encoding="utf-8")
    Path("reports/train").mkdir(parents=True)
    Path("reports/train/lineage.json").write_text('{"consent_sha256": "x"}', encoding="utf-8")
    check_consent()
    registry.write_text(lines + "00123,revoked,2026-02-01T00:00:00Z\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"1 subject\(s\) without consent: 00123"):
        check_consent()
    merged = "NA,revoked,2026-02-01T00:00:00Z\nNA,revoked,2026-01-15T00:00:00Z\nNA,active,2026-03-01T00:00:00Z\n"
    registry.write_text(lines + merged, encoding="utf-8")
    with pytest.raises(ProjectError, match=r"without consent: NA(?s:.*)lost in a merge: NA \(line 4\).*consent add"):
        check_consent()


def test_consent_where_none_was_asked_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports/train").mkdir(parents=True)
    Path("reports/train/lineage.json").write_text('{"consent_sha256": "not_required"}', encoding="utf-8")
    check_consent()


def test_consent_registry_gone_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports/train").mkdir(parents=True)
    Path("reports/train/lineage.json").write_text('{"consent_sha256": "x"}', encoding="utf-8")
    with pytest.raises(ProjectError, match="consent"):
        check_consent()

"""A project of which only the registry matters."""

from pathlib import Path

import pytest

LINES = (
    b"subject_id,consent_status,effective_at\n"
    b"form-00,active,2025-01-01T00:00:00Z\n"
    b"form-01,active,2025-01-01T00:00:00Z\n"
    b"form-02,active,2025-01-01T00:00:00Z\n"
    b"form-02,revoked,2025-06-01T00:00:00Z\n"
)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of three persons, in the working directory; nothing else keeps it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("params.yaml").write_text("data: {source: digits, consent: required}\n", encoding="utf-8")
    path = Path("data/consent.csv")
    path.parent.mkdir()
    path.write_bytes(LINES)
    return path

"""The consent registry: in every doubt the answer is no."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlops.errors import ProjectError
from mlops.records import consent

HEADER = "subject_id,consent_status,effective_at\n"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS = ("P1", "p1", "P2", "P", "1")

ANSWERS = {
    "plain": ("P1,active,2025-01-01T00:00:00Z\nP2,revoked,2025-06-01T00:00:00Z\n", {"P1"}),
    "revocation appended": ("P1,active,2025-01-01T00:00:00Z\nP1,revoked,2025-06-01T00:00:00Z\n", set()),
    "order of lines does not count": ("P1,revoked,2025-06-01T00:00:00Z\nP1,active,2025-01-01T00:00:00Z\n", set()),
    "consent given again": ("P1,revoked,2025-01-01T00:00:00Z\nP1,active,2025-06-01T00:00:00Z\n", {"P1"}),
    "contradiction without times": ("P1,active,\nP1,revoked,\n", set()),
    "contradiction with one time": ("P1,active,2025-06-01T00:00:00Z\nP1,revoked,\n", set()),
    "same instant in two zones": ("P1,active,2025-06-01T00:00:00Z\nP1,revoked,2025-06-01T02:00:00+02:00\n", set()),
    "text order is not time order": (
        "P1,active,2025-06-01T01:00:00+05:00\nP1,revoked,2025-05-31T23:00:00Z\n",
        set(),
    ),
    "ids differ in case, one revoked": ("P1,active,2025-01-01T00:00:00Z\np1,revoked,2025-06-01T00:00:00Z\n", set()),
    "ids differ in case, revoked before": ("P1,active,2025-06-01T00:00:00Z\np1,revoked,2025-01-01T00:00:00Z\n", set()),
    "ids differ in case, all active": ("P1,active,\np1,active,\n", {"P1", "p1"}),
    "status in other case and spaced": ("P1, Active ,2025-01-01T00:00:00Z\n", {"P1"}),
    "space after id": ("P1 ,revoked,2025-06-01T00:00:00Z\nP1,active,2025-01-01T00:00:00Z\n", set()),
    "no-break space": ("P1\u00a0,revoked,2025-06-01T00:00:00Z\nP1,active,2025-01-01T00:00:00Z\n", set()),
    "zero width space": ("P1\u200b,revoked,2025-06-01T00:00:00Z\nP1,active,2025-01-01T00:00:00Z\n", set()),
    "misspelt status": ("P1,actve,2025-01-01T00:00:00Z\n", set()),
    "misspelt revocation": ("P1,active,2025-01-01T00:00:00Z\nP1,revokd,2025-06-01T00:00:00Z\n", set()),
    "id that looks like a number": ("1,active,\n", {"1"}),
    "ids that look alike, one revoked": ("P1,active,\n\u04201,revoked,\n", set()),
    "1 for l, one revoked": ("P1,active,2025-06-01T00:00:00Z\nPl,revoked,2025-01-01T00:00:00Z\n", set()),
    "number with zeros before it, revoked": ("1,active,\n001,revoked,\n", set()),
    "invisible character that is no format character": (
        "P\u034f1,revoked,2025-06-01T00:00:00Z\nP1,active,2025-01-01T00:00:00Z\n",
        set(),
    ),
    "withdrawal of a merged branch, at the end": (
        "P1,revoked,2025-01-10T00:00:00Z\nP1,active,2025-03-10T00:00:00Z\nP1,revoked,2025-02-10T00:00:00Z\n",
        set(),
    ),
    "withdrawal of a merged branch, at the beginning": (
        "P1,revoked,2025-02-10T00:00:00Z\nP1,revoked,2025-01-10T00:00:00Z\nP1,active,2025-03-10T00:00:00Z\n",
        set(),
    ),
    "and said once more": (
        "P1,revoked,2025-02-10T00:00:00Z\nP1,revoked,2025-01-10T00:00:00Z\nP1,active,2025-03-10T00:00:00Z\n"
        "P1,active,2025-04-10T00:00:00Z\n",
        {"P1"},
    ),
    "revocation dated in the future": ("P1,active,2025-01-01T00:00:00Z\nP1,revoked,2027-06-01T00:00:00Z\n", set()),
}

MALFORMED = {
    "cell missing": (HEADER + "P1,active\n", "line 2 has 2 cells"),
    "comma not quoted": (HEADER + "P,1,active,2025-01-01T00:00:00Z\n", "line 2 has 4 cells"),
    "time without zone": (HEADER + "P1,active,2025-01-01T00:00:00\n", "line 2: effective_at .* lacks its time zone"),
    "no time": (HEADER + "P1,active,yesterday\n", "line 2: effective_at 'yesterday' is not a time"),
    "other header": ("pid,status\nP1,active\n", "has the columns pid, status"),
    "nobody": (HEADER + " ,active,\n", "line 2 names no subject\nFix: fill in its subject_id, or take the line out"),
    "not assigned": (HEADER + "P\u0378,active,\n", r"line 2: subject_id 'P.u0378' holds U\+0378, which is no char"),
    "grant dated in the future": (
        HEADER + "P1,active,2027-06-01T00:00:00Z\n",
        "line 2: a consent from 2027(?s:.*)append it again when",
    ),
}


def registry(folder: Path, text: str) -> Path:
    path = folder / "consent.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(("lines", "allowed"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_read_allows_only_undoubted_consent(tmp_path: Path, start: str, lines: str, allowed: set[str]) -> None:
    content = consent.read(registry(tmp_path, start + HEADER + lines), NOW)
    assert {person for person in SUBJECTS if content.allows(person)} == allowed


@pytest.mark.parametrize(("text", "problem"), MALFORMED.values(), ids=MALFORMED)
def test_read_malformed_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ProjectError, match=problem):
        consent.read(registry(tmp_path, text), NOW)


def test_read_missing_file_names_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"params.yaml:data.consent: not_required"):
        consent.read(tmp_path / "consent.csv", NOW)


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_read_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "consent.csv"
    if kind != "folder" and os.name == "nt":
        pytest.skip("Windows has no such files")
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        os.mkfifo(path)
    with pytest.raises(ProjectError, match=r"consent.csv can't be read: .*\nFix: put a file there in its place"):
        consent.read(path, NOW)


def test_read_gives_counts_and_digest(tmp_path: Path) -> None:
    path = registry(tmp_path, HEADER + "P1,active,\nP2,active,\nP3,revoked,\nP4,actve,\n")
    content = consent.read(path, NOW)
    assert content.counts == {"active": 2, "revoked": 1, "unknown": 1}
    assert content.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_check_of_a_dataset_refuses_who_withdrew_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    manifest = Path("data/manifest.parquet")
    pq.write_table(pa.table({"subject_id": ["00123", "NA"]}), manifest)
    registry = Path("data/consent.csv")
    lines = (
        "subject_id,consent_status,effective_at\n00123,active,2026-01-01T00:00:00Z\nNA,active,2026-01-01T00:00:00Z\n"
    )
    registry.write_text(lines, encoding="utf-8")
    consent.check_subjects(manifest)
    registry.write_text(lines + "00123,revoked,2026-02-01T00:00:00Z\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"1 subject\(s\) without consent: 00123\nFix: dvc repro: prepare leaves"):
        consent.check_subjects(manifest)
    merged = "NA,revoked,2026-02-01T00:00:00Z\nNA,revoked,2026-01-15T00:00:00Z\nNA,active,2026-03-01T00:00:00Z\n"
    registry.write_text(lines + merged, encoding="utf-8")
    with pytest.raises(ProjectError, match=r"without consent: NA(?s:.*)lost in a merge: NA \(line 4\).*consent add"):
        consent.check_subjects(manifest)
    registry.unlink()
    with pytest.raises(ProjectError, match="consent"):
        consent.check_subjects(manifest)

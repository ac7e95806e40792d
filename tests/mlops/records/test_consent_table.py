"""A large registry is read by Arrow, and gives what the line by line reader gives: entries, or the same error."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.records import consent, consent_table
from mlops.records.ids import PLAIN_ID, match_key, match_keys

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "subject_id,consent_status,effective_at"
IDS = ["P1", "p1", "Pl", "|1", "007", "7", "00", "0", "o7x", "m`1", "rn'l", "a%", "a b", "a  b", " P2", "P\u200b1"]
IDS += ["ß", ""]
STATUSES = ["active", "revoked", "Active ", "actve", ""]
TIMES = [*(f"2025-0{month}-01T00:00:00Z" for month in range(1, 6)), "2025-01-01T01:00:00.5+01:00", ""]
TIMES += [" 2025-03-01T00:00:00Z\t", "2025-02-30T00:00:00Z", "2025-01-01", "2999-01-01T00:00:00Z"]
PLAIN = st.tuples(st.sampled_from(IDS[:4]), st.sampled_from(STATUSES[:2]), st.sampled_from(TIMES[:7])).map(",".join)
ODD = st.one_of(
    st.tuples(st.sampled_from(IDS), st.sampled_from(STATUSES), st.sampled_from(TIMES)).map(",".join),
    st.tuples(st.text(max_size=4), st.sampled_from(STATUSES[:2]), st.sampled_from(TIMES)).map(",".join),
    st.sampled_from([HEADER, f"\ufeff{HEADER}", "=======", "x" * 200_000 + ",active,", "x" * 1001 + ",active,"]),
    st.sampled_from(
        [
            "",
            "  ",
            ",,",
            '"P,1",active,',
            '"P\n1",active,',
            '"open',
            'a"b,active,',
            "P1,active",
            "a\0,active,",
            ">>>>>>> a, b, c",
            "<<<<<<< HEAD",
        ]
    ),
)
LINES = st.lists(st.one_of(PLAIN, PLAIN, PLAIN, ODD), max_size=12)
HEADERS = st.sampled_from(
    [HEADER, HEADER, f"\ufeff{HEADER}", "note, Effective_At,subject_id,consent_status", f"\n{HEADER}"]
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "consent.csv"


def answers(path: Path) -> list[object]:
    """Return what all readers say of a registry, or why they refuse it."""
    readers: tuple[Callable[[], object], ...] = (
        lambda: consent.read(path, NOW),
        lambda: list(consent.scan(path)),
        lambda: consent.persons(path, ["p1", "7"]),
    )
    results = []
    for read in readers:
        try:
            results.append(read())
        except ProjectError as error:
            results.append(str(error))
    return results


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    HEADERS,
    LINES,
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
    st.sampled_from(["", "end"]),
    st.integers(1, 200),
    st.sampled_from([b"\0", b"\r", b'"', b"\n", "\u00e9".encode(), b","]),
    st.one_of(st.none(), st.integers(0, 300)),
)
def test_large_registry_is_read_as_a_small(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    lines: list[str],
    end: str,
    last: str,
    block_bytes: int,
    damage: bytes,
    place: int | None,
) -> None:
    content = end.join([header, *lines, *([""] if last else [])]).encode("utf-8", "surrogatepass")
    if place is not None:
        content = content[:place] + damage + content[place:]
    path.write_bytes(content)
    monkeypatch.setattr(consent, "LARGE_BYTES", 1 << 20)
    expected = answers(path)
    monkeypatch.setattr(consent, "LARGE_BYTES", 0)
    monkeypatch.setattr(consent_table, "BLOCK_BYTES", block_bytes)
    results = answers(path)
    assert results == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(IDS), st.text(st.characters(max_codepoint=127), max_size=8)), min_size=1))
def test_match_keys_of_plain_ids_are_their_match_key(ids: list[str]) -> None:
    texts = pa.array(ids, pa.string())
    plain = texts.filter(pc.match_substring_regex(texts, PLAIN_ID))
    assert match_keys(plain).to_pylist() == [match_key(text) for text in plain.to_pylist()]

"""Whatever bytes the registry is: an error, or answers that the rules, told once more in the plainest way, give too."""

import csv
import io
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from {{ cookiecutter.package_name }}.data import consent
from {{ cookiecutter.package_name }}.errors import ProjectError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "subject_id,consent_status,effective_at"
IDS = st.sampled_from(["P1", "p1", "P1 ", "P\u200b1", "\uff301", "P2", "ß", "SS", '"P1"', "", "P,1", "P\r1"])
STATUSES = st.sampled_from(["active", "ACTIVE", " revoked", "revoked", "actve", ""])
TIMES = st.sampled_from(
    ["", "2025-01-01T00:00:00Z", "2025-01-01T01:00:00+01:00", "2025-06-01T00:00:00Z", "2999-01-01T00:00:00Z", "2025"]
)
LINES = st.lists(st.tuples(IDS, STATUSES, TIMES).map(",".join), max_size=6)
FILES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])).map(lambda it: it[1].join([HEADER, *it[0]]).encode()),
    st.tuples(LINES, st.binary(max_size=6), st.integers(0, 300)).map(
        lambda it: (raw := "\n".join([HEADER, *it[0], ""]).encode())[: it[2]] + it[1] + raw[it[2] :]
    ),
)


def plainly(raw: bytes) -> set[str] | None:
    """Say who is active; None when the file must be refused. Slow and simple, and shares no code with the reader."""
    try:
        table = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
        header, *rows = [cells for cells in table if any(cell.strip() for cell in cells)]
        names = [cell.strip().lower() for cell in header]
        assert len(set(names)) == len(names)
        assert rows
        assert all(len(cells) == len(header) for cells in rows)
        assert not any("\0" in cell for cells in table for cell in cells)
        persons = [tuple(map(plain, (row[names.index(name)] for name in HEADER.split(",")))) for row in rows]
        lines = [(who, status.lower(), moment(when) if when else None) for who, status, when in persons]
        assert all(who for who, _, _ in lines)
        assert not any(status == "active" and when and when > NOW for _, status, when in lines)
    except (UnicodeDecodeError, csv.Error, AssertionError, ValueError, OverflowError):
        return None
    return {who for who, _, _ in lines if is_active([line for line in lines if line[0].casefold() == who.casefold()])}


def is_active(lines: list[tuple[str, str, datetime | None]]) -> bool:
    if all(status == "active" for _, status, _ in lines):
        return True
    if len({who for who, _, _ in lines}) > 1 or any(when is None for _, _, when in lines):
        return False
    last = max(when for _, _, when in lines if when)
    return all(status == "active" for _, status, when in lines if when == last)


def moment(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    assert time.tzinfo
    return time.astimezone(UTC)


def plain(text: str) -> str:
    def visible(text: str) -> Iterator[str]:
        return (c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp"))

    return unicodedata.normalize("NFKC", "".join(visible(unicodedata.normalize("NFKC", text)))).strip()


@settings(max_examples=1500, deadline=timedelta(seconds=2), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=FILES)
def test_read_any_bytes_gives_an_error_or_what_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = Path(tmp_path_factory.getbasetemp(), "fuzzed.csv")
    path.write_bytes(raw)
    expected = plainly(raw)
    if expected is None:
        with pytest.raises(ProjectError):
            consent.read(path, NOW)
    else:
        assert set(consent.read(path, NOW).active) == expected

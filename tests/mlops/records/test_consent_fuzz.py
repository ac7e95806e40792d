"""Whatever bytes the registry is: an error, or the answers that a second, plain implementation of the rules gives."""

import csv
import io
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icu
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.records import consent

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "subject_id,consent_status,effective_at"
ALIKE = ["P1", "p1", "P1 ", "P\u200b1", "P\u034f1", "\uff301", "Pl", "\u04201", '"P1"', "P\r1"]
IDS = st.sampled_from([*ALIKE, "P2", "ß", "SS", "", "P,1", "7", "007", "P\u0378", "\u2800"])
STATUSES = st.sampled_from(["active", "ACTIVE", " revoked", "revoked", "actve", ""])
MONTHS = [f"2025-0{month}-01T00:00:00Z" for month in range(1, 6)]
TIMES = st.sampled_from([*MONTHS, "2025-01-01T01:00:00+01:00", "", "2999-01-01T00:00:00Z", "2025"])
OF_ONE = st.lists(st.tuples(st.sampled_from(["active", "revoked"]), st.sampled_from(MONTHS)), min_size=1, max_size=7)
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
        names = [plain(cell).lower() for cell in header]
        assert not any(name and names.count(name) > 1 for name in names)
        assert rows
        assert not raw.startswith((b"PK\x03\x04", b"\xff\xfe", b"\xfe\xff"))
        assert not (any(raw[:2]) and 0 in raw[:2])
        assert not any(cells[0].startswith(("<<<<<<< ", "||||||| ", ">>>>>>> ")) for cells in table if cells)
        assert all(len(cells) == len(header) for cells in rows)
        assert not any("\0" in cell for cells in table for cell in cells)
        persons = [tuple(map(plain, (row[names.index(name)] for name in HEADER.split(",")))) for row in rows]
        used = [[row[names.index(name)] for name in HEADER.split(",")] for row in rows]
        assert not any({"\r", "\n"} & set("".join(row)) for row in used)
        lines = [(who, status.lower(), moment(when) if when else None) for who, status, when in persons]
        assert all(who and all(icu.Char.charType(c) for c in who) for who, _, _ in lines)
        assert not any(status == "active" and when and when > NOW for _, status, when in lines)
    except (UnicodeDecodeError, csv.Error, AssertionError, ValueError, OverflowError):
        return None
    return {who for who, _, _ in lines if is_active([line for line in lines if looks(line[0]) == looks(who)])}


def is_active(lines: list[tuple[str, str, datetime | None]]) -> bool:
    if all(status == "active" for _, status, _ in lines):
        return True
    if len({who for who, _, _ in lines}) > 1 or any(when is None for _, _, when in lines):
        return False
    dated = [(status == "active", when) for _, status, when in lines if when]
    return is_granted(dated) and not any(is_lost(dated, place) for place in range(len(dated)))


def is_granted(dated: list[tuple[bool, datetime]]) -> bool:
    last = max(when for _, when in dated)
    return all(grant for grant, when in dated if when == last)


def is_lost(dated: list[tuple[bool, datetime]], place: int) -> bool:
    """Say whether a line is a withdrawal that somebody did not see who granted later, and that nobody came back to."""
    (grant, when), before, after = dated[place], dated[:place], dated[place + 1 :]
    goes_back = after[0][1] < when if after else any(time > when for _, time in before)
    if grant or not goes_back:
        return False
    for number in range(place + 1, len(dated)):
        seen, (again, time) = dated[:number], dated[number]
        latest = max(range(number), key=lambda n: (dated[n][1], n))
        if all(time >= other for _, other in seen) and (not again or seen[latest][0]):
            return False
    return True


def looks(who: str) -> str:
    """Return what the ids above look like; of others, ASCII only."""
    text = who.replace("\u0420", "P").casefold()
    for character, look in {"0": "o", "1": "l", "|": "l", "m": "rn", "`": "'", '"': "''", "%": "º/₀"}.items():
        text = text.replace(character, look)
    text = " ".join(text.split())
    return text if set(text) - set("ol23456789") else text.lstrip("o") or "o"


def moment(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    assert time.tzinfo
    return time.astimezone(UTC)


def plain(text: str) -> str:
    def visible(text: str) -> Iterator[str]:
        ignorable = icu.UProperty.DEFAULT_IGNORABLE_CODE_POINT
        printed = (c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp") and c != "\u2800")
        return (c for c in printed if not icu.Char.hasBinaryProperty(ord(c), ignorable))

    return unicodedata.normalize("NFKC", "".join(visible(unicodedata.normalize("NFKC", text)))).strip()


@settings(deadline=None)
@given(OF_ONE)
def test_read_lines_of_one_person_answers_as_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]]
) -> None:
    path = Path(tmp_path_factory.getbasetemp(), "one.csv")
    path.write_text("\n".join([HEADER, *(f"P1,{status},{when}" for status, when in lines)]))
    assert set(consent.read(path, NOW).active) == plainly(path.read_bytes())


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

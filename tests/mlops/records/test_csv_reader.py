"""CSV files as spreadsheets, merges and crashes leave them: refused with the line and a fix, and the fix helps."""

import codecs
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.records import consent
from mlops.records.listing import list_files

NOW = datetime(2027, 1, 1, tzinfo=UTC)
HEADER = "subject_id,consent_status,effective_at\n"
P1, P2 = "P1,active,2026-01-01T00:00:00Z\n", "P2,revoked,2026-01-01T00:00:00Z\n"
WHOLE = HEADER + P1 + P2
LONG = "x" * 200_000
SEMICOLONS, TABS = WHOLE.replace(",", ";"), WHOLE.replace(",", "\t")
MARKERS = ("<<<<<<< HEAD\n", "||||||| 2f1c\n", "=======\n", ">>>>>>> a, b, c\n")
AS_CSV = "as CSV in UTF-8, with commas between cells"
COMMAS = "put commas between its cells, and double quotes around a cell that holds a comma"

BAD: dict[str, tuple[str | bytes, str, str]] = {
    "date alone": (
        WHOLE + "P3,active,2026-03-01\n",
        "line 4: effective_at '2026-03-01' lacks the time of day, and its zone",
        "in UTC, write 2026-03-01T00:00:00Z; else",
    ),
    "no zone": (
        WHOLE + "P3,active,2026-03-01 10:00\n",
        "line 4: effective_at '2026-03-01 10:00' lacks its time zone",
        "in UTC, write 2026-03-01T10:00:00Z; else an offset in place of Z, such as +02:00",
    ),
    "day of a spreadsheet": (WHOLE + "P3,active,01.03.2026\n", "line 4: .* is not a time", "2025-06-01T00:00:00Z"),
    "zone by name": (WHOLE + "P3,active,2026-03-01T10:00:00 CET\n", "line 4: .* is not a time", "T02:00:00+02:00"),
    "24 hours": (WHOLE + "P3,active,2026-03-01T24:00:60Z\n", "line 4: .* is not a time", "2025-06-01T00:00:00Z"),
    "decimal comma": (WHOLE + "P3,active,46082,5\n", "line 4 has 4 cells, the header has 3$", COMMAS),
    "long cell": (HEADER + P1 + LONG + P2, "line 3 has a cell of more than 131,072 characters", "shorten it; if a"),
    "long id": (HEADER + P1 + LONG[:2000] + P2, "line 3: subject_id 'x*…' has 2,002 characters", "as it is in"),
    "rounded id": (HEADER + P1.replace("P1", "1.23457E+11"), "line 2: .* a spreadsheet has rounded", "as it is in"),
    "open quote": (HEADER + P1 + '"' + P2 * 3, "line 3 has a double quote that is not closed in its line", "close it"),
    "open quote, many lines": (HEADER + P1 + '"' + P2 * 9000, "line 3 has a cell of more than", "close it or take it"),
    "open quote and another": (
        HEADER + '"' + P2 + P1 + 'P"3",active,\n',
        "line 2 has a double quote that is not closed in its line",
        "close it",
    ),
    "open quote in the header": ('"' + WHOLE, "line 1 has a double quote that is not closed in its line", "close it"),
    "quotes that hide a line": (
        HEADER + P1 + '"' + P2 + 'P3",active,\n',
        "line 3 has a double quote that is closed in a later line, so all up to line 4 is one",
        "take the double quote out, or close it in its line",
    ),
    "text after a quote": (WHOLE + '"P"3,active,\n', "line 4 has text after the double quote", "inside of it twice"),
    "UTF-16": (codecs.BOM_UTF16_LE + WHOLE.encode("utf-16-le"), "consent.csv is in UTF-16", AS_CSV),
    "UTF-16, other order": (codecs.BOM_UTF16_BE + WHOLE.encode("utf-16-be"), "consent.csv is in UTF-16", AS_CSV),
    "UTF-16 without a mark": (WHOLE.encode("utf-16-le"), "consent.csv is in UTF-16", AS_CSV),
    "UTF-16, other order, without a mark": (WHOLE.encode("utf-16-be"), "consent.csv is in UTF-16", AS_CSV),
    "Excel's Unicode text": (TABS.replace("\n", "\r\n").encode("utf-16"), "is in UTF-16, as Excel's", AS_CSV),
    "workbook": (b"PK\x03\x04\x14\x00\x06\x00\xff", "consent.csv is a workbook", AS_CSV),
    "Latin-1": ((WHOLE + "M\xfcller,active,\n").encode("latin-1"), "line 4 is not UTF-8: .* byte 0xfc", "in UTF-8"),
    **{
        f"conflict, {marker.split()[0][0]} left": (
            HEADER + P1 + marker + P2,
            f"line 3 is a conflict marker of Git: {marker[:7]}".replace("|", "[|]"),
            "(of consents: all), and take out the lines",
        )
        for marker in MARKERS
    },
    "conflict in the header": (MARKERS[0] + WHOLE, "line 1 is a conflict marker of Git", "take out the lines"),
    "NUL": (HEADER + P1 + P2.replace("P2", "P\x002"), "line 3 holds NUL characters", "take them out"),
    "NULs at the end": (WHOLE + "\0" * 512, "line 4 holds NUL characters, as after a power failure", "git checkout"),
    "NULs alone": (b"\0" * 512, "line 1 holds NUL characters", "dvc checkout"),
    "semicolons": (SEMICOLONS, "has semicolons between its cells, not commas", "replace each semicolon by a comma"),
    "semicolons for Excel": ("sep=;\n" + SEMICOLONS, "has semicolons between its cells", "replace each semicolon"),
    "commas for Excel": ("sep=,\n" + WHOLE, "has the columns sep=$", "must name, once each: subject_id,"),
    "tabs": (TABS, "has tabs between its cells, not commas", "replace each tab by a comma"),
    "semicolons in a line": (HEADER + P1 + P2.replace(",", ";"), "line 3 has 1 cells, the header has 3", COMMAS),
    "comma after the header": (
        WHOLE.replace("at\n", "at,\n"),
        "line 2 has 3 cells, the header has 4, 1 without a name",
        COMMAS,
    ),
    "column twice": ("subject_id," + HEADER + "P1,P2,active,\n", "columns subject_id, subject_id", "once each:"),
    "no header": (P1 + P2, "has the columns p1, active", "its first line must name, once each: subject_id,"),
    "two files joined": (WHOLE + "\ufeff" + WHOLE, "line 4 is the header once more", "take the line out"),
    "empty": ("", "lists nobody", "consent add"),
    "header only": (HEADER, "lists nobody", "consent add"),
}  # fmt: skip

GOOD: dict[str, str | bytes] = {
    "CR alone": WHOLE.replace("\n", "\r"),
    "spaces": WHOLE.replace(",", " , ").replace("\n", "  \n"),
    "empty columns": WHOLE.replace("\n", ",,\n"),
    "two byte order marks": "\ufeff\ufeff" + WHOLE,
    "all quoted": WHOLE.replace(",", '","').replace("\n", '"\n').replace("P", '"P').replace("subj", '"subj'),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(("content", "problem", "fix"), BAD.values(), ids=BAD)
def test_bad_file_is_refused_with_its_line_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, content: str | bytes, problem: str, fix: str
) -> None:
    monkeypatch.setattr(consent, "LARGE_BYTES", 0 if large else 1 << 30)
    path = write(tmp_path / "consent.csv", content)
    with pytest.raises(ProjectError) as error:
        consent.read(path, NOW)
    error.match(f"(?m){problem}")
    assert fix in error.value.fix
    assert len(str(error.value)) < 500
    assert "codec" not in error.value.problem and "field" not in error.value.problem, "the words of Python"


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_file_of_another_form_is_read_as_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, content: str | bytes
) -> None:
    monkeypatch.setattr(consent, "LARGE_BYTES", 0 if large else 1 << 30)
    registry = consent.read(write(tmp_path / "consent.csv", content), NOW)
    assert registry.active == {"P1"} and registry.counts == {"active": 1, "revoked": 1}


RECORDS = "record_id,subject_id,label,path\n1,P1,cat,a.png\n2,P2,dog,b.png\n"


@pytest.mark.parametrize(
    ("content", "problem", "fix"),
    [
        (RECORDS.encode("utf-16"), "raw/records.csv is in UTF-16", AS_CSV),
        (RECORDS.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"), "raw/records.csv is in UTF-16", AS_CSV),
        (RECORDS.replace(",", ";"), "raw/records.csv has semicolons between its cells", "replace each semicolon"),
        (RECORDS.replace("2,P2", '"2,P2'), "raw/records.csv line 3 has a double quote that is not closed", "close it"),
        (RECORDS + "<<<<<<< HEAD\n3,P3,cat,c.png\n", "records.csv line 4 is a conflict marker", "take out the lines"),
        (RECORDS + RECORDS, "raw/records.csv line 4 is the header once more", "take the line out"),
        (RECORDS.replace("2", LONG), "raw/records.csv line 3 has a cell of more than 131,072", "shorten it"),
        ("", "raw/records.csv holds no rows", "add rows below the header, label,path"),
        (RECORDS.splitlines()[0], "raw/records.csv holds no rows", "the header, label,path,record_id,subject_id"),
    ],
    ids=["UTF-16", "Unicode text", "semicolons", "quote", "conflict", "joined", "long", "empty", "header only"],
)  # fmt: skip
def test_bad_list_is_refused_with_its_line_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, problem: str, fix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    write(Path("raw/records.csv"), content)
    with pytest.raises(ProjectError, match=problem) as error:
        list(list_files(Path("raw"), "label"))
    assert fix in error.value.fix


@pytest.mark.parametrize("content", [RECORDS.replace("\n", "\r"), "\ufeff\ufeff" + RECORDS], ids=["CR", "two marks"])
def test_list_of_another_form_keeps_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    write(Path("raw/records.csv"), content)
    listed = [(record.record_id, record.subject_id) for record in list_files(Path("raw"), "label")]
    assert listed == [("1", "P1"), ("2", "P2")]

"""Ids and labels: what is taken as it is, and what is refused."""

import io
from collections.abc import Iterable

import icu
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.records import ids
from mlops.records.source import Record, read_records
from PIL import Image
from team.data import digits

from .. import small_datasets


def record(record_id: str, subject_id: str = "s", label: str = "cat", origin: str = "line 2") -> Record:
    return Record(record_id, subject_id, label, "", origin)


def read(records: Iterable[Record], name: str = "test") -> list[tuple[str, str, str]]:
    """Return id, subject and label of the records that are read."""
    with read_records(small_datasets.source(records, name=name)) as table:
        return list(table.table.execute("SELECT record_id, subject_id, label FROM records"))


@pytest.mark.parametrize("name", ["00123", "NA", "null", "=cmd()", "1e5", "ünï-日本", "a b", "-"])
def test_read_records_unusual_id_survives(name: str) -> None:
    assert [row[0] for row in read([record(name)])] == [name]


@pytest.mark.parametrize(
    ("name", "corrected"),
    [
        *(("P1 ", "P1"), ("\u00a0P1", "P1"), ("P\u200b1", "P1"), ("P1\n", "P1"), ("\uff301", "P1"), ("e\u0301", "é")),
        *(("P\u034f1", "P1"), ("P\ufe0f1", "P1"), ("P1\u2800", "P1"), ("P\u11601", "P1"), ("P1\U0001d159", "P1")),
    ],
    ids=[
        *("space", "no-break space", "zero width", "line feed", "full width", "combining accent"),
        *("joiner", "variation selector", "Braille blank", "Hangul filler", "null notehead"),
    ],
)
@pytest.mark.parametrize("column", ["record_id", "subject_id", "label"])
def test_read_records_hidden_characters_names_corrected_form(name: str, corrected: str, column: str) -> None:
    bad = record(**{"record_id": "r", column: name})
    with pytest.raises(ProjectError) as error:
        read([bad])
    assert f"line 2: {column} {name!r}" in error.value.problem
    assert f"write {corrected!r}" in error.value.problem


@pytest.mark.parametrize("empty", ["", "  ", "\u200b", "\u2800\u1160\ufe0f"])
@pytest.mark.parametrize("column", ["record_id", "subject_id", "label"])
def test_read_records_empty_column_is_refused(empty: str, column: str) -> None:
    with pytest.raises(ProjectError, match=f"line 2: {column} is empty\nFix: correct these records where they are def"):
        read([record(**{"record_id": "r", column: empty})])


@pytest.mark.parametrize("name", ["P\u0378", "P\udcff"], ids=["not assigned", "a byte"])
@pytest.mark.parametrize("column", ["record_id", "subject_id", "label"])
def test_read_records_code_point_that_is_no_character_is_refused(name: str, column: str) -> None:
    with pytest.raises(ProjectError, match=f"line 2: {column} .* holds U\\+.*, which is no character"):
        read([record(**{"record_id": "r", column: name})])


ALIKE = [
    ("form-03", "f\u043erm-03", "a Cyrillic letter"),
    ("HN-1", "\u041dN-1", "a Cyrillic capital"),
    ("HN-1", "\u0397\u039d-1", "all letters Greek"),
    ("BM-1", "\u0432\u043c-1", "small Cyrillic letters"),
    ("patient-\u041d\u0438\u043d\u0430", "patient-\u043d\u0438\u043d\u0430", "case in a word of another script"),
    ("Þórður", "ÞÓRÐUR", "case of Latin letters beyond ASCII"),
    ("İzmir", "izmir", "case in Turkish"),
    ("Größe", "GRÖSSE", "case that changes the length"),
    ("σίσυφος", "ΣΊΣΥΦΟΣ", "case in Greek"),
    ("P1", "pl", "1 and l"),
    ("O7", "07", "0 and O"),
    ("07", "7", "leading zeros"),
    ("O7", "7", "and both"),
    ("m", "rn", "m and rn"),
    ("form-\u0660\u0663", "form-03", "digits of another script"),
    ("f\u0665rm", "form", "a digit that looks like a letter"),
    ("a\u2013b", "a-b", "a dash"),
    ("a\u1680 b", "a b", "spaces"),
    ("form\u034f-03", "form-03", "an id of before, not in plain form"),
]


@pytest.mark.parametrize(("first", "second"), [pair[:2] for pair in ALIKE], ids=[pair[2] for pair in ALIKE])
def test_match_key_of_ids_that_may_be_one_person_s_is_one(first: str, second: str) -> None:
    assert ids.match_key(first) == ids.match_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("AI", "AL"), ("P1", "P10"), ("é", "e"), ("00", "01"), ("数字", "数"), ("a b", "ab"), ("x", "y")],
)
def test_match_key_of_other_ids_differs(first: str, second: str) -> None:
    assert ids.match_key(first) != ids.match_key(second)


def test_match_key_of_ascii_looks_as_in_icu_s_table() -> None:
    for code in range(33, 127):
        small = chr(code).lower()
        assert ids.match_key(f"x{small}x") == f"x{icu.SpoofChecker().getSkeleton(0, small).casefold()}x", small


@settings(deadline=None)
@given(st.text())
def test_match_key_of_any_text_does_not_depend_on_case_or_form(text: str) -> None:
    assert ids.match_key(ids.normalize_id(text)) == ids.match_key(text)
    if text.isascii():
        assert ids.match_key(text.upper()) == ids.match_key(text) == ids.match_key(text.lower())


def test_read_records_subjects_that_look_alike_are_refused_with_what_differs() -> None:
    with pytest.raises(ProjectError) as error:
        read([record("r1", "form-03"), record("r2", "f\u043erm-03", origin="line 3")])
    assert "line 3: subject_id 'f\u043erm-03' looks like 'form-03', at line 2" in error.value.problem
    assert "U+043E CYRILLIC SMALL LETTER O in place of U+006F LATIN SMALL LETTER O" in error.value.problem


def test_read_records_subjects_that_look_alike_in_ascii_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    subjects = ["P1", "P1", "Pl", "p1", "P2"]
    records = [record(str(n), subject, origin=f"line {n}") for n, subject in enumerate(subjects)]
    assert len(read(records)) == 5
    (line,) = capsys.readouterr().out.splitlines()
    assert "line 2: subject_id 'Pl' looks like 'P1', at line 0" in line and line.endswith("and 1 more pairs")


def test_read_records_duplicate_names_both_places() -> None:
    with pytest.raises(ProjectError, match="line 3: record_id 'r' was given before, at line 2"):
        read([record("r"), record("r", origin="line 3")])


def test_read_records_many_problems_counts_all_and_shows_five() -> None:
    with pytest.raises(ProjectError) as error:
        read(record("", origin=f"line {line}") for line in range(2, 14))
    assert "bad records: 12" in error.value.problem
    assert "line 6:" in error.value.problem and "line 7:" not in error.value.problem
    assert "and 7 more" in error.value.problem


def test_read_records_of_a_source_without_a_function_names_it() -> None:
    whole = small_datasets.source([record("r")])
    del whole.read
    with pytest.raises(ProjectError, match=r"has no function read\(\)\nFix: define it: data/"), read_records(whole):
        pass


def test_read_records_nothing_names_the_parameter() -> None:
    with pytest.raises(ProjectError) as error:
        read([], "folder")
    assert error.value.fix == "choose another one: params.yaml:data.source"


@settings(deadline=None)
@given(st.text() | st.text("a \u0301\u034f\ufe0f\u1160\u2800\u00a0\u1100\u1161\u200d\u2028\u3164\u00a8\ufb01\u0378"))
def test_normalize_id_of_any_text_is_a_fixed_point(text: str) -> None:
    normal = ids.normalize_id(text)
    assert ids.normalize_id(normal) == normal == icu.Normalizer2.getNFKCInstance().normalize(normal)
    assert not any(icu.Char.hasBinaryProperty(ord(c), icu.UProperty.DEFAULT_IGNORABLE_CODE_POINT) for c in normal)


def test_digits_records_are_the_fourteen_forms() -> None:
    rows = read(digits.records())
    assert len(rows) == 1797
    assert len({subject_id for _, subject_id, _ in rows}) == digits.FORMS
    # The slots are right if the labels follow the form; one digit of the 1,797 is known to be another.
    other = [record_id for record_id, _, label in rows if label != digits.FORM[int(record_id[-3:])]]
    assert other == ["form-02-129"]


def test_digits_images_keep_every_value() -> None:
    from sklearn.datasets import load_digits

    ink = load_digits().images
    for position, digit in enumerate(digits.records()):
        pixels = np.asarray(Image.open(io.BytesIO(digits.read(digit.content))))
        assert np.array_equal(np.round(pixels / 255 * 16), ink[position])

"""Ids and labels: what is taken as it is, and what is refused."""

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from {{ cookiecutter.package_name }}.data import digits, sources
from {{ cookiecutter.package_name }}.errors import ProjectError


def record(record_id: str, subject_id: str = "s", label: str = "cat", origin: str = "line 2") -> sources.Record:
    return sources.Record(record_id, subject_id, label, lambda: b"", origin)


@pytest.mark.parametrize("name", ["00123", "NA", "null", "=cmd()", "1e5", "ünï-日本", "a b", "-"])
def test_load_unusual_id_survives(name: str) -> None:
    assert [found.record_id for found in sources.load([record(name)], "test")] == [name]


@pytest.mark.parametrize(
    ("name", "corrected"),
    [("P1 ", "P1"), ("\u00a0P1", "P1"), ("P\u200b1", "P1"), ("P1\n", "P1"), ("\uff301", "P1"), ("e\u0301", "é")],
    ids=["space", "no-break space", "zero width", "line feed", "full width", "combining accent"],
)
@pytest.mark.parametrize("column", ["record_id", "subject_id", "label"])
def test_load_hidden_characters_names_corrected_form(name: str, corrected: str, column: str) -> None:
    bad = record(**{"record_id": "r", column: name})
    with pytest.raises(ProjectError) as error:
        sources.load([bad], "test")
    assert f"line 2: {column} {name!r}" in error.value.problem
    assert f"write {corrected!r}" in error.value.problem


@pytest.mark.parametrize("empty", ["", "  ", "\u200b"])
@pytest.mark.parametrize("column", ["record_id", "subject_id", "label"])
def test_load_empty_column_is_refused(empty: str, column: str) -> None:
    with pytest.raises(ProjectError, match=f"line 2: {column} is empty"):
        sources.load([record(**{"record_id": "r", column: empty})], "test")


def test_load_duplicate_names_both_places() -> None:
    with pytest.raises(ProjectError, match="line 3: record_id 'r' was given before, at line 2"):
        sources.load([record("r"), record("r", origin="line 3")], "test")


def test_load_many_problems_counts_all_and_shows_five() -> None:
    with pytest.raises(ProjectError) as error:
        sources.load((record("", origin=f"line {line}") for line in range(2, 14)), "test")
    assert "bad records: 12" in error.value.problem
    assert "line 6:" in error.value.problem and "line 7:" not in error.value.problem
    assert "and 7 more" in error.value.problem


def test_load_nothing_names_the_parameter() -> None:
    with pytest.raises(ProjectError) as error:
        sources.load([], "folder")
    assert "params.yaml:data.source" in error.value.fix


@settings(deadline=None)
@given(st.text())
def test_plain_form_of_any_text_is_a_fixed_point(text: str) -> None:
    plain = sources.plain_form(text)
    assert sources.plain_form(plain) == plain == unicodedata.normalize("NFKC", plain)


def test_digits_records_are_the_fourteen_forms() -> None:
    found = sources.load(digits.records(Path()), "digits")
    assert len(found) == 1797
    assert len({one.subject_id for one in found}) == digits.FORMS
    # The slots are right if the labels follow the form; one digit of the 1,797 is known to be another.
    other = [one.record_id for one in found if one.label != digits.FORM[int(one.record_id[-3:])]]
    assert other == ["form-02-129"]


def test_digits_images_keep_every_value() -> None:
    from sklearn.datasets import load_digits

    ink = load_digits().images
    for position, one in enumerate(digits.records(Path())):
        pixels = np.asarray(Image.open(io.BytesIO(one.read())))
        assert np.array_equal(np.round(pixels / 255 * 16), ink[position])

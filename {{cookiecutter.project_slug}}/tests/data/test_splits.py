"""Splits: nobody moves because somebody else leaves."""

from collections import Counter

import pytest
from mlops import ProjectError, Record

from {{ cookiecutter.package_name }}.data import splits


def records(subjects: list[str], each: int = 1) -> list[Record]:
    return [Record(f"{name}-{n}", name, "cat", lambda: b"", name) for name in subjects for n in range(each)]


def test_split_of_known_subjects_never_changes() -> None:
    # If this fails, every dataset that was ever made would be split anew.
    parts = {f"form-{n:02}": splits.split_of(f"form-{n:02}", "7", 0.2, 0.2) for n in range(14)}
    assert [name for name, part in parts.items() if part == "val"] == ["form-01", "form-05", "form-10"]
    assert [name for name, part in parts.items() if part == "test"] == ["form-04", "form-09", "form-13"]


def test_split_many_subjects_has_the_fractions() -> None:
    parts = Counter(splits.split_of(f"subject-{n}", "salt", 0.1, 0.3) for n in range(20_000))
    assert parts["val"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert parts["test"] / 20_000 == pytest.approx(0.3, abs=0.015)


def test_split_empty_part_names_salt_and_fractions() -> None:
    with pytest.raises(ProjectError) as error:
        splits.split(records(["a"], each=3), "pepper", 0.2, 0.1)
    for text in ("'pepper'", "val 0.2", "test 0.1", "3 records of 1 subjects"):
        assert text in error.value.problem
    assert "params.yaml:split.salt" in error.value.fix


def test_subsample_smaller_part_is_inside_larger_part() -> None:
    everything = records([f"subject-{n}" for n in range(2_000)])
    five, ten = ({record.record_id for record in splits.subsample(everything, part)} for part in (0.05, 0.1))
    assert five < ten
    assert len(ten) == pytest.approx(200, abs=50)
    assert len(splits.subsample(everything, 1.0)) == 2_000

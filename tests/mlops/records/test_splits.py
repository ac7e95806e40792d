"""Splits: nobody moves because somebody else leaves, and a salt is chosen that leaves none empty."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.records import hashing, splits
from mlops.records.source import Record, read_records

from ..small_datasets import record, source

PARAMS = splits.SplitParams(salt="7", val=0.2, test=0.2)
CHOICE = splits.SplitParams(salt=None, val=0.2, test=0.2)


@pytest.fixture(autouse=True)
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A params.yaml without a salt, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE_JOB", raising=False)
    path = tmp_path / "params.yaml"
    path.write_text("# Kept\nsplit:\n  salt:   # chosen\n  val: 0.2\n  test: 0.2   # of all\n", encoding="utf-8")
    return path


def split(records: Iterable[Record], params: splits.SplitParams = PARAMS) -> dict[str, set[str]]:
    """Return the subjects of each split."""
    with read_records(source(records)) as table:
        splits.split_by_subject(table, params)
        parts: defaultdict[str, set[str]] = defaultdict(set)
        for name, subject in table.table.execute("SELECT split, subject_id FROM records"):
            parts[name].add(subject)
        return parts


def records_of(labels: dict[str, str], each: int = 3, of: str = "") -> list[Record]:
    """Return records of subjects, whose labels are letters; `of` is the split that the source gives."""
    return [
        record(f"{subject}-{label}-{n}", subject, label, split=of, origin=f"line {n}")
        for subject, letters in labels.items()
        for label in letters
        for n in range(each)
    ]


@settings(deadline=None)
@given(st.text(), st.text())
def test_uniform_hash_of_any_words_is_in_range(first: str, second: str) -> None:
    words = (word.encode(errors="replace").decode() for word in (first, second))
    assert 0 <= hashing.uniform_hash(*words) < 1


def test_split_of_known_subjects_never_changes() -> None:
    # If this fails, every dataset that was ever made would be split anew.
    parts = {f"form-{n:02}": splits.split_of(f"form-{n:02}", "7", 0.2, 0.2) for n in range(14)}
    assert [name for name, part in parts.items() if part == "val"] == ["form-01", "form-05", "form-10"]
    assert [name for name, part in parts.items() if part == "test"] == ["form-04", "form-09", "form-13"]


def test_split_many_subjects_has_the_fractions() -> None:
    parts = Counter(splits.split_of(f"subject-{n}", "salt", 0.1, 0.3) for n in range(20_000))
    assert parts["val"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert parts["test"] / 20_000 == pytest.approx(0.3, abs=0.015)


def test_split_empty_part_names_salt_fractions_and_the_way_out() -> None:
    with pytest.raises(ProjectError) as error:
        split(records_of({"a": "x"}), splits.SplitParams(salt="pepper", val=0.2, test=0.1))
    for text in ("'pepper'", "val 0.2", "test 0.1", "3 records of 1 subjects"):
        assert text in error.value.problem
    assert error.value.fix.startswith("python -m mlops data split --suggest --write; or raise params.yaml:split.val")


@pytest.mark.parametrize("seed", range(20))
def test_empty_salt_with_six_subjects_fills_every_split_and_is_written(
    params_file: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    records = records_of({f"{seed}-{n}": "ab" for n in range(6)})
    parts = split(records, CHOICE)
    assert {len(parts[name]) for name in ("val", "test")} <= {1, 2}
    assert sum(map(len, parts.values())) == 6
    text = params_file.read_text(encoding="utf-8")
    salt = text.split("salt: '")[1].split("'")[0]
    assert f"params.yaml:split.salt was empty. Of 1000 salts, '{salt}'" in capsys.readouterr().out
    assert text == f"# Kept\nsplit:\n  salt: '{salt}' # chosen\n  val: 0.2\n  test: 0.2   # of all\n"
    assert split(records, splits.SplitParams(salt=salt, val=0.2, test=0.2)) == parts


def test_suggest_puts_every_label_into_every_split_where_a_salt_can() -> None:
    labels = {f"s{n}": "rare" if n < 3 else "frequent" for n in range(40)}
    with read_records(source(record(name, name, label, split="") for name, label in labels.items())) as table:
        best = splits.suggest(table, 0.2, 0.2)
    parts = {name: splits.split_of(name, best.salt, 0.2, 0.2) for name in labels}
    assert {parts[name] for name in ("s0", "s1", "s2")} == {"train", "val", "test"}
    assert best.lacking == []


def test_suggest_says_with_numbers_what_no_salt_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    split(records_of({**{f"s{n}": "a" for n in range(10)}, "s10": "b"}), CHOICE)
    assert "With no salt can this be had: label 'b', of 1 subjects, is not in val and test" in capsys.readouterr().out
    with pytest.raises(
        ProjectError, match="none of 1000 salts .* 6 records of 2 subjects(?s:.*)Fix: give records of more subj"
    ):
        split(records_of({"a": "x", "b": "x"}), CHOICE)


def test_suggest_looks_at_those_who_consent_only() -> None:
    with read_records(source(records_of({f"s{n}": "a" for n in range(12)}))) as table:
        table.table.execute("UPDATE records SET allowed = subject_id IN ('s1', 's2', 's3')")
        best = splits.suggest(table, 0.3, 0.3)
    assert {splits.split_of(f"s{n}", best.salt, 0.3, 0.3) for n in (1, 2, 3)} == {"train", "val", "test"}


def test_empty_salt_in_a_job_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch, params_file: Path) -> None:
    monkeypatch.setenv("STAGE_JOB", "job.json")
    before = params_file.read_bytes()
    with pytest.raises(ProjectError, match=r"a job can't write the salt[\s\S]*data split --suggest --write"):
        split(records_of({f"s{n}": "a" for n in range(9)}), CHOICE)
    assert params_file.read_bytes() == before


def test_own_splits_are_taken_as_they_are(params_file: Path) -> None:
    parts = {"train": {"a": "xy"}, "val": {"b": "x"}, "test": {"c": "y"}}
    records = [each for name, labels in parts.items() for each in records_of(labels, of=name)]
    assert split(records, CHOICE) == {name: set(labels) for name, labels in parts.items()}
    assert "salt: '" not in params_file.read_text(encoding="utf-8"), "no salt is needed"


def test_own_splits_without_val_draw_it_from_train(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = {f"s{n}": "a" for n in range(30)}, {"t": "a"}
    parts = split([*records_of(train, of="train"), *records_of(test, of="test")])
    assert parts["test"] == {"t"} and parts["val"] and parts["train"] | parts["val"] == set(train)
    assert "The source has no split val: drawn from the subjects of its train" in capsys.readouterr().out


def test_own_splits_of_a_subject_in_two_are_all_named() -> None:
    records = [record(f"{name}-{part}", name, split=part) for name in "abc" for part in ("train", "test")]
    with pytest.raises(
        ProjectError,
        match="bad records: 3\n  subject 'a' has 2 records, in train and test(?s:.*)Fix: correct the splits",
    ):
        split(records)


def test_own_splits_of_some_records_only_are_refused() -> None:
    records = [*records_of({"a": "x"}, of="train"), record("r", "b", split="", origin="line 9")]
    with pytest.raises(
        ProjectError,
        match="1 records have no split, and others have one; the first is line 9\nFix: give a split to all",
    ):
        split(records)


@pytest.mark.parametrize(("names", "empty"), [(("val", "test"), "train"), (("train", "test", "val"), "val")])
def test_own_splits_of_which_one_is_empty_are_mended_in_the_source(names: tuple[str, ...], empty: str) -> None:
    with read_records(source([record(name, name, split=name) for name in names])) as table:
        table.table.execute("UPDATE records SET allowed = split <> 'val' OR ?", [empty == "train"])
        with pytest.raises(ProjectError, match=f"no record falls into {empty} with") as error:
            splits.split_by_subject(table, PARAMS)
    assert error.value.fix.startswith(f"the source gives splits itself: add records of {empty} there")


def test_own_splits_without_train_leave_nothing_to_draw() -> None:
    with pytest.raises(ProjectError, match="no record of train that may be used") as error:
        split([record("r", split="test")], CHOICE)
    assert error.value.fix.startswith("add records of the split train to the source")


def test_own_split_of_another_name_is_refused() -> None:
    with pytest.raises(ProjectError, match="line 2: split 'holdout' is none of train, val, test"):
        split([record("r", split="holdout", origin="line 2")])


def test_suggest_where_the_source_gives_all_splits_says_that_no_salt_is_used() -> None:
    with (
        read_records(source([record(name, name, split=name) for name in ("train", "val", "test")])) as table,
        pytest.raises(ProjectError, match=r"so no salt is used\nFix: python -m mlops data split"),
    ):
        splits.suggest(table, 0, 0)

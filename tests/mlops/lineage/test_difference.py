"""Two trainings: which of them are the same, where they begin to differ, and what differs first."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from mlops.lineage.difference import Record, band, causes, first_epoch, is_same, is_same_class

FACTS = {
    **{"device": "cpu", "device_name": "EPYC", "cpu_capability": "AVX512", "capability": "AVX512", "threads": 1},
    **{"processes": 1, "precision": "fp32", "numeric_fingerprint": "aa", "environment_differences": []},
}
DEPS = [
    {"path": "data/dataset", "md5": "d.dir"},
    {"path": "digits/model", "md5": "m.dir"},
    {"path": "environment.json", "md5": "e"},
]
PARAMS = {"params.yaml": {"train": {"max_lr": 0.1, "threads": 1, "processes": "auto"}}}
RECORD = Record(
    facts=FACTS,
    lock={"train": {"deps": DEPS, "params": PARAMS}},
    training="train",
    tracked=frozenset({"data/dataset"}),
    files={"model.safetensors": "w"},
    metrics={"test_acc": 0.9},
    weights=["1", "2", "3"],
    pins={"torch": "2.14.1"},
)


def with_dep(path: str) -> Record:
    deps = [{**dep, "md5": "other"} if dep["path"] == path else dep for dep in DEPS]
    return replace(RECORD, lock={"train": {"deps": deps, "params": PARAMS}})


def with_params(**values: Any) -> Record:
    train = {**PARAMS["params.yaml"]["train"], **values}
    return replace(RECORD, lock={"train": {"deps": DEPS, "params": {"params.yaml": {"train": train}}}})


def with_facts(**values: Any) -> Record:
    return replace(RECORD, facts={**FACTS, **values})


CASES = {
    "data": (with_dep("data/dataset"), "data", "data/dataset d.dir, then other"),
    "code": (with_dep("digits/model"), "code", "digits/model m.dir, then other"),
    "params": (with_params(max_lr=0.2), "params", "train.max_lr 0.1, then 0.2"),
    "pinned package": (replace(RECORD, pins={"torch": "2.15.0"}), "packages", "torch 2.14.1, then 2.15.0"),
    "other package": (
        with_facts(environment_differences=["torch 2.15.0"], numeric_fingerprint="bb"),
        "packages",
        "torch 2.14.1, then 2.15.0",
    ),
    "CPU": (with_facts(device_name="Xeon", numeric_fingerprint="bb"), "CPU or GPU", "device_name EPYC, then Xeon"),
    "libraries": (with_facts(numeric_fingerprint="bb"), "CPU or GPU", "the numeric fingerprint is aa, then bb"),
    "threads": (with_facts(threads=2, numeric_fingerprint="bb"), "threads", "1, then 2"),
    "processes": (with_facts(processes=2, numeric_fingerprint="bb"), "processes", "1, then 2"),
}


@pytest.mark.parametrize("case", CASES)
def test_causes_name_what_was_not_alike_that_first(case: str) -> None:
    other, kind, text = CASES[case]
    first = causes(RECORD, other)[0]
    assert (first.kind, first.text[: len(text)]) == (kind, text)


def test_causes_are_in_their_order() -> None:
    other = replace(
        with_dep("data/dataset"), facts={**FACTS, "threads": 2, "device_name": "Xeon"}, pins={"torch": "2.15.0"}
    )
    assert [cause.kind for cause in causes(RECORD, other)] == ["data", "packages", "CPU or GPU", "threads"]


def test_is_same_means_the_bytes_of_the_model_and_its_metrics() -> None:
    assert is_same(RECORD, with_facts(device_name="Xeon"))
    assert not is_same(RECORD, replace(RECORD, files={"model.safetensors": "v"}))
    assert not is_same(RECORD, replace(RECORD, metrics={"test_acc": 0.8}))


def test_first_epoch_counts_from_1() -> None:
    assert first_epoch(RECORD, RECORD) is None
    assert first_epoch(RECORD, replace(RECORD, weights=["1", "x", "y"])) == 2
    assert first_epoch(RECORD, replace(RECORD, weights=["1", "2"])) == 3


def test_is_same_class_is_the_fingerprint_or_without_one_the_machine() -> None:
    assert is_same_class(RECORD, RECORD) is True
    assert is_same_class(RECORD, with_facts(numeric_fingerprint="bb")) is False
    old = with_facts(numeric_fingerprint="")
    assert is_same_class(old, old) is None
    assert is_same_class(old, replace(old, pins={"torch": "2.15.0"})) is False
    assert is_same_class(old, with_facts(numeric_fingerprint="", device_name="Xeon")) is False


@pytest.mark.parametrize(("share", "records", "width"), [(0.9, 400, 0.0294), (0.5, 100, 0.098), (1.0, 100, 0.0196)])
def test_band_is_the_interval_of_a_share(share: float, records: int, width: float) -> None:
    assert band(share, records) == pytest.approx(width, abs=5e-5)


def test_causes_of_data_name_the_files_and_count_the_records() -> None:
    before = replace(RECORD, listings={"data/dataset": {"a": "1", "b": "1"}}, records=Counter(train=90, test=10))
    after = replace(with_dep("data/dataset"), listings={"data/dataset": {"a": "1", "b": "2"}}, records=Counter(test=9))
    text = "data/dataset d.dir, then other (1 of 2 files: b; 100 records, then 9)"
    assert causes(before, after)[0].text == text

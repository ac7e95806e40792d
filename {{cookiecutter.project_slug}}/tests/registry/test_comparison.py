"""A comparison is fair: the same records for both, none that one of them has seen, none without consent."""

import math
from collections.abc import Sequence

import pyarrow as pa
import pytest

from {{ cookiecutter.package_name }}.data import consent, shards
from {{ cookiecutter.package_name }}.errors import ProjectError
from {{ cookiecutter.package_name }}.registry.comparison import Bout, _rounds, check_measure
from {{ cookiecutter.package_name }}.registry.evidence import Evidence, Incomparable
from {{ cookiecutter.package_name }}.registry.measures import MEASURES, lower_is_better


def evidence(
    version: int, test: Sequence[str], seen: Sequence[str] = (), allowed: Sequence[str] | None = None
) -> Evidence:
    """Return a version tested on subjects of two records each."""
    rows = [(f"{subject}-{n}", subject, "7", b"image") for subject in sorted(test) for n in (1, 2)]
    table = pa.table(list(zip(*rows, strict=True)), schema=shards.SCHEMA)
    who = None if allowed is None else consent.Registry(frozenset(allowed), {}, "")
    return Evidence(version, table, frozenset(seen), who)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (evidence(2, "ab", "c"), evidence(1, "ab", "c"), [(2, "aabb", 0, 0)]),
        (evidence(2, "ab", "c"), evidence(1, "abd", "c"), [(2, "aabb", 0, 0), (1, "aabbdd", 0, 0)]),
        (evidence(2, "ab", "d"), evidence(1, "abd", "c"), [(2, "aabb", 0, 0)]),
        (evidence(2, "ab", "c"), evidence(1, "cd", "b"), [(2, "aa", 2, 0), (1, "dd", 2, 0)]),
        (evidence(2, "abc", "d", "ac"), evidence(1, "abc", "d", "ac"), [(2, "aacc", 0, 2)]),
        (evidence(2, "abc", "d", "ac"), evidence(1, "abc", "bd", "ac"), [(2, "aacc", 2, 0)]),
        (evidence(2, "ab", "c"), evidence(1, "ab", "c", "a"), [(2, "aabb", 0, 0), (1, "aa", 0, 2)]),
    ],
    ids=["same", "differ", "same-once-fair", "leak-both-ways", "withdrawn", "withdrawn-and-seen", "asked-of-one-only"],
)
def test_rounds_leave_out_what_is_not_fair(
    ours: Evidence, theirs: Evidence, expected: list[tuple[int, str, int, int]]
) -> None:
    found = [(version, "".join(left["subject_id"].to_pylist()), *out) for version, left, *out in _rounds(ours, theirs)]
    assert found == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (evidence(2, "ab", "c"), evidence(1, "c", "ab"), "of the 4 records in the test set of version 2 none .* on 4,"),
        (evidence(2, "ab", "c"), evidence(1, "c", "d"), "of the 2 records in the test set of version 1 none .* on 2,"),
        (evidence(2, "ab", "c", ""), evidence(1, "ab", "c", ""), "on 0, and 4 more have no consent"),
    ],
    ids=["candidate-s", "champion-s", "all-withdrew"],
)
def test_rounds_with_nothing_left_refuse(ours: Evidence, theirs: Evidence, said: str) -> None:
    with pytest.raises(Incomparable, match=said):
        list(_rounds(ours, theirs))


@pytest.mark.parametrize(
    ("by", "candidate", "champion", "worse"),
    [
        ("test_acc", 0.9, 0.9, False),
        ("test_acc", 0.89, 0.9, True),
        ("test_acc", 0.91, 0.9, False),
        ("test_loss", 0.3, 0.2, True),
        ("test_loss", 0.2, 0.3, False),
        ("test_error", 0.2, 0.1, True),
        ("test_acc", math.nan, 0.9, True),
        ("test_loss", math.nan, 0.9, True),
    ],
)
def test_bout_worse(by: str, candidate: float, champion: float, worse: bool) -> None:
    bout = Bout(2, 10, 0, 0, candidate, champion)
    assert bout.worse(by) == worse
    assert f"{by} {candidate:.4f} against {champion:.4f}" in bout.told(by)


def test_measures_known_and_unknown() -> None:
    assert [lower_is_better(name) for name in MEASURES] == [False, True, True]
    with pytest.raises(ProjectError, match="known: test_acc, test_error, test_loss"):
        check_measure("val_acc")

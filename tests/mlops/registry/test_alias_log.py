"""The log of aliases: what is written is read back, whatever people type; and which version has an alias in the end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.registry.aliases import (
    CHALLENGER,
    CHAMPION,
    MOVE,
    REFUSAL,
    REFUSE,
    AliasChange,
    Registry,
    alias_changes,
    alias_holders,
)
from mlops.tracking import lineage_log

from .conftest import MODEL, Git

CHANGE = AliasChange(
    model="digits",
    action="promote",
    alias=CHAMPION,
    before=None,
    version=1,
    who="Ada <ada@example.org>",
    aws="none",
    when="2026-01-01T00:00:00Z",
    why="",
    metrics={"run": {"test_acc": 0.98}},
)


def promoted(before: int | None, version: int, alias: str = CHAMPION, when: str = CHANGE.when) -> AliasChange:
    """Return a promotion."""
    return replace(CHANGE, before=before, version=version, alias=alias, when=when)


def rolled_back(before: int, version: int) -> AliasChange:
    """Return a rollback."""
    return replace(CHANGE, action="rollback", before=before, version=version)


@given(why=st.text(), who=st.text())
def test_entry_of_any_text_is_read_back(why: str, who: str) -> None:
    change = replace(CHANGE, why=why, who=who)
    assert AliasChange.parse(change.entry(), "123") == change


def test_entry_with_bytes_that_are_no_text_is_read_back_without_them() -> None:
    assert AliasChange.parse(replace(CHANGE, why="caf\udce9").entry(), "123").why == "caf?"


@pytest.mark.parametrize("line", ["version: 1", "metrics: ", "alias: "])
def test_parse_of_a_damaged_entry_says_which(line: str) -> None:
    with pytest.raises(ProjectError, match="git show 123"):
        AliasChange.parse(CHANGE.entry().replace(f"\n{line}", f"\n{line[:3]}"), "123")


@pytest.mark.parametrize(
    ("log", "champions", "challenger"),
    [
        ([], (), None),
        ([promoted(None, 1), promoted(1, 2), promoted(2, 3)], (1, 2, 3), None),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 1)], (1,), None),
        ([promoted(None, 1), promoted(1, 2), promoted(2, 3), rolled_back(3, 2), rolled_back(2, 1)], (1,), None),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 1), promoted(1, 3)], (1, 3), None),
        ([promoted(None, 1), promoted(None, 2, CHALLENGER)], (1,), 2),
        ([promoted(None, 1), promoted(None, 2, CHALLENGER), promoted(1, 2)], (1, 2), None),
        ([promoted(None, 1), promoted(None, 3, CHALLENGER), promoted(1, 2)], (1, 2), 3),
        ([promoted(None, 1), promoted(1, 2), promoted(1, 3)], (1, 2, 3), None),
        ([promoted(None, 1), promoted(1, 2), promoted(1, 2)], (1, 2), None),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 1), rolled_back(2, 1)], (1,), None),
    ],
    ids=[
        "nothing",
        "one-after-another",
        "rollback",
        "two-rollbacks",
        "on-after-a-rollback",
        "challenger",
        "challenger-becomes-champion",
        "challenger-stays",
        "two-clones-the-last-counts",
        "two-clones-the-same",
        "two-clones-roll-back",
    ],
)
def test_alias_holders_after(log: list[AliasChange], champions: tuple[int, ...], challenger: int | None) -> None:
    challengers = [] if challenger is None else [challenger]
    assert alias_holders(log) == {CHAMPION: list(champions), CHALLENGER: challengers}
    registry = Registry(MODEL, {}, {}, log)
    assert registry.holder(CHAMPION) == (champions[-1] if champions else None)
    assert registry.holder(CHALLENGER) == challenger


def test_alias_changes_of_a_repository_are_those_recorded_in_it(head: str, git: Git) -> None:
    assert alias_changes() == []
    first = replace(promoted(None, 1), model=MODEL)
    second = replace(promoted(1, 2), model=MODEL, why="besser: für alle")
    lineage_log.record(head, first.entry())
    lineage_log.record(head, "train x\n\nrun: abc\n")
    lineage_log.record(head, replace(first, model="cats").entry())  # another project of the same repository
    lineage_log.record(head, second.entry())
    lineage_log.record(head, second.entry())  # two clones joined may hold an entry twice
    git("config", "grep.patternType", "fixed")
    assert alias_changes() == [first, second]
    assert git("log", "--first-parent", "-1", "--format=%s", "lineage") == "promote digits champion to version 2"


def test_refusal_is_an_entry_of_its_own_and_moves_nothing(head: str, git: Git) -> None:
    first, second = replace(promoted(None, 1), model=MODEL), replace(promoted(1, 2), model=MODEL)
    refusal = replace(second, action=REFUSE, why="move: 7\nmove: 8", metrics={"objections": ["it is worse"]})
    for change in (first, refusal, second):
        lineage_log.record(head, change.entry())
    assert alias_changes() == [first, second], "as a clone whose code knows no refusals reads it too"
    assert alias_changes(kinds=(REFUSAL,)) == [refusal]
    assert alias_changes(kinds=(MOVE, REFUSAL)) == [first, refusal, second]
    assert len(lineage_log.log()) == 0, "it is neither a training nor a registration"
    subjects = git("log", "--first-parent", "--grep=^refusal: ", "--format=%s", "lineage")
    assert subjects == "refuse digits champion to version 2"

"""The log of moves: what is written is what is read, whatever people type; and who has an alias in the end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from {{ cookiecutter.package_name }}.errors import ProjectError
from {{ cookiecutter.package_name }}.registry import moves
from {{ cookiecutter.package_name }}.registry.moves import CHALLENGER, CHAMPION, Move, parse, standing
from {{ cookiecutter.package_name }}.tracking import branch

from .conftest import MODEL, Git

MOVE = Move(
    id="20260101T000000.000000Z-abcdef",
    model="digits",
    action="promote",
    alias=CHAMPION,
    before=None,
    version=1,
    who="Ada <ada@example.org>",
    aws="none",
    when="2026-01-01T00:00:00+00:00",
    why="",
    metrics={"run": {"test_acc": 0.98}},
)


def promoted(before: int | None, version: int, alias: str = CHAMPION) -> Move:
    """Return a promotion with an id of its own."""
    return replace(MOVE, id=f"{before}-{version}-{alias}", before=before, version=version, alias=alias)


def rolled_back(before: int, version: int) -> Move:
    """Return a rollback."""
    return replace(MOVE, id=f"{before}-back-{version}", action="rollback", before=before, version=version)


@given(why=st.text(), who=st.text(min_size=1))
def test_body_of_any_text_is_read_back_as_one_line(why: str, who: str) -> None:
    read = parse(replace(MOVE, why=why, who=f"x{who}").body(), "here")
    assert read.why in (" ".join(why.split()), "")
    assert read.who == " ".join(f"x{who}".split())
    assert replace(read, why="", who="") == replace(MOVE, why="", who="")


def test_body_with_a_line_break_forges_no_key() -> None:
    read = parse(replace(MOVE, why="fine\nto: 99\rwho: Eve").body(), "here")
    assert (read.version, read.who, read.why) == (1, MOVE.who, "fine to: 99 who: Eve")


@pytest.mark.parametrize("line", ["to: 1", "metrics: ", "alias: champion", "from: none"])
def test_parse_of_a_damaged_entry_refuses(line: str) -> None:
    with pytest.raises(ProjectError, match="git show 123"):
        parse(MOVE.body().replace(line, line[:3]), "git show 123")


@pytest.mark.parametrize(
    ("log", "champions", "challenger", "void"),
    [
        ([], (), None, 0),
        ([promoted(None, 1), promoted(1, 2), promoted(2, 3)], (1, 2, 3), None, 0),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 1)], (1,), None, 0),
        ([promoted(None, 1), promoted(1, 2), promoted(2, 3), rolled_back(3, 2), rolled_back(2, 1)], (1,), None, 0),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 1), promoted(1, 3)], (1, 3), None, 0),
        ([promoted(None, 1), promoted(None, 2, CHALLENGER)], (1,), 2, 0),
        ([promoted(None, 1), promoted(None, 2, CHALLENGER), promoted(1, 2)], (1, 2), None, 0),
        ([promoted(None, 1), promoted(None, 3, CHALLENGER), promoted(1, 2)], (1, 2), 3, 0),
        ([promoted(None, 1), promoted(1, 2), promoted(1, 3)], (1, 2), None, 1),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 1), rolled_back(2, 1)], (1,), None, 1),
        ([promoted(None, 1), promoted(1, 2), rolled_back(2, 3)], (1, 2), None, 1),
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
        "two-at-once-the-first-counts",
        "two-rollbacks-at-once",
        "rollback-to-what-was-not-before",
    ],
)
def test_standing_after(log: list[Move], champions: tuple[int, ...], challenger: int | None, void: int) -> None:
    found = standing(log)
    assert (found.champions, found.challenger, len(found.void)) == (champions, challenger, void)
    assert found.of(CHAMPION) == (champions[-1] if champions else None)


def test_moves_of_a_repository_are_those_recorded_in_it(head: str, git: Git) -> None:
    assert moves.moves() == []
    first = replace(promoted(None, 1), model=MODEL)
    second = replace(promoted(1, 2), model=MODEL, why="besser: für alle")
    moves.record(first, head)
    branch.record(head, "train x\n\nrun: abc\n")
    moves.record(replace(first, id="other", model="cats"), head)  # another project of the same repository
    moves.record(second, head)
    moves.record(second, head)  # two clones joined may hold an entry twice
    assert moves.moves() == [first, second]
    assert git("log", "--first-parent", "-1", "--format=%s", "lineage") == "promote digits version 2 to champion"

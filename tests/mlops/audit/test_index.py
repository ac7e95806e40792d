"""The index against sets: whatever comes, in whatever order, from however many processes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops import config as package_settings
from mlops.audit.index import InconclusiveError, Index, Membership
from mlops.records.ids import match_key

HOSTILE = [
    "P1",
    "P10",
    "P",
    "O'Brien",
    'say "hi"',
    "Robert'); DROP TABLE member;--",
    "%",
    "_",
    "two\nlines",
    "../../etc/passwd",
    "=cmd()",
    "Größe",
    "数字",
    "NA",
    "1e3",
    " ",
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index.db")


def numbers(bits: int) -> set[int]:
    return {number for number in range(bits.bit_length()) if bits >> number & 1}


def check(index: Index, truth: dict[str, set[str]], subjects: list[str]) -> None:
    """Compare with the sets of subjects, by digest."""
    place = index.numbers()
    assert place.keys() == truth.keys()
    for subject, membership in index.memberships(subjects).items():
        assert numbers(membership.exact) == {place[sha256] for sha256 in truth if subject in truth[sha256]}
        alike = {
            place[sha256]
            for sha256 in truth
            if any(match_key(x) == match_key(subject) and x != subject for x in truth[sha256])
        }
        assert numbers(membership.alike) == alike
    for sha256 in truth:
        assert index.members(1 << place[sha256]) == sorted(truth[sha256])
    some = list(truth)[::2]
    assert set(index.members(sum(1 << place[sha256] for sha256 in some))) == set().union(
        *(truth[sha256] for sha256 in some)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.sampled_from(["P1", "p1", "P10", "00123", "123", "É", "é", *HOSTILE[3:9]]), max_size=9)))
def test_index_of_any_history_answers_as_the_sets_do(history: list[set[str]]) -> None:
    truth = {f"{number:064}": subjects for number, subjects in enumerate(history)}
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder, "index.db"))
        for sha256, subjects in truth.items():
            index.add(sha256, subjects)
            index.add(sha256, {"nobody"})  # it is there
        check(index, truth, ["P1", "p1", "P10", "P", "123", "0123", "0", "é", "e", *HOSTILE])
        index.close()


def test_index_keeps_hostile_ids_apart(index: Index) -> None:
    index.add("a" * 64, set(HOSTILE))
    assert index.members(1) == sorted(HOSTILE)
    memberships = index.memberships(HOSTILE)
    assert set(memberships.values()) == {Membership(1)}
    assert index.memberships(["P1'", "P1%", "p", ""])["P1'"] == Membership()


def test_index_of_more_subjects_than_one_query_takes(index: Index) -> None:
    everybody = {f"s{number}" for number in range(2500)}
    index.add("a" * 64, everybody)
    memberships = index.memberships(f"s{number}" for number in range(3000))
    assert len(memberships) == 3000
    assert {subject for subject, where in memberships.items() if where.exact} == everybody


ADD = """
import sys
from pathlib import Path
from mlops.audit.index import Index
index = Index(Path(sys.argv[1]))
for word in sys.argv[2:]:
    digest, _, subjects = word.partition(":")
    index.add(digest, set(subjects.split(",")))
"""


def test_index_written_by_several_processes_at_once_answers_the_same(tmp_path: Path) -> None:
    truth = {f"{n:064}": {f"s{(n * m) % 23}" for m in range(1, 2 + n % 7)} for n in range(24)}
    words = [f"{sha256}:{','.join(subjects)}" for sha256, subjects in truth.items()]
    package = Path(str(package_settings.__file__)).parent
    code = ADD
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "index.db"), *words[k::4], *words[:6]], env=environment
        )
        for k in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    check(Index(tmp_path / "index.db"), truth, [f"s{n}" for n in range(23)])


def test_index_file_that_is_no_database_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    index = Index(tmp_path / "index.db")
    assert index.numbers() == {}


def test_index_of_another_layout_is_made_anew(tmp_path: Path) -> None:
    first = Index(tmp_path / "index.db")
    first.add("a" * 64, {"P1"})
    first._db.execute("PRAGMA user_version = 999")
    first.close()
    assert Index(tmp_path / "index.db").numbers() == {}


def test_index_made_anew_under_a_reader_is_not_believed(tmp_path: Path) -> None:
    reader = Index(tmp_path / "index.db")
    reader.add("a" * 64, {"P1"})
    Index(tmp_path / "index.db").clear()
    with pytest.raises(InconclusiveError, match="made anew meanwhile[\\s\\S]*same command again"):
        reader.memberships(["P1"])


def test_index_damaged_inside_is_told_or_right(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db")
    index.add("a" * 64, {f"s{number}" for number in range(5000)})
    index.close()
    content = bytearray((tmp_path / "index.db").read_bytes())
    content[3 * 4096 : 6 * 4096] = bytes(3 * 4096)
    (tmp_path / "index.db").write_bytes(content)
    with pytest.raises(InconclusiveError, match=r"it is damaged\nFix: rm -r .*it is made again"):
        Index(tmp_path / "index.db").memberships(f"s{number}" for number in range(5000))

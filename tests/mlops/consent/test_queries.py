"""What the registry answers, and what is reported when it is not in order."""

import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlops.cli import main
from mlops.consent import queries
from mlops.errors import ProjectError

from .conftest import LINES


def test_status_names_the_line_that_decides(registry: Path) -> None:
    registry.write_bytes(LINES + b"x,active,\nx,revoked,\nform-02,active,2025-03-01T00:00:00+02:00\n")
    standings = queries.status(["form-00", "form-02", " form-02 ", "x", "y", "FORM-00"])
    assert [standing.allowed for standing in standings] == [True, False, False, False, False]
    assert list(map(str, standings)) == [
        "form-00: active by line 2: form-00 active from 2025-01-01T00:00:00Z",
        "form-02: revoked by line 5: form-02 revoked from 2025-06-01T00:00:00Z",
        "x: revoked; no line decides: 6, 7 contradict each other, so the answer is no",
        "y: missing; who is not listed has not consented",
        "FORM-00: missing; line 2 is of form-00, and ids are spelt exactly",
    ]


def test_history_has_the_lines_in_order(registry: Path) -> None:
    printed = CliRunner().invoke(main, ["consent", "history", "form-02"]).output
    assert printed.splitlines() == [
        "line 4: form-02 active from 2025-01-01T00:00:00Z",
        "line 5: form-02 revoked from 2025-06-01T00:00:00Z",
        "form-02: revoked by line 5: form-02 revoked from 2025-06-01T00:00:00Z",
    ]


def test_check_in_order_reports_nothing(registry: Path) -> None:
    assert queries.check() == ([], [])


def test_check_reports_every_problem_with_its_line(registry: Path) -> None:
    registry.write_bytes(
        LINES + b"a,active\nb,active,yesterday\n ,active,\nc,active,2999-01-01T00:00:00Z\nd,revoked,\n"
    )
    problems, doubts = queries.check()
    starts = ["line 6 has 2 cells", "line 7: effective_at 'yesterday'", "line 8 names no subject", "line 9: a consent"]
    assert len(problems) == 4
    assert all(f"data/consent.csv {start}" in problem for start, problem in zip(starts, problems, strict=True))
    assert doubts == []


def test_check_reports_doubts(registry: Path) -> None:
    lines = "a,actve,\nb\u200b,active,\nc,revoked,2999-01-01T00:00:00Z\nd,active,\nD,active,\ne,active,\ne,revoked,\n"
    registry.write_bytes(LINES + lines.encode())
    assert queries.check() == (
        [],
        [
            "data/consent.csv line 6: the status 'actve' is neither active nor revoked",
            "data/consent.csv line 7: 'b\\u200b' is read as 'b'",
            "data/consent.csv line 8: a withdrawal from 2999-01-01T00:00:00Z holds from today",
            "data/consent.csv line 9, 10: D, d differ in case only, and may be one person",
            "data/consent.csv line 11, 12: lines of e contradict each other",
        ],
    )


def test_check_reports_ids_that_look_alike_and_what_differs(registry: Path) -> None:
    registry.write_bytes(LINES + "f\u043erm-00,active,\nform\u034f-01,active,2025-01-01T00:00:00Z\n".encode())
    assert queries.check() == (
        [],
        [
            "data/consent.csv line 7: 'form\\u034f-01' is read as 'form-01'",
            "data/consent.csv line 2, 6: form-00, f\u043erm-00 look alike (f\u043erm-00 has "
            "U+043E CYRILLIC SMALL LETTER O in place of U+006F LATIN SMALL LETTER O), and may be one person",
        ],
    )


def test_check_and_status_report_what_lost_in_a_merge_and_what_settles_it(registry: Path) -> None:
    lines = "x,revoked,2025-02-10T00:00:00Z\nx,revoked,2025-01-10T00:00:00Z\nx,active,2025-03-10T00:00:00Z\n"
    registry.write_text(LINES.decode() + lines + "form-02,active,2025-03-10T00:00:00Z\n")
    problems, doubts = queries.check()
    assert problems == []
    assert [doubt.partition(":")[0] for doubt in doubts] == [
        "data/consent.csv line 4, 5, 9",
        "data/consent.csv line 6, 7, 8",
    ]
    assert "form-02 is revoked; line 9 (active) lost to a line of a later date" in doubts[0]
    assert "x is in doubt; line 6 (revoked) lost to a line of a later date" in doubts[1]
    for text in (doubts[1], *map(str, (queries.status(["x"])[0], queries.history("x")[1]))):
        assert "consent revoke x; or, if they do consent, python -m" in text and text.endswith("consent add x")


def test_check_of_bytes_that_are_no_text_names_the_line(registry: Path) -> None:
    registry.write_bytes(LINES + b"x" * 20_000 + b",active,\nb\xff,active,\n")
    with pytest.raises(ProjectError, match="line 7 is not UTF-8: it holds the byte 0xff"):
        queries.check()


def test_check_after_a_malformed_version_was_committed_says_to_commit_the_right_one(registry: Path) -> None:
    registry.write_bytes(LINES + b"a,active,2026-03-01\n")
    git = ("git", "-c", "user.name=T", "-c", "user.email=t@example.org")
    for command in (("init",), ("add", "."), ("commit", "-m", "Start")):
        subprocess.run([*git, *command], check=True, capture_output=True)
    registry.write_bytes(LINES + b"a,active,2026-03-01T00:00:00Z\n")
    with pytest.raises(ProjectError, match="the earlier data/consent.csv line 6") as error:
        queries.check()
    fix = shlex.split(error.value.fix.partition("right as it is now: ")[2])
    subprocess.run([*git, *fix[1:]], check=True, capture_output=True)
    assert queries.check() == ([], [])


def test_check_reports_a_line_that_was_committed_and_is_missing(registry: Path) -> None:
    for command in ("init", "add .", "-c user.name=T -c user.email=t@example.org commit -m Start"):
        subprocess.run(["git", *command.split()], check=True, capture_output=True)
    registry.write_bytes(LINES.replace(b"form-02,revoked,2025-06-01T00:00:00Z\n", b"b,active,\n"))
    problems, _ = queries.check()
    assert problems == ["data/consent.csv lacks a line that was there: form-02 revoked from 2025-06-01T00:00:00Z"]

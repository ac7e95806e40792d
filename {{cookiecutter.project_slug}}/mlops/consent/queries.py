"""Query the consent registry, and check it: `consent status`, `history`, `check`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING

from ..errors import ProjectError
from ..records import consent
from ..records.consent import DOUBT, PATH, Entry
from ..records.ids import difference, match_key
from ..tracking.git import GitError, git
from . import edits, storage
from .edits import VERB, stamp
from .storage import DVC_FILE, NAME

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Standing:
    """Whether the records of a subject may be used; the fields are those of `consent status --json`."""

    subject: str
    status: str  # active, revoked, unknown, in doubt, or missing
    allowed: bool
    line: int | None  # that decides
    explanation: str  # for people

    def __str__(self) -> str:
        return f"{self.subject}: {self.explanation}"


def status(subjects: Iterable[str]) -> list[Standing]:
    """Return for each subject whether its records may be used, and which line decides."""
    ids = edits.normalized(subjects)
    known = _persons(ids)
    return [_standing(subject, known.get(match_key(subject), [])) for subject in ids]


def history(subject: str) -> tuple[list[Entry], Standing]:
    """Return all lines of a subject in the order of the file, and what they add up to."""
    (subject,) = edits.normalized([subject])
    lines = _persons([subject]).get(match_key(subject), [])
    return lines, _standing(subject, lines)


def _persons(subjects: list[str]) -> dict[str, list[Entry]]:
    edits.check_required()
    storage.check_current()
    return consent.persons(PATH, subjects)


def _standing(subject: str, lines: list[Entry]) -> Standing:
    if not lines:
        return Standing(subject, "missing", False, None, "missing; who is not listed has not consented")
    state, by = consent.decide(lines)
    if state == DOUBT:
        return Standing(subject, state, False, None, f"{DOUBT}, so the answer is no; {_overruled(lines)}")
    if not by:
        numbers = ", ".join(str(entry.line) for entry in lines)
        text = f"{state}; no line decides: {numbers} contradict each other, so the answer is no"
        return Standing(subject, state, False, None, text)
    if state == "active" and subject not in {entry.subject_id for entry in lines}:
        text = f"missing; line {by.line} is of {by.subject_id}, and ids are spelt exactly"
        return Standing(subject, "missing", False, None, text)
    return Standing(subject, state, state == "active", by.line, f"{state} by line {by.line}: {describe(by)}")


def describe(entry: Entry) -> str:
    """Return what a line says, for people."""
    return f"{entry.subject_id} {entry.status} {'from ' + stamp(entry.since) if entry.since else 'without a date'}"


def _overruled(lines: list[Entry]) -> str:
    """Return which lines of a person lost in a merge, and how to settle it."""
    lost = consent.overruled(lines)
    numbers, subject = ", ".join(str(entry.line) for entry in lost), lost[0].subject_id
    return (
        f"line {numbers} ({lost[-1].status}) lost to a line of a later date, whose writer may not have known of it: "
        f"{VERB} revoke {subject}; or, if they do consent, {VERB} add {subject}"
    )


def check() -> tuple[list[str], list[str]]:
    """Check the whole registry; return all problems, and all that is only doubtful (there the answer is no).

    ProjectError is raised if it isn't there, is no text, or its header is wrong: then nothing more can be checked.
    """
    from ..records.consent_table import by_number_of_lines, concat, entries_of, missing_rows, read_tables

    edits.check_required()
    problems: list[ProjectError] = []
    doubts: list[str] = []
    now = datetime.now(UTC)

    def parse(cells: list[str], number: int) -> Entry | None:
        try:
            entry = consent.parse_entry(cells, number, NAME, now)
        except ProjectError as error:
            problems.append(error)
            return None
        where = f"{NAME} line {number}"
        if entry.status == "unknown":
            doubts.append(f"{where}: the status {cells[1]!r} is neither active nor revoked")
        if cells[0] != entry.subject_id:
            doubts.append(f"{where}: {cells[0]!a} is read as {entry.subject_id!r}")
        if entry.since and entry.since > now:
            doubts.append(f"{where}: a withdrawal from {stamp(entry.since)} holds from today")
        return entry

    with consent.open_registry(PATH) as file:
        table = concat(read_tables(file, NAME, now, parse, problems.append))
    _, several = by_number_of_lines(table)
    for person in consent.by_person(entries_of(several)).values():
        doubts += _doubts_of_person(person)
    if problems:
        return [f"{error.problem}. {error.fix}" for error in problems], doubts
    # A registry only grows: compare with the version that DVC or the last commit has, and with those before merges.
    if storage.matches_dvc():
        before = table
    else:
        is_dvcs = DVC_FILE.exists()
        last = storage.tracked_by_dvc() if is_dvcs else _show("HEAD", NAME)
        fix = storage.ADD if is_dvcs else f"if {NAME} is right as it is now: git commit -m 'Correct it' {NAME}"
        before = storage.table_of(last, f"the earlier {NAME}", fix)
    missing = entries_of(missing_rows(before, table))
    lost, unreadable = lost_in_merges(table)
    return [f"{NAME} lacks a line that was there: {describe(entry)}" for entry in missing] + lost, doubts + unreadable


def _doubts_of_person(lines: list[Entry]) -> Iterator[str]:
    where = f"{NAME} line {', '.join(str(entry.line) for entry in lines)}"
    first, *others = sorted({entry.subject_id for entry in lines})
    if others and len({subject.casefold() for subject in (first, *others)}) == 1:
        yield f"{where}: {', '.join((first, *others))} differ in case only, and may be one person"
    elif others:
        pairs = "; ".join(f"{other} has {difference(other, first)}" for other in others)
        yield f"{where}: {', '.join((first, *others))} look alike ({pairs}), and may be one person"
    if consent.overruled(lines):
        yield f"{where}: {first} is {consent.decide(lines)[0]}; {_overruled(lines)}"
    elif consent.decide(lines)[1] is None:
        yield f"{where}: lines of {first} contradict each other"


def lost_in_merges(table: "pa.Table") -> tuple[list[str], list[str]]:
    """Compare the registry with what the merges in the history of HEAD had before them.

    A line is lost if a parent had it, and neither the merge nor the registry has it: the merge took one side's file.
    What a commit took out before the merge was not lost in it. Return the lost lines, and what can't be compared.
    """
    from ..records.consent_table import concat, entries_of, missing_rows

    _table_at.cache_clear()  # since the last call, versions may have been fetched
    lost: dict[str, None] = {}
    unreadable: list[str] = []
    if _git("rev-parse", "--is-shallow-repository") == "true":
        unreadable.append("this clone is shallow, so merges may be cut off its history: git fetch --unshallow")
    # Without --full-history, Git leaves out just those merges that took one side's file.
    paths = (f"./{NAME}", f"./{DVC_FILE.as_posix()}")
    merges = _git("rev-list", "--merges", "--full-history", "--parents", "HEAD", "--", *paths)
    for commit, *parents in map(str.split, merges.splitlines()):
        try:
            present = concat([table, _table_at(commit)])
            for parent, other in permutations(parents, 2):
                base = _table_at(_git("merge-base", parent, other))
                removed = missing_rows(base, _table_at(other))  # on purpose, by a commit of the other side
                for entry in entries_of(missing_rows(missing_rows(_table_at(parent), present), removed)):
                    where = f"of commit {parent[:10]} that the merge {commit[:10]} lost"
                    lost[f"{NAME} lacks a line {where}: {' '.join(filter(None, entry.key))}"] = None
        except ProjectError as error:
            unreadable.append(f"the merge {commit[:10]} can't be compared: {error.problem}. {error.fix}")
    return list(lost), unreadable


@cache
def _table_at(commit: str) -> "pa.Table":
    """Return the lines of the registry at a commit, where it may have none. Raise if DVC's cache lacks the version."""
    content = _show(commit, NAME)
    if not content and (dvc_file := _show(commit, DVC_FILE.as_posix())):
        content = storage.cached(dvc_file.decode(), f"of commit {commit[:10]}", "dvc fetch --all-commits")
    return storage.table_of(content, f"{NAME} of {commit[:10]}", "it stays as it was committed: compare by hand")


def _show(commit: str, path: str) -> bytes:
    """Return a file of a commit; nothing where it has none, or there is no such commit."""
    if not _git("ls-tree", commit, "--", f"./{path}"):
        return b""
    return git("show", f"{commit}:./{path}").encode("utf-8", "surrogateescape")


def _git(*arguments: str) -> str:
    try:
        return git(*arguments)
    except GitError:  # no repository, no commit, no common ancestor: nothing to compare
        return ""

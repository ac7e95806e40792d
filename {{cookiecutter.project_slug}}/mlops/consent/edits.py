"""Append to the consent registry: `consent add`, `consent revoke`.

What is there stays, to the byte; a line is there whole or not at all, whoever is killed; and what a line changes is
known before it is written.
"""

import csv
import difflib
import io
from collections.abc import Iterable
from datetime import UTC, datetime

from filelock import FileLock

from ..errors import ProjectError
from ..records import consent
from ..records.consent import COLUMNS, DOUBT, PATH, Entry
from ..records.ids import difference, id_problem, match_key
from . import storage
from .storage import KEPT, NAME, VERB

ACTIVE, REVOKED = "active", "revoked"


def add(subjects: Iterable[str], at: datetime | None = None, alike: bool = False) -> list[str]:
    """Record that subjects consent; who does already gets no line. The first one makes the registry.

    Args:
        subjects: Their ids.
        at: From when on, with a zone; by default from now on.
        alike: Also an id that looks like another one's: without, it is an error.

    Returns:
        What became of each, a line each.

    Raises:
        ProjectError: The time is in the future, earlier lines outweigh it, a new id looks like another one or has
            hidden characters, or the registry is malformed; nothing is written then.
    """
    names = list(subjects)
    # To withdraw, what an id is read as is enough. A consent must not come back by an id that nobody sees is theirs.
    for fault in filter(None, (id_problem(name.strip()) for name in names if name.strip())):
        raise ProjectError(f"the id {fault}", f"see who consents, then: {VERB} add <their id, as it is in the data>")
    return _append(storage.spelled(names), ACTIVE, at, alike)


def revoke(subjects: Iterable[str], at: datetime | None = None, unlisted: bool = False) -> list[str]:
    """Record that subjects withdraw their consent; who did already gets no line. It holds from today, whatever `at` is.

    Args:
        subjects: Their ids.
        at: From when on, with a zone; by default from now on.
        unlisted: Also those of whom the registry knows nothing: without, a misspelt id is an error.

    Returns:
        What became of each, a line each.

    Raises:
        ProjectError: A subject is not in the registry, a later grant outweighs the withdrawal, or the registry is
            malformed; nothing is written then.
    """
    return _append(storage.spelled(subjects), REVOKED, at, unlisted)


def _append(subjects: list[str], status: str, at: datetime | None, anyway: bool) -> list[str]:
    when = at or datetime.now(UTC)
    if when.tzinfo is None:
        raise ProjectError(f"{when.isoformat()} lacks its time zone", f"add Z (UTC) or an offset: {when.isoformat()}Z")
    with FileLock(storage.lock_path()):
        storage.check_asked()
        new = status == ACTIVE and not PATH.exists() and not KEPT.exists()
        content = f"{','.join(COLUMNS)}\n".encode() if new else storage.read_bytes()
        known = {} if new else consent.by_person(consent.entries(content, NAME))
        needed = [one for one in subjects if not _says(known.get(match_key(one), []), one, status)]
        if not anyway:
            _check_spelled(subjects, known)
        if not anyway and status == REVOKED:
            _check_listed(needed, known)
        content = extended(content, [(one, status, stamp(when)) for one in needed])
        now = consent.by_person(consent.entries(content, NAME)) if needed else known
        if again := [one for one in needed if status == ACTIVE and consent.decide(now[match_key(one)])[0] == DOUBT]:
            # The first grant after a merge looks as if one of its branches had it. Only a second one was written since.
            content = extended(content, [(one, status, stamp(when)) for one in again])
            now = consent.by_person(consent.entries(content, NAME))
        for one in needed:
            _check_took(now[match_key(one)], one, status)
        storage.replace(content)
    return [_told(now[match_key(one)], one, one in needed, status) for one in subjects]


def extended(content: bytes, rows: list[tuple[str, str, str]]) -> bytes:
    """Return a registry with more lines, in its own columns and line ends; what is there is not touched.

    Args:
        content: The registry.
        rows: Subject, status and time of each line.
    """
    if not rows:
        return content
    text = content.decode("utf-8-sig")
    header = next(cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if "".join(cells).strip())
    end = "\r\n" if b"\r\n" in content else "\n" if b"\n" in content or b"\r" not in content else "\r"
    lines = io.StringIO("" if text.endswith(("\n", "\r")) else end, newline="")
    lines.seek(0, io.SEEK_END)
    for row in rows:
        cells = dict(zip(COLUMNS, row, strict=True))
        csv.writer(lines, lineterminator=end).writerow([cells.get(name.strip().lower(), "") for name in header])
    return content + lines.getvalue().encode()


def stamp(time: datetime) -> str:
    """Write a time as the registry has it: UTC, 2025-06-01T00:00:00Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _says(lines: list[Entry], subject: str, status: str) -> bool:
    """Return whether the registry says it already, undoubted. A consent is given for an id as it is spelt."""
    if not lines or consent.decide(lines)[0] != status or consent.overruled(lines):
        return False
    return status == REVOKED or subject in _ids(lines)


def _ids(lines: list[Entry]) -> list[str]:
    return sorted({one.subject_id for one in lines})


def _check_spelled(subjects: list[str], known: dict[str, list[Entry]]) -> None:
    """See that no id is new that looks like one of the registry, or like another one of these."""
    earlier: dict[str, str] = {}
    for subject in subjects:
        lines = known.get(match_key(subject), [])
        if lines and subject not in _ids(lines):
            listed, where = lines[0].subject_id, f"which line {lines[0].line} of {NAME} has"
        elif not lines and (first := earlier.setdefault(match_key(subject), subject)) != subject:
            listed, where = first, "which is named here too"
        else:
            continue
        raise ProjectError(
            f"{subject!r} looks like {listed!r}, {where}: it has {difference(subject, listed)}",
            f"if that is the person, write {listed!r}; if they are two: {VERB} add --alike, or revoke --unlisted "
            "(neither counts as consenting unless both do)",
        )


def _check_listed(subjects: list[str], known: dict[str, list[Entry]]) -> None:
    for subject in subjects:
        if match_key(subject) not in known:
            near = difflib.get_close_matches(match_key(subject), known, n=1)
            meant = f" (did you mean {known[near[0]][0].subject_id!r}?)" if near else ""
            raise ProjectError(
                f"{NAME} does not know {subject!r}{meant}, whose records are left out anyway",
                "correct the id; to record the withdrawal all the same: --unlisted",
            )


def _check_took(lines: list[Entry], subject: str, status: str) -> None:
    found, by = consent.decide(lines)
    if found == status:
        return
    if by:
        raise ProjectError(
            f"line {by.line} of {NAME} is later: {subject} would still be {found}",
            "leave --at out, or give a later time",
        )
    if found == DOUBT:
        latest = max((one.since, one.line) for one in lines if one.since)[1]
        numbers = ", ".join(str(one.line) for one in consent.overruled(lines))
        raise ProjectError(
            f"line {latest} of {NAME} is later: {subject} would still be active by date, in doubt for line {numbers}",
            "leave --at out, or give a time after all their lines",
        )
    raise ProjectError(
        f"{subject} would still count as {found}: the lines of {', '.join(_ids(lines))} contradict each other "
        "(one without a date, two at one time, or ids that look alike)",
        f"see them: {VERB} history {subject}; then date the line without a date, or spell the id as the registry does",
    )


def _told(lines: list[Entry], subject: str, appended: bool, status: str) -> str:
    _, by = consent.decide(lines)
    where = f"line {by.line}" if by else "its lines contradict each other, so the answer is no"
    if not appended:
        return f"{subject} is {status} already ({where}); nothing was written"
    later = bool(by and by.since and by.since > datetime.now(UTC))
    return f"{subject} is {status} ({where}){'; it holds from today, not from that day on' if later else ''}"

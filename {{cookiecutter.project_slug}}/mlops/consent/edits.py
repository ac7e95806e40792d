"""Append to the consent registry: `consent add`, `consent revoke`.

Existing lines never change. A line is written whole or not at all, also when the process is killed. What a line changes
is checked before it is written.
"""

import difflib
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import chain, islice

from filelock import FileLock

from ..config import home, read_params
from ..errors import ProjectError
from ..records import consent
from ..records.consent import DOUBT, PATH, Entry
from ..records.ids import difference, id_problem, match_key, parse_id
from . import storage
from .storage import LOCK, NAME, Form, Row

VERB = "python -m mlops consent"
ACTIVE, REVOKED = "active", "revoked"


def add(subjects: Collection[str], at: datetime | None = None, alike: bool = False) -> list[str]:
    """Record that subjects consent, from a time on (by default now); return the result for each, a line each.

    Who consents already gets no line. The first consent creates the registry. ProjectError is raised, and nothing is
    written, where the time is in the future, earlier lines outweigh it, a new id looks like another one (unless
    `alike`) or has hidden characters, or the registry is malformed.
    """
    # For a withdrawal, the normalized id is enough. Consent must not be given by an id that only looks like theirs.
    for problem in filter(None, (id_problem(subject.strip()) for subject in subjects if subject.strip())):
        raise ProjectError(f"the id {problem}", f"see who consents, then: {VERB} add <their id, as it is in the data>")
    return _append(normalized(subjects), ACTIVE, at, alike)


def revoke(subjects: Iterable[str], at: datetime | None = None, unlisted: bool = False) -> list[str]:
    """Record that subjects withdraw their consent, from a time on (by default now); return the result for each.

    Who withdrew already gets no line. It holds from today, whatever `at` is. ProjectError is raised, and nothing is
    written, where a subject is not in the registry, so may be misspelt (unless `unlisted`), a later grant outweighs the
    withdrawal, or the registry is malformed.
    """
    return _append(normalized(subjects), REVOKED, at, unlisted)


def _append(subjects: list[str], status: str, at: datetime | None, anyway: bool) -> list[str]:
    time = at or datetime.now(UTC)
    with FileLock(home() / LOCK):
        check_required()
        storage.check_current()
        is_first = status == ACTIVE and not PATH.exists()
        known = {} if is_first else consent.persons(PATH, subjects)
        new = []  # of whom the registry does not have this status without doubt
        for subject in subjects:
            lines = known.get(match_key(subject), [])
            # A consent counts for the id as it is spelt.
            has_id = status == REVOKED or subject in {entry.subject_id for entry in lines}
            if not (lines and has_id) or consent.decide(lines)[0] != status or consent.overruled(lines):
                new.append(subject)
        if not anyway:
            _check_ids(subjects, known, status)
        form = Form.of(PATH) if new else Form()
        rows = [(subject, status, stamp(time)) for subject in new]
        persons = _extended(known, rows, form.lines)
        doubtful = [subject for subject in new if consent.decide(persons[match_key(subject)])[0] == DOUBT]
        if status == ACTIVE and doubtful:
            # The first grant after a merge might be from one of its branches. Only a second one is surely later.
            rows += [(subject, status, stamp(time)) for subject in doubtful]
            persons = _extended(known, rows, form.lines)
        results = [_result(persons[match_key(subject)], subject, subject in new, status) for subject in subjects]
        if rows and (moved := storage.keep_out_of_git()):
            results.append(moved)
            form = Form.of(PATH)
        storage.replace(form.text(rows) if rows else b"", append=True)
    return results


def _extended(known: dict[str, list[Entry]], rows: list[Row], lines: int) -> dict[str, list[Entry]]:
    """Return the lines of persons with those that will be appended to a file of so many lines."""
    now = datetime.now(UTC)
    new = (consent.parse_entry(list(row), number, NAME, now) for number, row in enumerate(rows, lines + 1))
    return consent.by_person([*chain.from_iterable(known.values()), *new])


def stamp(time: datetime) -> str:
    """Format a time as the registry has it: UTC, 2025-06-01T00:00:00Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _check_ids(subjects: list[str], known: dict[str, list[Entry]], status: str) -> None:
    """Refuse a new id that looks like one of the registry or of these, and a withdrawal of who is not in it."""
    earlier: dict[str, str] = {}
    for subject in subjects:
        lines = known.get(match_key(subject), [])
        if lines and subject not in {entry.subject_id for entry in lines}:
            other, where = lines[0].subject_id, f"which line {lines[0].line} of {NAME} has"
        elif not lines and (first := earlier.setdefault(match_key(subject), subject)) != subject:
            other, where = first, "which is named here too"
        else:
            continue
        raise ProjectError(
            f"{subject!r} looks like {other!r}, {where}: it has {difference(subject, other)}",
            f"if that is the person, write {other!r}; if they are two: {VERB} add --alike, or revoke --unlisted "
            "(neither counts as consenting unless both do)",
        )
    for subject in (subject for subject in subjects if status == REVOKED and match_key(subject) not in known):
        # Not among all: of a million ids, many are as near, and to compare them takes half a minute.
        keys = (match_key(entry.subject_id) for entry in islice(consent.scan(PATH), 20_000))
        near = difflib.get_close_matches(match_key(subject), keys, n=1)
        hint = f" (did you mean {consent.persons(PATH, near)[near[0]][0].subject_id!r}?)" if near else ""
        problem = f"{NAME} does not know {subject!r}{hint}, whose records are left out anyway"
        raise ProjectError(problem, "correct the id; to record the withdrawal all the same: --unlisted")


def _result(lines: list[Entry], subject: str, is_new: bool, status: str) -> str:
    """Return what the lines of a subject say; raise ProjectError where a new one would not have its effect."""
    result, by = consent.decide(lines)
    where = f"line {by.line}" if by else "its lines contradict each other, so the answer is no"
    if not is_new:
        return f"{subject} is {status} already ({where}); nothing was written"
    if result == status:
        later = by and by.since and by.since > datetime.now(UTC)
        return f"{subject} is {status} ({where}){'; it holds from today, not from that day on' if later else ''}"
    if by:
        problem = f"line {by.line} of {NAME} is later: {subject} would still be {result}"
        fix = "leave --at out, or give a later time"
        if by.since and by.since > datetime.now(UTC):
            fix = f"again after {stamp(by.since)}, its date"
        raise ProjectError(problem, fix)
    if result == DOUBT:
        latest = max((entry.since, entry.line) for entry in lines if entry.since)[1]
        doubt = f"in doubt for line {', '.join(str(entry.line) for entry in consent.overruled(lines))}"
        problem = f"line {latest} of {NAME} is later: {subject} would still be active by date, {doubt}"
        raise ProjectError(problem, "leave --at out, or give a time after all their lines")
    ids = ", ".join(sorted({entry.subject_id for entry in lines}))
    raise ProjectError(
        f"{subject} would still count as {result}: the lines of {ids} contradict each other "
        "(one without a date, two at one time, or ids that look alike)",
        f"see them: {VERB} history {subject}; then date the line without a date, or spell the id as the registry does",
    )


def check_required() -> None:
    """Raise ProjectError where the project requires no consent, and its registry lists nobody."""
    data = read_params().get("data", {})
    if data.get("consent") == consent.NOT_REQUIRED and not consent.has_rows(PATH):
        record = "; in cifar10 a subject is the record itself" if data.get("source") == "cifar10" else ""
        problem = f"no consent is required here (params.yaml:data.consent is {consent.NOT_REQUIRED}{record})"
        fix = f"if the data are of persons: params.yaml:data.consent: required, then {VERB} add <subject>"
        raise ProjectError(problem, fix)


def normalized(subjects: Iterable[str]) -> list[str]:
    """Return ids as the registry has them, each once; raise ProjectError if one is empty, or holds no character."""
    ids = list(dict.fromkeys(map(parse_id, subjects)))
    if "" in ids:
        raise ProjectError("an id is empty", "name the subject as data/manifest.parquet has it")
    return ids

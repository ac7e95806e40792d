"""The consent registry `data/consent.csv`: who allows the use of their records. Who is not in it does not.

    subject_id,consent_status,effective_at
    patient-7,active,2025-01-31T09:00:00+01:00
    patient-7,revoked,2025-06-01T00:00:00Z

Lines are appended, never changed. Consent is given by a person, not for a record. A person's latest line decides,
whatever today's date is: a withdrawal dated in the future holds from today, else the same inputs would give another
dataset tomorrow. In doubt, the answer is no: a tie, a contradiction without dates, a status other than `active`, ids
that look alike and do not all consent.

A merge of two branches can also cause doubt. Each writer appends lines of ascending dates, and sees the lines before
them. So where a person's next line has an earlier date, another writer's lines begin, and the line before was the last
line of its writer; the same holds for the person's last line in the file, if an earlier one has a later date. If such a
last line is a withdrawal and the line with the latest date is a grant, the grant may have been written without knowing
of the withdrawal: the person is "in doubt", and the answer is no. A new line, dated at or after all lines before it,
settles this: a withdrawal, or a grant where the line with the latest date is a grant already.
Where all lines of one branch are dated before those of the other, the file looks as if one writer had made it.
"""

import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..errors import ProjectError
from .consent_line import COLUMNS as COLUMNS
from .consent_line import Entry as Entry
from .consent_line import parse_entry as parse_entry
from .consent_line import parse_time as parse_time
from .csv_reader import NoRowsError, open_file, rows
from .ids import match_key, normalize_id

PATH = Path("data/consent.csv")
LARGE_BYTES = 1 << 20  # from this size on, `consent_table` is faster, though it imports Arrow, which takes 0.2 s

DOUBT = "in doubt"  # the status of a person whose withdrawal was overruled in a merge
NOT_REQUIRED = "not_required"  # in place of the registry's digest, where no consent is needed
ADD_SUBJECTS = (
    "python -m mlops consent add <subject>; or, if the data are of no persons: "
    f"params.yaml:data.consent: {NOT_REQUIRED}"
)
SETTLE = "Settle each: python -m mlops consent revoke <subject>; or, if they do consent, consent add <subject>"


@dataclass(frozen=True, slots=True)
class Registry:
    """The content of a registry, by id."""

    active: frozenset[str]  # who consents
    counts: dict[str, int]  # number of persons by status: active, revoked, unknown, in doubt
    sha256: str  # of the file's bytes
    ended: dict[str, datetime | None] = field(default_factory=dict)  # end of a consent, UTC; None where no line says it
    doubtful: dict[str, tuple[int, ...]] = field(default_factory=dict)  # lines of the withdrawals that lost in a merge

    def allows(self, subject_id: str) -> bool:
        """Return whether the records of this subject may be used."""
        return normalize_id(subject_id) in self.active

    def doubts(self, subjects: Iterable[str]) -> str:
        """Return which of these subjects are in doubt, why, and how to settle it; "" if none is."""
        persons = sorted({person for subject in subjects if (person := normalize_id(subject)) in self.doubtful})
        shown = ", ".join(f"{person} (line {', '.join(map(str, self.doubtful[person]))})" for person in persons[:5])
        more = f", and {len(persons) - 5} more" if len(persons) > 5 else ""
        text = f"in doubt: {len(persons)} subject(s) whose withdrawal lost in a merge: {shown}{more}. {SETTLE}"
        return text if persons else ""


def check_subjects(manifest: Path) -> None:
    """Raise ProjectError unless every subject of a data manifest consents, by the registry as it is now."""
    import pyarrow.parquet as pq

    registry = read(PATH)
    subjects = set(pq.read_table(manifest, columns=["subject_id"])["subject_id"].to_pylist())
    if denied := sorted(subject for subject in subjects if not registry.allows(subject)):
        doubts = registry.doubts(denied)
        problem = f"the dataset holds {len(denied)} subject(s) without consent: {', '.join(denied[:5])}"
        raise ProjectError(problem, f"dvc repro: prepare leaves them out{f'; {doubts}' if doubts else ''}")


def read(path: Path, now: datetime | None = None) -> Registry:
    """Read a registry; `now` is the time, with a zone, after which no grant may be dated, by default the present.

    Raises:
        ProjectError: The file isn't there, is malformed, has no row, a line names nobody, a time is no time or lacks
            its zone, or a grant is dated in the future.
    """
    active, counts = set[str](), Counter[str]()
    ended: dict[str, datetime | None] = {}
    doubtful: dict[str, tuple[int, ...]] = {}
    with open_registry(path) as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
        file.seek(0)
        if is_large(file):
            import pyarrow.compute as pc

            from .consent_table import by_number_of_lines, concat, entries_of, read_tables

            lone, several = by_number_of_lines(concat(read_tables(file, path.as_posix(), now)))
            active.update(lone.filter(pc.equal(lone["status"], "active"))["subject_id"].to_pylist())
            counts.update({pair["values"]: pair["counts"] for pair in lone["status"].value_counts().to_pylist()})
            undecided = entries_of(several)
        else:
            undecided = entries(file.read(), path.as_posix(), now)
    for lines in by_person(undecided).values():
        state, ids = decide(lines)[0], [entry.subject_id for entry in lines]
        counts[state] += 1
        if state == "active":
            active.update(ids)
        elif state == DOUBT:
            doubtful[ids[0]] = tuple(entry.line for entry in overruled(lines))
        elif any(entry.status == "active" for entry in lines):
            # Consent ended with the first denial after the last grant, however often it is denied again.
            granted = [entry.since for entry in lines if entry.since and entry.status == "active"]
            denied = [entry.since for entry in lines if entry.since and entry.status != "active"]
            is_dated = len(granted) + len(denied) == len(lines)
            end = min((time for time in denied if time >= max(granted)), default=min(denied)) if is_dated else None
            ended |= dict.fromkeys(ids, end)
    return Registry(frozenset(active), dict(counts), sha256, ended, doubtful)


@contextmanager
def open_registry(path: Path) -> Iterator[BinaryIO]:
    """Open a registry; raise ProjectError when it isn't there or can't be read.

    NoRowsError, where it is raised inside, says what to do about a registry that lists nobody.
    """
    missing = ProjectError(f"{path.as_posix()} is not there, and data.consent is required", ADD_SUBJECTS)
    try:
        with open_file(path, missing) as file:
            yield file
    except NoRowsError as error:
        raise NoRowsError(f"{path.as_posix()} lists nobody, and data.consent is required", ADD_SUBJECTS) from error


def has_rows(path: Path) -> bool:
    """Return whether a registry has lines below its header, be they malformed."""
    try:
        with open_registry(path) as file:
            next(rows(file, path.as_posix(), COLUMNS))
    except ProjectError as error:
        return path.exists() and not isinstance(error, NoRowsError)
    return True


def is_large(file: BinaryIO) -> bool:
    """Return whether Arrow is worth its import to read this registry."""
    return os.fstat(file.fileno()).st_size >= LARGE_BYTES


def entries(content: bytes, name: str, now: datetime | None = None) -> list[Entry]:
    """Return the lines of a registry, in their order. `name` is the file's, for errors, which are those of `read`."""
    now = now or datetime.now(UTC)
    return [parse_entry(cells, line, name, now) for line, cells in rows(io.BytesIO(content), name, COLUMNS)]


def scan(path: Path, keys: Collection[str] | None = None) -> Iterator[Entry]:
    """Yield the lines of a registry, or of the persons whose ids have these keys (`match_key`), in their order.

    All lines are read and checked, in little memory where they are many. Errors are those of `read`; but a registry
    may have no lines.
    """
    with suppress(NoRowsError), open_registry(path) as file:
        if not is_large(file):
            lines = entries(file.read(), path.as_posix())
            yield from (entry for entry in lines if keys is None or match_key(entry.subject_id) in keys)
            return
        from .consent_table import entries_of, of_persons, read_tables

        for table in read_tables(file, path.as_posix()):
            yield from entries_of(table if keys is None else of_persons(table, keys))


def persons(path: Path, subjects: Iterable[str]) -> dict[str, list[Entry]]:
    """Return the lines of these subjects, and of ids that look like theirs, by person."""
    return by_person(scan(path, {match_key(subject) for subject in subjects}))


def by_person(lines: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group lines by `match_key` of the id: ids that look alike may be one person or two, so they share one answer."""
    persons: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in lines:
        persons[match_key(entry.subject_id)].append(entry)
    return dict(persons)


def decide(lines: list[Entry]) -> tuple[str, Entry | None]:
    """Return the status that a person's lines, in the order of the file, add up to, and the line that decides it.

    No line decides where lines contradict each other: then the status is revoked; or `DOUBT`, where a withdrawal was
    overruled in a merge.
    """
    dated = sorted((entry for entry in lines if entry.since), key=lambda entry: (entry.since, entry.line))
    if len({entry.status for entry in lines}) == 1:
        return lines[0].status, next(iter(dated), lines[0])
    if len(dated) < len(lines) or len({entry.subject_id for entry in lines}) > 1:
        return "revoked", None
    latest = [entry for entry in dated if entry.since == dated[-1].since]
    if len({entry.status for entry in latest}) > 1:
        return "revoked", None
    return (DOUBT, None) if latest[0].status == "active" and overruled(lines) else (latest[0].status, latest[0])


def overruled(lines: list[Entry]) -> list[Entry]:
    """Return the lines of a person that a later date overruled in a merge, and that no later line settles.

    They are withdrawals where the latest line is a grant; elsewhere grants, and the answer is no anyway.
    """
    times = [entry.since for entry in lines if entry.since]
    if len(times) < len(lines) or len({entry.subject_id for entry in lines}) > 1:
        return []
    granted = [entry.status == "active" for entry in lines]
    answer = all(grant for grant, time in zip(granted, times, strict=True) if time == max(times))
    lost: list[Entry] = []
    latest = 0  # the place of the latest line so far
    for place, time in enumerate(times):
        newest = time >= times[latest]
        if newest and (not granted[place] or (place and granted[latest])):
            lost.clear()  # its writer saw them all
        is_last_of_writer = time > times[place + 1] if place + 1 < len(lines) else not newest
        if is_last_of_writer and granted[place] != answer:
            lost.append(lines[place])
        latest = place if newest else latest
    return lost

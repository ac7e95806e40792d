"""The consent registry `data/consent.csv`: who allows the use of their records. Whoever isn't in it does not.

    subject_id,consent_status,effective_at
    patient-7,active,2025-01-31T09:00:00+01:00
    patient-7,revoked,2025-06-01T00:00:00Z

Lines are appended, never changed. Consent is a person's, not a record's. A person's latest line counts, whatever the
clock says: a withdrawal dated in the future holds from today, else the same inputs would give another dataset
tomorrow. In every doubt the answer is no: a tie, a contradiction without dates, a status other than `active`, ids
that look alike and do not all consent.

A merge of two branches is a doubt too. Each writer appends lines of ascending dates, seeing what was before. So where
the next line of a person is dated earlier, another writer's lines begin, and the line before was a writer's last word;
likewise the file's last line of the person, where an earlier one has a later date. If that last word is a withdrawal
and the latest line is a grant, the grant may have been written without knowing of it: the person is "in doubt", which
is no. What settles it is a later line, dated at or after all lines before it, by which somebody who sees them all
says so once more: a withdrawal, or a grant where the latest line is a grant already.
Where all lines of one branch are dated before those of the other, the file looks as if one writer had made it.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from ..errors import ProjectError
from ..pipeline import require_dep
from .csv_reader import open_file, rows
from .ids import match_key, normalize_id, unassigned
from .source import Record

PATH = Path("data/consent.csv")
COLUMNS = ("subject_id", "consent_status", "effective_at")

DOUBT = "in doubt"  # the status of a person whose withdrawal lost in a merge

NOT_REQUIRED = "not_required"  # what stands in place of the digest where nobody's consent is asked


SETTLE = "Settle each: python -m mlops consent revoke <subject>; or, if they do consent, consent add <subject>"


@dataclass(frozen=True, slots=True)
class Registry:
    """What a registry says.

    Args:
        active: The ids of those who consent.
        counts: How many persons have which status: active, revoked, unknown, or in doubt.
        sha256: Digest of the file's bytes, in hexadecimal.
        ended: Since when those do not consent, UTC, who once did; None where no line tells. By id.
        doubtful: The numbers of the withdrawals that lost in a merge, of those who are in doubt. By id.
    """

    active: frozenset[str]
    counts: dict[str, int]
    sha256: str
    ended: dict[str, datetime | None] = field(default_factory=dict)
    doubtful: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def allows(self, subject_id: str) -> bool:
        """Say whether the records of this subject may be used."""
        return normalize_id(subject_id) in self.active

    def doubts(self, subjects: Iterable[str]) -> str:
        """Tell which of these subjects are in doubt, why, and how that is settled; nothing if none is."""
        persons = sorted({normalize_id(subject) for subject in subjects} & self.doubtful.keys())
        shown = ", ".join(f"{person} (line {', '.join(map(str, self.doubtful[person]))})" for person in persons[:5])
        more = f", and {len(persons) - 5} more" if len(persons) > 5 else ""
        told = f"in doubt: {len(persons)} subject(s) whose withdrawal lost in a merge: {shown}{more}. {SETTLE}"
        return told if persons else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a registry.

    Args:
        line: Its number, from 1; of an entry that goes over several lines, the last.
        subject_id: In plain form.
        status: active, revoked, or unknown.
        since: When it took effect, UTC; None where the line does not say.
    """

    line: int
    subject_id: str
    status: str
    since: datetime | None


@dataclass(frozen=True)
class Consented:
    """The records that may be used.

    Args:
        records: In their order.
        excluded: How many were left out.
        sha256: Digest of the registry that decided; `NOT_REQUIRED` where none did.
    """

    records: list[Record]
    excluded: int
    sha256: str


def with_consent(records: list[Record], rule: str) -> Consented:
    """Leave out the records of subjects without consent; those in doubt are printed.

    Args:
        records: What `read_records` returned.
        rule: `required`, and `data/consent.csv` decides; or `not_required`.

    Raises:
        ProjectError: The registry isn't there or is malformed, or DVC does not watch it.
    """
    if rule == NOT_REQUIRED:
        return Consented(records, 0, rule)
    require_dep(PATH.as_posix())
    registry = read(PATH)
    if doubts := registry.doubts(record.subject_id for record in records):
        print(f"Left out, {doubts}")
    allowed = [record for record in records if registry.allows(record.subject_id)]
    return Consented(allowed, len(records) - len(allowed), registry.sha256)


def check_manifest(path: Path) -> None:
    """Check every subject of a data manifest against the registry as it is now.

    Raises:
        ProjectError: One has no consent, or the registry can't be read.
    """
    registry = read(PATH)
    subjects = set(pq.read_table(path, columns=["subject_id"])["subject_id"].to_pylist())
    denied = sorted(subject for subject in subjects if not registry.allows(subject))
    if denied:
        doubts = registry.doubts(denied)
        raise ProjectError(
            f"the dataset holds {len(denied)} subject(s) without consent: {', '.join(denied[:5])}",
            f"dvc repro: prepare leaves them out{f'; {doubts}' if doubts else ''}",
        )


def read(path: Path, now: datetime | None = None) -> Registry:
    """Read a registry.

    Args:
        path: The CSV file.
        now: The time, with a zone, after which no grant may be dated; by default the present.

    Raises:
        ProjectError: The file isn't there, is malformed, has no row, a line names nobody, a time is no time or lacks
            its zone, or a grant is dated in the future.
    """
    content = load(path)
    persons = by_person(entries(content, path.as_posix(), now))
    states = {person: decide(lines)[0] for person, lines in persons.items()}
    active = {entry.subject_id for person in states if states[person] == "active" for entry in persons[person]}
    ended = {
        one.subject_id: _ended(lines)
        for person, lines in persons.items()
        if states[person] not in ("active", DOUBT) and any(one.status == "active" for one in lines)
        for one in lines
    }
    lost = {lines[0].subject_id: overruled(lines) for person, lines in persons.items() if states[person] == DOUBT}
    doubtful = {subject: tuple(one.line for one in lines) for subject, lines in lost.items()}
    sha256 = hashlib.sha256(content).hexdigest()
    return Registry(frozenset(active), dict(Counter(states.values())), sha256, ended, doubtful)


def _ended(lines: list[Entry]) -> datetime | None:
    """Return when a consent ended: at the first denial after the last grant, however often it is denied again."""
    if not all(one.since for one in lines):
        return None
    granted = max(one.since for one in lines if one.since and one.status == "active")
    denied = [one.since for one in lines if one.since and one.status != "active"]
    return min((time for time in denied if time >= granted), default=min(denied))


def load(path: Path) -> bytes:
    """Return a registry's bytes.

    Raises:
        ProjectError: The file isn't there or can't be read.
    """
    try:
        with open_file(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise ProjectError(
            f"{path.as_posix()} is not there, and data.consent is required",
            f"write it, with the columns {','.join(COLUMNS)}; or, if nobody stands behind the data, "
            "set params.yaml:data.consent to not_required",
        ) from error
    except OSError as error:
        raise ProjectError(
            f"{path.as_posix()} can't be read: {error.strerror}", "put a file there that you may read"
        ) from error


def entries(content: bytes, name: str, now: datetime | None = None) -> list[Entry]:
    """Return the lines of a registry, in their order; `name` is the file's, for errors, which are those of `read`."""
    now = now or datetime.now(UTC)
    return [entry(cells, line, name, now) for line, cells in rows(io.BytesIO(content), name, COLUMNS)]


def by_person(lines: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Gather the lines of each person, by `fold` of the id.

    Ids that look alike may be one person or two: nobody can tell, so they share one answer.
    """
    persons: defaultdict[str, list[Entry]] = defaultdict(list)
    for one in lines:
        persons[match_key(one.subject_id)].append(one)
    return dict(persons)


def decide(lines: list[Entry]) -> tuple[str, Entry | None]:
    """Return the one status that all of a person's lines add up to, and the line that decides.

    No line decides where they contradict each other: then the status is revoked; or `DOUBT`, where a withdrawal lost
    in a merge.

    Args:
        lines: In the order of the file.
    """
    dated = sorted((one for one in lines if one.since), key=lambda one: (one.since, one.line))
    if len({one.status for one in lines}) == 1:
        return lines[0].status, next(iter(dated), lines[0])
    if len(dated) < len(lines) or len({one.subject_id for one in lines}) > 1:
        return "revoked", None
    latest = [one for one in dated if one.since == dated[-1].since]
    if len({one.status for one in latest}) > 1:
        return "revoked", None
    return (DOUBT, None) if latest[0].status == "active" and overruled(lines) else (latest[0].status, latest[0])


def overruled(lines: list[Entry]) -> list[Entry]:
    """Return the last words of writers that lost to a later date in a merge, and that no later line settles.

    Args:
        lines: Of one person, in the order of the file. Withdrawals are returned where the latest line is a grant, and
            grants where it is none: there the answer is no anyway.
    """
    times = [one.since for one in lines if one.since]
    if len(times) < len(lines) or len({one.subject_id for one in lines}) > 1:
        return []
    granted = [one.status == "active" for one in lines]
    answer = all(grant for grant, time in zip(granted, times, strict=True) if time == max(times))
    lost: list[Entry] = []
    latest = 0  # the place of the latest line so far
    for place, time in enumerate(times):
        newest = time >= times[latest]
        if newest and (not granted[place] or (place and granted[latest])):
            lost.clear()  # its writer saw them all
        is_last_word = time > times[place + 1] if place + 1 < len(lines) else not newest
        if is_last_word and granted[place] != answer:
            lost.append(lines[place])
        latest = place if newest else latest
    return lost


def entry(cells: list[str], line: int, name: str, now: datetime) -> Entry:
    """Make an entry of the cells of a line, in the order of `COLUMNS`.

    Raises:
        ProjectError: It names nobody, its time is no time or lacks its zone, or a grant is dated after `now`.
    """
    where = f"{name} line {line}"
    subject_id, status, when = (normalize_id(cell) for cell in cells)
    if not subject_id:
        raise ProjectError(f"{where} names no subject", "fill in its subject_id, or take the line out")
    if unknown := unassigned(subject_id):
        raise ProjectError(f"{where}: subject_id {subject_id!a} holds {unknown}", "write it as it is in the data")
    status = status.lower() if status.lower() in ("active", "revoked") else "unknown"
    since = time_of(when, f"{where}: effective_at") if when else None
    if status == "active" and since and since > now:
        raise ProjectError(
            f"{where}: a consent from {when} on, which is in the future, can't be used yet",
            "take the line out, and append it again when that day has come",
        )
    return Entry(line, subject_id, status, since)


def time_of(text: str, where: str) -> datetime:
    """Read a time, which must have a zone; `where` it stands is told in errors.

    Raises:
        ProjectError: It is no time, or lacks its zone.
    """
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ProjectError(f"{where} {text!r} is not a time", "write it like 2025-06-01T00:00:00Z") from error
    raise ProjectError(f"{where} {text!r} lacks its time zone", f"add Z (UTC) or an offset: {text}Z")

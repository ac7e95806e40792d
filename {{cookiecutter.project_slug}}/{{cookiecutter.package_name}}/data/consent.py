"""The consent registry `data/consent.csv`: who allows the use of their records. Whoever isn't in it does not.

    subject_id,consent_status,effective_at
    patient-7,active,2025-01-31T09:00:00+01:00
    patient-7,revoked,2025-06-01T00:00:00Z

Lines are appended, never changed. Consent is a person's, not a record's. A person's latest line counts, whatever the
clock says: a withdrawal dated in the future holds from today, else the same inputs would give another dataset
tomorrow. In every doubt the answer is no: a tie, a contradiction without dates, a status other than `active`.
"""

import hashlib
import io
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..errors import ProjectError
from .sources import plain_form
from .tables import rows

COLUMNS = ("subject_id", "consent_status", "effective_at")

NOT_REQUIRED = "not_required"  # what stands in place of the digest where nobody's consent is asked


@dataclass(frozen=True, slots=True)
class Registry:
    """What a registry says.

    Args:
        active: The ids of those who consent.
        counts: How many persons have which status: active, revoked, or unknown.
        sha256: Digest of the file's bytes, in hexadecimal.
        ended: Since when those do not consent, UTC, who once did; None where no line tells. By id.
    """

    active: frozenset[str]
    counts: dict[str, int]
    sha256: str
    ended: dict[str, datetime | None] = field(default_factory=dict)

    def allows(self, subject_id: str) -> bool:
        """Say whether the records of this subject may be used."""
        return plain_form(subject_id) in self.active


@dataclass(frozen=True, slots=True)
class _Entry:
    subject_id: str
    status: str
    since: datetime | None


def read(path: Path, now: datetime | None = None) -> Registry:
    """Read a registry.

    Args:
        path: The CSV file.
        now: The time, with a zone, after which no grant may be dated; by default the present.

    Raises:
        ProjectError: The file isn't there, is malformed, has no row, a line names nobody, a time is no time or lacks
            its zone, or a grant is dated in the future.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ProjectError(
            f"{path.as_posix()} is not there, and data.consent is required",
            f"write it, with the columns {','.join(COLUMNS)}; or, if nobody stands behind the data, "
            "set params.yaml:data.consent to not_required",
        ) from error
    persons: defaultdict[str, list[_Entry]] = defaultdict(list)
    for line, cells in rows(io.BytesIO(content), path.as_posix(), COLUMNS):
        entry = _entry(cells, f"{path.as_posix()} line {line}", now or datetime.now(UTC))
        # Ids that differ in case only may be one person or two: nobody can tell, so they share one answer.
        persons[entry.subject_id.casefold()].append(entry)
    states = {person: _status(entries) for person, entries in persons.items()}
    active = {entry.subject_id for person in states if states[person] == "active" for entry in persons[person]}
    ended = {
        entry.subject_id: _ended(entries)
        for person, entries in persons.items()
        if states[person] != "active" and any(entry.status == "active" for entry in entries)
        for entry in entries
    }
    return Registry(frozenset(active), dict(Counter(states.values())), hashlib.sha256(content).hexdigest(), ended)


def _ended(entries: list[_Entry]) -> datetime | None:
    """Return when a consent ended: at the first denial after the last grant, however often it is denied again."""
    times = [entry.since for entry in entries if entry.since]
    if len(times) < len(entries):
        return None
    granted = max(entry.since for entry in entries if entry.since and entry.status == "active")
    denied = [entry.since for entry in entries if entry.since and entry.status != "active"]
    return min((time for time in denied if time >= granted), default=min(denied))


def _status(entries: list[_Entry]) -> str:
    """Return the one status that all of a person's lines add up to."""
    statuses = {entry.status for entry in entries}
    if len(statuses) == 1:
        return statuses.pop()
    times = [entry.since for entry in entries if entry.since]
    if len(times) < len(entries) or len({entry.subject_id for entry in entries}) > 1:
        return "revoked"
    latest = {entry.status for entry in entries if entry.since == max(times)}
    return latest.pop() if len(latest) == 1 else "revoked"


def _entry(cells: list[str], where: str, now: datetime) -> _Entry:
    subject_id, status, when = (plain_form(cell) for cell in cells)
    if not subject_id:
        raise ProjectError(f"{where} names no subject", "fill in its subject_id, or take the line out")
    status = status.lower() if status.lower() in ("active", "revoked") else "unknown"
    since = _time(when, where) if when else None
    if status == "active" and since and since > now:
        raise ProjectError(
            f"{where}: a consent from {when} on, which is in the future, can't be used yet",
            "take the line out, and append it again when that day has come",
        )
    return _Entry(subject_id, status, since)


def _time(text: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ProjectError(
            f"{where}: effective_at {text!r} is not a time", "write it like 2025-06-01T00:00:00Z"
        ) from error
    raise ProjectError(f"{where}: effective_at {text!r} lacks its time zone", f"add Z (UTC) or an offset: {text}Z")

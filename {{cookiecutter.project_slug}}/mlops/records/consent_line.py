"""A line of the consent registry: what it says, and when it is refused. `consent.py` has the rules for many."""

from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import ProjectError
from .ids import id_flaw, normalize_id, shown

COLUMNS = ("subject_id", "consent_status", "effective_at")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a registry."""

    line: int  # its number, from 1; of an entry that spans several lines, the last
    subject_id: str  # as `normalize_id` writes it
    status: str  # active, revoked, or unknown
    since: datetime | None  # when it took effect, UTC; None where the line does not say

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what the line says, to compare it and to sort by it."""
        return self.subject_id, self.since.isoformat() if self.since else "", self.status


def parse_entry(cells: list[str], line: int, name: str, now: datetime) -> Entry:
    """Make an entry from the cells of a line, in the order of `COLUMNS`; raise as `consent.read` does."""
    where = f"{name} line {line}"
    subject_id, status, when = (normalize_id(cell) for cell in cells)
    if not subject_id:
        raise ProjectError(f"{where} names no subject", "fill in its subject_id, or take the line out")
    if flaw := id_flaw(subject_id):
        raise ProjectError(f"{where}: subject_id {shown(subject_id)} {flaw}", "write it as it is in the data")
    status = status.lower() if status.lower() in ("active", "revoked") else "unknown"
    since = parse_time(when, f"{where}: effective_at") if when else None
    if status == "active" and since and since > now:
        problem = f"{where}: a consent from {when} on, which is in the future, can't be used yet"
        raise ProjectError(problem, "take the line out, and append it again when that day has come")
    return Entry(line, subject_id, status, since)


def parse_time(text: str, where: str) -> datetime:
    """Parse a time as UTC; raise ProjectError, with `where` it stands, when it is none or lacks its zone."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        fix = "write it like 2025-06-01T00:00:00Z (UTC), or with an offset, 2025-06-01T02:00:00+02:00"
        raise ProjectError(f"{where} {shown(text)} is not a time", fix) from error
    lacking = "its time zone" if len(text) > 10 else "the time of day, and its zone"
    fix = f"in UTC, write {time.isoformat()}Z; else an offset in place of Z, such as +02:00"
    raise ProjectError(f"{where} {text!r} lacks {lacking}", fix)

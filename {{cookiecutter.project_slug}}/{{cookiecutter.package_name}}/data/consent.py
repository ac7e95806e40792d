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
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..errors import ProjectError
from .sources import plain_form
from .tables import read_file, rows

PATH = Path("data/consent.csv")
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
        if states[person] != "active" and any(one.status == "active" for one in lines)
        for one in lines
    }
    return Registry(frozenset(active), dict(Counter(states.values())), hashlib.sha256(content).hexdigest(), ended)


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
        return read_file(path)
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
    """Gather the lines of each person.

    Ids that differ in case only may be one person or two: nobody can tell, so they share one answer.
    """
    persons: defaultdict[str, list[Entry]] = defaultdict(list)
    for one in lines:
        persons[one.subject_id.casefold()].append(one)
    return dict(persons)


def decide(lines: list[Entry]) -> tuple[str, Entry | None]:
    """Return the one status that all of a person's lines add up to, and the line that decides.

    No line decides where they contradict each other: then the status is revoked.
    """
    dated = sorted((one for one in lines if one.since), key=lambda one: (one.since, one.line))
    if len({one.status for one in lines}) == 1:
        return lines[0].status, next(iter(dated), lines[0])
    if len(dated) < len(lines) or len({one.subject_id for one in lines}) > 1:
        return "revoked", None
    latest = [one for one in dated if one.since == dated[-1].since]
    return (latest[0].status, latest[0]) if len({one.status for one in latest}) == 1 else ("revoked", None)


def entry(cells: list[str], line: int, name: str, now: datetime) -> Entry:
    """Make an entry of the cells of a line, in the order of `COLUMNS`.

    Raises:
        ProjectError: It names nobody, its time is no time or lacks its zone, or a grant is dated after `now`.
    """
    where = f"{name} line {line}"
    subject_id, status, when = (plain_form(cell) for cell in cells)
    if not subject_id:
        raise ProjectError(f"{where} names no subject", "fill in its subject_id, or take the line out")
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

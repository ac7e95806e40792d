"""Ask the consent registry, and see that it is in order: `consent status`, `history`, `check`."""

from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO

from ..errors import ProjectError
from ..records import consent
from ..records.consent import COLUMNS, DOUBT, PATH, Entry
from ..records.csv_reader import rows
from ..records.ids import difference, match_key
from . import merges, storage
from .edits import stamp
from .storage import KEPT, NAME, VERB

MISSING = "missing"


def status(subjects: Iterable[str]) -> list[str]:
    """Tell of each subject whether its records may be used, and which line decides."""
    known = _known()
    return [_status(subject, known.get(match_key(subject), [])) for subject in storage.spelled(subjects)]


def history(subject: str) -> list[str]:
    """Tell all lines of a subject in the order of the file, and what they add up to."""
    subject = storage.spelled([subject])[0]
    lines = _known().get(match_key(subject), [])
    return [*(f"line {one.line}: {_line(one)}" for one in lines), _status(subject, lines)]


def _known() -> dict[str, list[Entry]]:
    return consent.by_person(consent.entries(storage.read_bytes(), NAME))


def _status(subject: str, lines: list[Entry]) -> str:
    if not lines:
        return f"{subject}: {MISSING}; who is not listed has not consented"
    found, by = consent.decide(lines)
    if found == DOUBT:
        return f"{subject}: {DOUBT}, so the answer is no; {_lost(lines)}"
    if not by:
        numbers = ", ".join(str(one.line) for one in lines)
        return f"{subject}: {found}; no line decides: {numbers} contradict each other, so the answer is no"
    if found == "active" and subject not in {one.subject_id for one in lines}:
        return f"{subject}: {MISSING}; line {by.line} is of {by.subject_id}, and ids are spelt exactly"
    return f"{subject}: {found} by line {by.line}: {_line(by)}"


def _line(entry: Entry) -> str:
    return f"{entry.subject_id} {entry.status} {'from ' + stamp(entry.since) if entry.since else 'without a date'}"


def check() -> tuple[list[str], list[str]]:
    """Read the whole registry.

    Returns:
        All that is wrong, and all that is only doubtful (there the answer is no), a line each.

    Raises:
        ProjectError: It isn't there, is no text, or its header is wrong: nothing more can be said then.
    """
    storage.check_asked()
    content = consent.load(PATH)
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProjectError(f"{NAME} line {line} is not UTF-8", f"save {NAME} as CSV in UTF-8") from error
    problems: list[ProjectError] = []
    found: list[Entry] = []
    now = datetime.now(UTC)
    doubts: list[str] = []
    for line, cells in rows(BytesIO(content), NAME, COLUMNS, problems.append):
        try:
            found.append(consent.entry(cells, line, NAME, now))
        except ProjectError as error:
            problems.append(error)
        else:
            doubts += _doubts_of_line(cells, found[-1], now)
    doubts += _doubts_of_persons(found)
    if problems:
        return [f"{error.problem}. {error.fix}" for error in problems], doubts
    lost, unread = merges.lost(content)
    return _gone(content) + lost, doubts + unread


def _doubts_of_line(cells: list[str], entry: Entry, now: datetime) -> list[str]:
    where = f"{NAME} line {entry.line}"
    doubts = []
    if entry.status == "unknown":
        doubts.append(f"{where}: the status {cells[1]!r} is neither active nor revoked")
    if cells[0] != entry.subject_id:
        doubts.append(f"{where}: {cells[0]!a} is read as {entry.subject_id!r}")
    if entry.since and entry.since > now:
        doubts.append(f"{where}: a withdrawal from {stamp(entry.since)} holds from today")
    return doubts


def _doubts_of_persons(found: list[Entry]) -> list[str]:
    doubts = []
    for lines in consent.by_person(found).values():
        where = f"{NAME} line {', '.join(str(one.line) for one in lines)}"
        if len(spelt := sorted({one.subject_id for one in lines})) > 1:
            doubts.append(f"{where}: {_alike(spelt)}, and may be one person")
        if consent.overruled(lines):
            doubts.append(f"{where}: {spelt[0]} is {consent.decide(lines)[0]}; {_lost(lines)}")
        elif consent.decide(lines)[1] is None:
            doubts.append(f"{where}: lines of {spelt[0]} contradict each other")
    return doubts


def _alike(spelt: list[str]) -> str:
    if len({one.casefold() for one in spelt}) == 1:
        return f"{', '.join(spelt)} differ in case only"
    pairs = (f"{other} has {difference(other, spelt[0])}" for other in spelt[1:])
    return f"{', '.join(spelt)} look alike ({'; '.join(pairs)})"


def _lost(lines: list[Entry]) -> str:
    """Tell which lines of a person lost in a merge, and what settles it."""
    lost = consent.overruled(lines)
    numbers, subject = ", ".join(str(one.line) for one in lost), lost[0].subject_id
    return (
        f"line {numbers} ({lost[-1].status}) lost to a line of a later date, whose writer may not have known of it: "
        f"{VERB} revoke {subject}; or, if they do consent, {VERB} add {subject}"
    )


def _gone(content: bytes) -> list[str]:
    """Tell the lines that were there before, as far as Git or DVC knows: a registry only grows."""
    before = storage.kept_by_dvc() if KEPT.exists() else storage.committed()
    return [f"{NAME} lacks a line that was there: {_line(one)}" for one in storage.lost(before or content, content)]

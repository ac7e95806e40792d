"""What a source of data gives: records with text ids, each able to read its own content."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tqdm import tqdm

from ..errors import ProjectError
from .ids import difference, id_problem, match_key


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled record. Its ids mean it for ever: original positions, or ids of your own.

    Args:
        record_id: Names the record; unique in its source.
        subject_id: Names the person (or the thing) that the record is of, to whom consent and split apply.
        label: The name of its class.
        read: Returns its content, such as an encoded image; called once at most, and only for a record that is kept.
        origin: Where the record is written down, for errors.
    """

    record_id: str
    subject_id: str
    label: str
    read: Callable[[], bytes]
    origin: str


def read_records(found: Iterable[Record], source: str) -> list[Record]:
    """Gather a source's records, and check their ids, without reading any content.

    Subject ids that look alike in ASCII are printed.

    Args:
        found: What the source yields.
        source: Its name, for errors.

    Raises:
        ProjectError: An id or a label is empty or not in plain form, a `record_id` appears twice, two subject ids of
            which one is not ASCII look alike, or there are no records.
    """
    records: dict[str, Record] = {}
    problems: list[str] = []
    for record in tqdm(found, desc=f"Records of {source}", unit=" records", delay=2):
        faults = ((column, id_problem(getattr(record, column))) for column in ("record_id", "subject_id", "label"))
        if fault := next((f"{column} {fault}" for column, fault in faults if fault), ""):
            problems.append(f"{record.origin}: {fault}")
        elif (first := records.setdefault(record.record_id, record)) is not record:
            problems.append(f"{record.origin}: record_id {record.record_id!r} was given before, at {first.origin}")
    pairs = look_alikes(records.values())
    problems += [_alike(*pair) for pair in pairs if not is_ascii(*pair)]
    refuse(problems, "correct these records where they are written down; nothing was changed")
    if not records:
        raise ProjectError(f"the source {source} has no records", "choose another one: params.yaml:data.source")
    if pairs:
        more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        print(f"May be one person, or two: {_alike(*pairs[0])}{more}")
    return list(records.values())


def look_alikes(records: Iterable[Record]) -> list[tuple[Record, Record]]:
    """Return records of subjects whose ids look like an earlier one's: the first record of each, the earlier first."""
    subjects: dict[str, Record] = {}
    for record in records:
        subjects.setdefault(record.subject_id, record)
    earlier: dict[str, Record] = {}
    pairs = ((earlier.setdefault(match_key(subject), record), record) for subject, record in subjects.items())
    return [(first, record) for first, record in pairs if first is not record]


def is_ascii(first: Record, second: Record) -> bool:
    """Say whether both subject ids are ASCII."""
    return first.subject_id.isascii() and second.subject_id.isascii()


def _alike(first: Record, second: Record) -> str:
    one, other = first.subject_id, second.subject_id
    return (
        f"{second.origin}: subject_id {other!r} looks like {one!r}, at {first.origin} (it has {difference(other, one)})"
    )


def refuse(problems: list[str], fix: str) -> None:
    """Raise one error that counts all problems and tells the first, if there are any.

    Raises:
        ProjectError: There are problems.
    """
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:5])
        more = f"\n  … and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ProjectError(f"bad records: {len(problems)}{listed}{more}", fix)

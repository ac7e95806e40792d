"""What a source of data yields: records with text ids, of which those with consent go into the dataset."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tqdm import tqdm

from ..errors import ProjectError
from ..pipeline import require_dep
from . import consent
from .ids import difference, id_problem, match_key


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled record. Its ids never change their meaning: use original positions, or ids of your own.

    Args:
        record_id: Names the record; unique in its source.
        subject_id: Names the person (or the thing) that the record is of, to whom consent and split apply.
        label: The name of its class.
        read: Returns its content, such as an encoded image; called at most once, and only for a record that is used.
        origin: Where the record is defined, for errors.
    """

    record_id: str
    subject_id: str
    label: str
    read: Callable[[], bytes]
    origin: str


@dataclass(frozen=True)
class Consented:
    """The records that may be used, and how many were left out."""

    records: list[Record]
    excluded: int
    sha256: str  # of the registry that decided; `consent.NOT_REQUIRED` where none did


def read_records(candidates: Iterable[Record], source: str) -> list[Record]:
    """Collect a source's records, and check their ids, without reading any content.

    Subject ids that look alike in ASCII are printed.

    Args:
        candidates: What the source yields.
        source: Its name, for errors.

    Raises:
        ProjectError: An id or a label is empty or not in normal form, a `record_id` appears twice, two subject ids look
            alike of which one is not ASCII, or there are no records.
    """
    records: dict[str, Record] = {}
    subjects: dict[str, Record] = {}  # the first record of each
    problems: list[str] = []
    for record in tqdm(candidates, desc=f"Records of {source}", unit=" records", delay=2):
        columns = ((name, id_problem(getattr(record, name))) for name in ("record_id", "subject_id", "label"))
        if problem := next((f"{name} {problem}" for name, problem in columns if problem), ""):
            problems.append(f"{record.origin}: {problem}")
        elif (first := records.setdefault(record.record_id, record)) is not record:
            problems.append(f"{record.origin}: record_id {record.record_id!r} was given before, at {first.origin}")
        else:
            subjects.setdefault(record.subject_id, record)
    earlier: dict[str, Record] = {}  # the first record of the subjects that look alike
    alike = ((earlier.setdefault(match_key(subject), record), record) for subject, record in subjects.items())
    pairs = [(first, record) for first, record in alike if first is not record]
    problems += [_describe(*pair) for pair in pairs if not all(record.subject_id.isascii() for record in pair)]
    raise_problems(problems, "correct these records where they are defined; nothing was changed")
    if not records:
        raise ProjectError(f"the source {source} has no records", "choose another one: params.yaml:data.source")
    if pairs:
        more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        print(f"May be one person, or two: {_describe(*pairs[0])}{more}")
    return list(records.values())


def with_consent(records: list[Record], rule: str) -> Consented:
    """Leave out the records of subjects without consent; print those in doubt.

    Args:
        records: What `read_records` returned, or a part of it.
        rule: `required`: `data/consent.csv` decides; or `not_required`.

    Raises:
        ProjectError: The registry isn't there or is malformed, or `dvc.yaml` does not name it.
    """
    if rule == consent.NOT_REQUIRED:
        return Consented(records, 0, rule)
    require_dep(consent.PATH.as_posix())
    registry = consent.read(consent.PATH)
    if doubts := registry.doubts(record.subject_id for record in records):
        print(f"Left out, {doubts}")
    allowed = [record for record in records if registry.allows(record.subject_id)]
    return Consented(allowed, len(records) - len(allowed), registry.sha256)


def raise_problems(problems: list[str], fix: str) -> None:
    """Raise one error that counts all problems and shows the first five, if there are any."""
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:5])
        more = f"\n  … and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ProjectError(f"bad records: {len(problems)}{listed}{more}", fix)


def _describe(first: Record, second: Record) -> str:
    old, new = first.subject_id, second.subject_id
    return f"{second.origin}: subject_id {new!r} looks like {old!r}, at {first.origin} (it has {difference(new, old)})"

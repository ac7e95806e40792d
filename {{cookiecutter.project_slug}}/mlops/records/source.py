"""What a source of data yields: records with text ids, of which those with consent go into the dataset."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol
from urllib.parse import quote

from tqdm import tqdm

from ..errors import ProjectError
from ..pipeline import require_dep
from . import consent
from .hashing import uniform_hash
from .ids import difference, id_problem, match_key, normalize_id

SPLITS = ("train", "val", "test")
SLICES = 20  # of a source of which a fraction is used: each is a delivery


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled record. Its ids never change their meaning: use original positions, or ids of your own.

    Args:
        record_id: Names the record; unique in its source.
        subject_id: Names the person (or the thing) that the record is of, to whom consent and split apply.
        label: The name of its class.
        content: Where its content is, such as a path: the source's `read` turns it into bytes.
        origin: Where the record is defined, for errors.
        delivery: Names the records that came together, such as `2026-11`: they are stored together.
        split: `train`, `val` or `test`, where the source says so; else a hash of the subject decides.
    """

    record_id: str
    subject_id: str
    label: str
    content: str
    origin: str
    delivery: str = ""
    split: str = ""


class Source(Protocol):
    """A module that yields records: `data/<name>.py` of the team's package."""

    __name__: str

    def records(self) -> Iterable[Record]:
        """Yield all records, without reading any content."""

    def read(self, content: str) -> bytes:
        """Return the bytes, such as an encoded image, of `Record.content`; threads call it at the same time.

        It is called for records that are used, once each. A ProjectError says what is wrong; the record's `origin`
        comes before it.
        """


class Records:
    """The records of a source, in a table that lies on disk: ten million need no memory.

    Attributes:
        table: The SQLite database. Its table `records` has the fields of `Record`, and `allowed`.
        source: Where they come from.
        consent_sha256: Digest of the registry that decided; `consent.NOT_REQUIRED` where none did.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.consent_sha256 = consent.NOT_REQUIRED
        self.table = sqlite3.connect("")  # a file that SQLite makes for what its cache can't hold, and deletes
        self.table.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -65536;"  # KiB
            "CREATE TABLE records (record_id, subject_id, label, content, origin, delivery, split, allowed DEFAULT 1)"
        )

    def count(self) -> int:
        """Return the number of records that may be used."""
        return int(self._number("SELECT COUNT(*) FROM records WHERE allowed"))

    def excluded(self) -> int:
        """Return the number of records that are left out for lack of consent."""
        return int(self._number("SELECT COUNT(*) FROM records WHERE NOT allowed"))

    def by_split(self) -> dict[str, int]:
        """Return the number of records that may be used, by split."""
        counts = dict(self.table.execute("SELECT split, COUNT(*) FROM records WHERE allowed GROUP BY split"))
        return {split: counts[split] for split in SPLITS if split in counts}

    def count_subjects(self) -> int:
        """Return the number of subjects whose records may be used."""
        return int(self._number("SELECT COUNT(DISTINCT subject_id) FROM records WHERE allowed"))

    def _number(self, query: str) -> Any:
        return self.table.execute(query).fetchone()[0]


class Problems:
    """Counts what is wrong with records, and keeps the first five for the error, each with its fix or that of all."""

    def __init__(self, fix: str = "") -> None:
        self.fix, self.count, self.first, self.fixes = fix, 0, list[str](), dict[str, None]()

    def add(self, problem: str, fix: str = "") -> None:
        """Count a problem."""
        self.count += 1
        if len(self.first) < 5:
            self.first.append(problem)
            self.fixes[fix or self.fix] = None

    def check(self) -> None:
        """Raise one ProjectError for all problems, if there are any."""
        if self.count:
            more = [f"… and {self.count - 5} more"] if self.count > 5 else []
            listed = "".join(f"\n  {line}" for line in self.first + more)
            raise ProjectError(f"bad records: {self.count}{listed}", "; ".join(self.fixes))


@contextmanager
def read_records(source: Source, fraction: float = 1.0) -> Iterator[Records]:
    """Collect a source's records, and check their ids, without reading any content.

    Subject ids that look alike in ASCII are printed.

    Args:
        source: A module with the functions of `Source`.
        fraction: The part of the records to use, more than 0, at most 1. Those of 5 % are all among those of 10 %, and
            each 5 % are a delivery of their own.

    Yields:
        The records, for `require_consent`, `split_by_subject` and `write_dataset`, in this order.

    Raises:
        ProjectError: An id or a label is empty or not in normal form, a `record_id` appears twice, a split is none,
            two subject ids look alike of which one is not ASCII, two deliveries differ in case only, there are no
            records, or the source lacks a function.
    """
    name = source.__name__.rpartition(".")[2]
    for function in ("records", "read"):
        if not callable(getattr(source, function, None)):
            fix = "define it: data/__init__.py says what a source has"
            raise ProjectError(f"{source.__name__} has no function {function}()", fix)
    problems = Problems("correct these records where they are defined; nothing was changed")
    records = Records(source)
    try:
        candidates = tqdm(source.records(), desc=f"Records of {name}", unit=" records", delay=2)
        rows = _rows((record for record in candidates if _is_sound(record, problems)), fraction)
        records.table.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, 1)", rows)
        _check_unique(records.table, problems)
        alike = _check_subjects(records.table, problems)
        _check_deliveries(records.table, problems)
        problems.check()
        if not records.count():
            fix = "raise params.yaml:data.fraction" if fraction < 1 else "choose another one: params.yaml:data.source"
            raise ProjectError(f"the source {name} has no records (data.fraction is {fraction})", fix)
        spelt = dict[str, str]()
        for (label,) in records.table.execute("SELECT DISTINCT label FROM records ORDER BY label"):
            if (other := spelt.setdefault(label.casefold(), label)) != label:
                print(f"May be one label, or two: {other!r} and {label!r}")
        if alike:
            more = f", and {len(alike) - 1} more pairs" if len(alike) > 1 else ""
            print(f"May be one person, or two: {alike[0]}{more}")
        yield records
    finally:
        records.table.close()


def require_consent(records: Records, rule: str) -> None:
    """Leave out the records of subjects without consent; print those in doubt.

    Args:
        records: What `read_records` gave.
        rule: `required`: `data/consent.csv` decides; or `not_required`.

    Raises:
        ProjectError: The registry isn't there or is malformed, or `dvc.yaml` does not name it.
    """
    if rule == consent.NOT_REQUIRED:
        return
    require_dep(consent.PATH.as_posix())
    registry = consent.read(consent.PATH)
    subjects = (subject for (subject,) in records.table.execute("SELECT DISTINCT subject_id FROM records"))
    if doubts := registry.doubts(subjects):
        print(f"Left out, {doubts}")
    records.table.create_function("allows", 1, registry.allows, deterministic=True)
    records.table.execute("UPDATE records SET allowed = allows(subject_id)")
    records.consent_sha256 = registry.sha256
    if not records.count():
        problem = (
            f"none of {records.excluded()} records may be used: {consent.PATH.as_posix()} allows no subject of them"
        )
        raise ProjectError(problem, consent.ADD_SUBJECTS)


def _is_sound(record: Record, problems: Problems) -> bool:
    columns = ("record_id", "subject_id", "label", *(("delivery",) if record.delivery else ()))
    checked = ((column, id_problem(getattr(record, column))) for column in columns)
    problem = next((f"{column} {problem}" for column, problem in checked if problem), "")
    if not problem and record.split not in ("", *SPLITS):
        problem = f"split {record.split!r} is none of {', '.join(SPLITS)}"
    if problem:
        problems.add(f"{record.origin}: {problem}")
    return not problem


def _rows(records: Iterable[Record], fraction: float) -> Iterator[tuple[str, ...]]:
    """Yield the fields of records; of a fraction of them, `percent-005` in the delivery names the first slice."""
    for record in records:
        delivery = record.delivery
        if fraction < 1:
            number = uniform_hash("fraction", record.record_id)
            if number >= fraction:
                continue
            upper = (int(number * SLICES) + 1) * 100 // SLICES
            delivery = "-".join(filter(None, (delivery, f"percent-{upper:03}")))
        yield (record.record_id, record.subject_id, record.label, record.content, record.origin, delivery, record.split)


def _check_unique(table: sqlite3.Connection, problems: Problems) -> None:
    query = (
        "SELECT record_id, origin FROM records WHERE record_id IN"
        " (SELECT record_id FROM records GROUP BY record_id HAVING COUNT(*) > 1) ORDER BY record_id, rowid"
    )
    for record_id, rows in groupby(table.execute(query), lambda row: row[0]):
        (_, first), *others = rows
        for _, origin in others:
            looks = f" (it has {difference(origin, first)})" if normalize_id(origin) == normalize_id(first) else ""
            problems.add(f"{origin}: record_id {record_id!r} was given before, at {first}{looks}")


def _check_subjects(table: sqlite3.Connection, problems: Problems) -> list[str]:
    """Add the subjects that look alike to the problems, if one isn't ASCII; return the other pairs."""
    table.create_function("match_key", 1, match_key, deterministic=True)
    table.execute(
        "CREATE TABLE subjects AS"
        "  SELECT subject_id, MIN(rowid) AS first, match_key(subject_id) AS key FROM records GROUP BY subject_id"
    )
    table.execute("CREATE INDEX by_key ON subjects (key, first)")
    pairs: list[str] = []
    query = (
        "SELECT subjects.subject_id, origin, key FROM subjects JOIN records ON records.rowid = first"
        " WHERE key IN (SELECT key FROM subjects GROUP BY key HAVING COUNT(*) > 1) ORDER BY key, first"
    )
    earlier: tuple[str, str, str] = ("", "", "")
    for subject, origin, key in table.execute(query):
        if key != earlier[2]:
            earlier = (subject, origin, key)
            continue
        text = f"{origin}: subject_id {subject!r} looks like {earlier[0]!r}, at {earlier[1]}"
        text = f"{text} (it has {difference(subject, earlier[0])})"
        if subject.isascii() and earlier[0].isascii():
            pairs.append(text)
        else:
            problems.add(text)
    table.execute("DROP TABLE subjects")
    return pairs


def _check_deliveries(table: sqlite3.Connection, problems: Problems) -> None:
    """Refuse names of deliveries that can't be folders side by side on every system."""
    spelt: dict[str, str] = {}
    for (delivery,) in table.execute("SELECT DISTINCT delivery FROM records ORDER BY delivery"):
        if (other := spelt.setdefault(delivery.casefold(), delivery)) != delivery:
            problems.add(f"the deliveries {other!r} and {delivery!r} differ in case only")
        if len(folder_name(delivery)) > 200:
            problems.add(f"the delivery {delivery!r} is too long for the name of a folder")


def folder_name(text: str) -> str:
    """Return a text as the name of a folder, on every system."""
    name = quote(text, safe=" ")
    return f"{name[:-1]}%2E" if name.endswith(".") else name  # which Windows would leave out

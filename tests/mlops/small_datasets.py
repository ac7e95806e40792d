"""Small datasets for tests: records that are listed in the test, and whose `content` is what `read` makes bytes of."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

from mlops.records import shards
from mlops.records.source import Record, Source, read_records


def record(
    record_id: str,
    subject_id: str = "s",
    label: str = "cat",
    content: str = "x",
    split: str = "train",
    origin: str = "",
) -> Record:
    """Return a record with the defaults of tests."""
    return Record(record_id, subject_id, label, content, origin, split=split)


def source(records: Iterable[Record], read: Callable[[str], bytes] = str.encode, name: str = "test") -> Source:
    """Return a source of these records."""
    return SimpleNamespace(__name__=f"team.data.{name}", records=lambda: records, read=read)


def write(records: Iterable[Record], path: Path, count: int = 1, read: Callable[[str], bytes] = str.encode) -> None:
    """Write records that have splits as a dataset, with so many shards at most."""
    with read_records(source(records, read)) as table:
        shards.write(table, count, path)

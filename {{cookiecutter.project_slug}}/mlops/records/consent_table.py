"""A large consent registry as tables of Arrow: a million lines in a second, a block of the file at a time.

Nearly all lines are plain: ASCII, no quotes, a status that is one, a time in the usual form. Arrow reads them. Each
other line goes through `parse_entry`; and from a block on that Arrow can't split as `csv_reader` does, all lines go
through both, which have all the rules. The tests compare the two ways.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from csv import field_size_limit
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..errors import ProjectError
from .consent_line import COLUMNS, Entry, parse_entry
from .csv_reader import MARKERS, rows
from .ids import LONGEST, PLAIN_ID, ROUNDED, match_key, match_keys

Parse = Callable[[list[str], int], Entry | None]

BLOCK_BYTES = 4 << 20
# `since` is null where the line does not say; `key` is `match_key` of the id.
TYPES = {"line": pa.int64(), "subject_id": pa.string(), "status": pa.string(), "since": pa.timestamp("us", "UTC")}
SCHEMA = pa.schema({**TYPES, "key": pa.string()})
# In years that no zone moves out of the range of Python's times.
PLAIN_TIME = r"^[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-][01]\d:[0-5]\d)$"


def read_tables(
    file: BinaryIO,
    name: str,
    now: datetime | None = None,
    parse: Parse | None = None,
    on_error: Callable[[ProjectError], None] | None = None,
) -> Iterator[pa.Table]:
    """Read an open registry as tables of `SCHEMA`, in the order of its lines; errors are those of `consent.read`.

    Args:
        file: The registry, at its start.
        name: The file's, for errors.
        now: As `consent.read` has it. A line of a later time is not plain.
        parse: Makes an entry of the cells and the number of a line that is not plain, or None to leave it out; by
            default, `parse_entry`.
        on_error: Takes a malformed line, as `csv_reader.rows` does.
    """
    now = now or datetime.now(UTC)
    parse = parse or partial(parse_entry, name=name, now=now)
    header, lines, count = file.readline(), 1, 0
    while block := file.read(BLOCK_BYTES) + file.readline():
        table = _plain(header, block, lines, now, parse)
        if table is None:
            break
        yield table
        lines, count = lines + block.count(b"\n") + (not block.endswith(b"\n")), count + len(table)
    if block or not count:
        file.seek(0)
        others = ((cells, number) for number, cells in rows(file, name, COLUMNS, on_error) if number > lines)
        entries = (entry for cells, number in others if (entry := parse(cells, number)))
        while part := list(islice(entries, 50_000)):
            yield table_of(part)


def _plain(first: bytes, block: bytes, lines: int, now: datetime, parse: Parse) -> pa.Table | None:
    """Read a block that begins after so many lines, the first of them the header; return None if Arrow can't."""
    whole = first + block
    if b'"' in whole or b"\0" in whole or whole.count(b"\r") != whole.count(b"\r\n"):
        return None
    if first.strip(b"\xef\xbb\xbf \r\n").lower() in block.lower():  # joined files
        return None
    if any(f"\n{marker}".encode() in whole for marker in MARKERS):
        return None
    try:
        header = [cell.strip().lower() for cell in first.decode("utf-8-sig").split(",")]
        if len(set(header)) != len(header):
            return None
        cells = csv.read_csv(
            BytesIO(block),
            csv.ReadOptions(use_threads=False, column_names=header, block_size=len(block)),
            csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False),
        )
        if max(pc.max(pc.binary_length(column)).as_py() or 0 for column in cells.columns) > field_size_limit():
            return None
        subjects, statuses, times = (cells[column].combine_chunks() for column in COLUMNS)
        statuses, times = pc.ascii_lower(pc.ascii_trim_whitespace(statuses)), pc.ascii_trim_whitespace(times)
        is_dated = pc.match_substring_regex(times, PLAIN_TIME)
        since = pc.if_else(is_dated, times, pa.scalar(None, pa.string())).cast(TYPES["since"])
    except (pa.ArrowInvalid, KeyError, UnicodeDecodeError):
        return None
    is_past = pc.or_(pc.equal(times, ""), pc.fill_null(pc.less_equal(since, pa.scalar(now)), False))
    is_known = pc.is_in(statuses, value_set=pa.array(["active", "revoked"]))
    is_id = pc.and_(pc.match_substring_regex(subjects, PLAIN_ID), pc.less_equal(pc.binary_length(subjects), LONGEST))
    is_id = pc.and_not(is_id, pc.match_substring_regex(subjects, ROUNDED))
    is_plain = pc.and_(pc.and_(is_id, is_known), is_past)
    numbers = pa.array(range(lines + 1, lines + 1 + len(cells)), pa.int64())
    table = pa.table([numbers, subjects, statuses, since, match_keys(subjects)], schema=SCHEMA).filter(is_plain)
    others = pc.invert(is_plain)
    entries = [
        entry
        for number, row in zip(numbers.filter(others).to_pylist(), cells.filter(others).to_pylist(), strict=True)
        if "".join(row.values()).strip() and (entry := parse([row[column] for column in COLUMNS], number))
    ]
    return concat([table, table_of(entries)]).sort_by("line") if entries else table


def table_of(entries: list[Entry]) -> pa.Table:
    """Return entries as a table of `SCHEMA`."""
    records = [(each.line, each.subject_id, each.status, each.since, match_key(each.subject_id)) for each in entries]
    return pa.table(list(zip(*records, strict=True)), schema=SCHEMA)


def entries_of(table: pa.Table) -> list[Entry]:
    """Return the rows of a table as entries."""
    times = (time and time.replace(tzinfo=UTC) for time in table["since"].to_pylist())
    return list(map(Entry, *(table[name].to_pylist() for name in ("line", "subject_id", "status")), times))


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of all tables, which may be none."""
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def of_persons(table: pa.Table, keys: Collection[str]) -> pa.Table:
    """Return the rows with these keys."""
    return table.filter(pc.is_in(table["key"], value_set=pa.array(keys, pa.string())))


def by_number_of_lines(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Split a table into the lines of persons who have no other line, and those of persons with several."""
    counts = pc.value_counts(table["key"])
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    is_repeated = pc.is_in(table["key"], value_set=repeated)
    return table.filter(pc.invert(is_repeated)), table.filter(is_repeated)


def missing_rows(before: pa.Table, now: pa.Table) -> pa.Table:
    """Return the rows of one table whose subject, status and time no row of the other has."""

    def contents(table: pa.Table) -> pa.ChunkedArray:
        times = pc.fill_null(table["since"].cast(pa.int64()).cast(pa.string()), "")
        return pc.binary_join_element_wise(table["subject_id"], table["status"], times, "\n")  # no id has a line end

    return before.filter(pc.invert(pc.is_in(contents(before), value_set=contents(now))))

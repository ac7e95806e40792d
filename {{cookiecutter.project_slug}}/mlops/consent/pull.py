"""Take the consent registry from a database: `consent pull`.

    python -m mlops consent pull postgresql+psycopg2://… --table consents

What the database has becomes `data/consent.csv`: sorted, in UTC, so that the same rows give the same bytes. A registry
only grows: what would lose a line, or a person, is refused.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from filelock import FileLock

from ..errors import ProjectError
from ..records import consent
from ..records.consent import COLUMNS, DOUBT, PATH, Entry
from . import storage
from .edits import stamp
from .storage import KEPT, NAME, VERB

if TYPE_CHECKING:
    from sqlalchemy import URL, ColumnClause, Connection, CursorResult

ROWS = 10_000  # that are fetched at once
REPLACE = "if that is right: --replace"


def pull(address: str, query: str, table: str, present: bool, anyway: bool) -> str:
    """Make the registry of what a query or a table of a database has.

    Args:
        address: SQLAlchemy's URL. Its password is neither told nor kept.
        query: Gives the columns of the registry, by their names; or
        table: has them. May name a schema: `clinic.consents`.
        present: It has one row a person, their present state, and no history: its rows are added to the lines that
            the registry has.
        anyway: Let the registry be exactly what the database has, also where that loses lines.

    Returns:
        What was done, for people.

    Raises:
        ProjectError: The database can't be asked, a row is no line of a registry, or lines known before are lacking.
    """
    storage.check_asked()
    found = _ask(address, query, table)
    with FileLock(storage.lock_path()):
        known = consent.entries(storage.read_bytes(), NAME) if PATH.exists() or KEPT.exists() else []
        lines = found if anyway else _with_history(known, found) if present else _checked_history(known, found)
        content = _canonical(lines)
        changed = not PATH.exists() or content != PATH.read_bytes()
        storage.replace(content)
    registry = consent.read(PATH)
    told = ", ".join(f"{many} {status}" for status, many in sorted(registry.counts.items()))
    alike = sum(len({one.subject_id for one in rows}) > 1 for rows in consent.by_person(lines).values())
    more = f"; {alike} may be one person under several ids: {VERB} check" if alike else ""
    return f"{NAME}: {told}; sha256 {registry.sha256[:10]}{'' if changed else ', as before'}{more}"


def _checked_history(known: list[Entry], found: list[Entry]) -> list[Entry]:
    there = set(map(storage.key, found))
    if gone := [one for one in known if storage.key(one) not in there]:
        raise ProjectError(
            f"the database lacks {len(gone)} of the {len(known)} lines of {NAME}, such as line {gone[0].line} "
            f"({gone[0].subject_id} {gone[0].status})",
            f"see that the query gives the whole history; if it gives the present state only: --present; {REPLACE}",
        )
    _check_settled(known, found)
    return found


def _check_settled(known: list[Entry], found: list[Entry]) -> None:
    """See that no doubt of the registry vanishes because the lines of the database are sorted by date."""
    before = set(map(storage.key, known))
    new = sorted((one for one in found if storage.key(one) not in before), key=storage.key)
    for lines in consent.by_person([*known, *new]).values():
        if consent.decide(lines)[0] == DOUBT:
            raise ProjectError(
                f"{lines[0].subject_id} is in doubt: line {consent.overruled(lines)[0].line} of {NAME} withdraws, and "
                "lost in a merge; sorted by date, the lines of the database would not show it",
                f"add their present word to the database, dated today; {REPLACE}",
            )


def _with_history(known: list[Entry], found: list[Entry]) -> list[Entry]:
    """Return the lines known before and those of the present state, when they add up to that."""
    states, before = consent.by_person(found), consent.by_person(known)
    if twice := [one for one, many in Counter(one.subject_id for one in found).items() if many > 1]:
        raise ProjectError(f"the database has several rows of {twice[0]}", "one row a person, or leave --present out")
    if gone := [before[person][0].subject_id for person in before if person not in states]:
        raise ProjectError(
            f"the database lacks {len(gone)} of the {len(before)} subjects of {NAME}, such as {gone[0]}",
            f"see that the query leaves nobody out; {REPLACE}",
        )
    joined = consent.by_person({storage.key(one): one for one in (*known, *found)}.values())
    for person, lines in joined.items():
        is_now, should = consent.decide(lines)[0], consent.decide(states[person])[0]
        if is_now != should:
            raise ProjectError(
                f"{lines[0].subject_id} is {should} in the database, and would be {is_now} with the lines of {NAME}",
                f"see that effective_at is when the state began; {REPLACE}",
            )
    return [one for lines in joined.values() for one in lines]


def _canonical(lines: list[Entry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in {storage.key(one): one for one in sorted(lines, key=storage.key)}.values():
        writer.writerow((one.subject_id, one.status, stamp(one.since) if one.since else ""))
    return text.getvalue().encode()


def _ask(address: str, query: str, table: str) -> list[Entry]:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        url = sqlalchemy.make_url(address)
        engine = sqlalchemy.create_engine(url)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        scheme = address.partition(":")[0]
        fix = "install it (for PostgreSQL: psycopg2-binary), and add it to pyproject.toml"
        raise ProjectError(f"Python has no driver for {scheme}: {error}", fix) from error
    except ArgumentError as error:
        problem = "the database's address is no URL of SQLAlchemy"
        raise ProjectError(problem, "write it like postgresql+psycopg2://user@host/name") from error
    try:
        # Never committed: whatever a query does besides asking is undone.
        with engine.connect().execution_options(stream_results=True, yield_per=ROWS) as connection:
            found = list(_entries(connection, query, table))
    except SQLAlchemyError as error:
        said = _without_secrets(str(getattr(error, "orig", None) or error), url)
        fix = "see that the server is up, the address and the query; the password may be in ~/.pgpass or alike"
        raise ProjectError(f"{_shown(url)} can't be asked: {said.strip()}", fix) from error
    finally:
        engine.dispose()
    if not found:
        raise ProjectError("the result holds no rows, and nobody would have consented", "see the query, and its WHERE")
    return found


def _entries(connection: "Connection", query: str, table: str) -> Iterator[Entry]:
    result = _run(connection, query, table)
    names = [name.lower() for name in [*result.keys()]]
    if lacking := [name for name in COLUMNS if names.count(name) != 1]:
        raise ProjectError(
            f"the result has the columns {', '.join(names)}, and not once each: {', '.join(lacking)}",
            f"--query 'SELECT … AS {lacking[0]}, …'",
        )
    places, now = [names.index(name) for name in COLUMNS], datetime.now(UTC)
    for number, row in enumerate(result, 1):
        subject, status, when = (row[place] for place in places)
        where = f"row {number} of the result"
        yield consent.entry(
            [_id(subject, where), _status(status, where), _time(when, where)], number, "the result", now
        )


def _run(connection: "Connection", query: str, table: str) -> "CursorResult[Any]":
    import sqlalchemy

    if query:  # as it stands: neither `:` nor `%` means anything
        return connection.exec_driver_sql(query, execution_options={"no_parameters": True})
    schema, _, name = table.rpartition(".")
    columns: list[ColumnClause[Any]] = [sqlalchemy.column(name) for name in COLUMNS]
    return connection.execute(
        sqlalchemy.select(*columns).select_from(sqlalchemy.table(name, *columns, schema=schema or None))
    )


def _id(value: Any, where: str) -> str:
    if isinstance(value, str | UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise _refused("subject_id", value, where, "CAST(… AS VARCHAR) AS subject_id")


def _status(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise _refused("consent_status", value, where, "CASE WHEN … THEN 'active' ELSE 'revoked' END AS consent_status")


def _time(value: Any, where: str) -> str:
    fix = "(… AT TIME ZONE 'UTC') AS effective_at, with the zone that the times are in"
    if isinstance(value, datetime):
        if value.tzinfo:
            return stamp(value)
        raise ProjectError(f"{where}: effective_at {value} has no time zone", f"--query: {fix}")
    if isinstance(value, str) and value.strip():
        return stamp(consent.time_of(value.strip(), f"{where}: effective_at"))
    raise _refused("effective_at", value, where, fix)


def _refused(column: str, value: Any, where: str, fix: str) -> ProjectError:
    said = "empty (NULL)" if value in (None, "") else f"of the type {type(value).__name__}"
    return ProjectError(f"{where}: {column} is {said}", f"--query: {fix}, or leave such rows out: WHERE …")


def _shown(url: "URL") -> str:
    return f"{url.drivername}://{url.host or ''}/{url.database or ''}"


def _without_secrets(text: str, url: "URL") -> str:
    secrets = [url.password, *(value for values in url.normalized_query.values() for value in values)]
    for secret in filter(None, map(str, secrets)):
        text = text.replace(secret, "***")
    return text

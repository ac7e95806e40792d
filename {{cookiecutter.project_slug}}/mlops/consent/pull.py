"""Take the consent registry from a database: `consent pull`.

    python -m mlops consent pull postgresql+psycopg2://… --table consents

The database's rows become `data/consent.csv`: sorted, in UTC, so that the same rows give the same bytes. A registry
only grows: a pull that would lose a line, or a person, is refused.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

from filelock import FileLock

from ..config import home
from ..errors import ProjectError
from ..records import consent
from ..records.consent import COLUMNS, DOUBT, PATH, Entry
from . import edits, storage
from .edits import VERB, stamp
from .storage import LOCK, NAME, Form

if TYPE_CHECKING:
    from sqlalchemy import Connection

REPLACE = "if that is right: --replace"


def pull(address: str, query: str, table: str, present: bool, anyway: bool) -> str:
    """Replace the registry by what a database has; return what was done, for people.

    Args:
        address: SQLAlchemy's URL. Its password is neither printed nor stored.
        query: Returns the columns of the registry, by their names; or
        table: has them. May name a schema: `clinic.consents`.
        present: There is one row a person, without history: the rows are added to the lines that the registry has.
        anyway: Accept that lines known before are missing; else ProjectError is raised.
    """
    edits.check_required()
    pulled = _query(address, query, table)
    with FileLock(home() / LOCK):
        storage.check_current()
        known = list(consent.scan(PATH)) if PATH.exists() else []
        lines = pulled if anyway else _with_history(known, pulled) if present else _checked_history(known, pulled)
        keys = sorted({entry.key for entry in lines})
        rows = [(subject, status, since.replace("+00:00", "Z")) for subject, since, status in keys]
        moved = storage.keep_out_of_git()
        changed = storage.replace(Form().text(rows))
    registry = consent.read(PATH)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(registry.counts.items()))
    alike = sum(len({entry.subject_id for entry in person}) > 1 for person in consent.by_person(lines).values())
    more = f"; {alike} may be one person under several ids: {VERB} check" if alike else ""
    result = f"{NAME}: {counts}; sha256 {registry.sha256[:10]}{'' if changed else ', as before'}{more}"
    return "\n".join(filter(None, (result, moved)))


def _checked_history(known: list[Entry], pulled: list[Entry]) -> list[Entry]:
    keys = {entry.key for entry in pulled}
    if missing := [entry for entry in known if entry.key not in keys]:
        raise ProjectError(
            f"the database lacks {len(missing)} of the {len(known)} lines of {NAME}, such as line {missing[0].line} "
            f"({missing[0].subject_id} {missing[0].status})",
            f"see that the query gives the whole history; if it gives the present state only: --present; {REPLACE}",
        )
    # The pulled lines are sorted by date, which would hide what a merge left in doubt.
    before = {entry.key for entry in known}
    new = sorted((entry for entry in pulled if entry.key not in before), key=lambda entry: entry.key)
    for lines in consent.by_person([*known, *new]).values():
        if consent.decide(lines)[0] == DOUBT:
            raise ProjectError(
                f"{lines[0].subject_id} is in doubt: line {consent.overruled(lines)[0].line} of {NAME} withdraws, and "
                "lost in a merge; sorted by date, the lines of the database would not show it",
                f"add their present word to the database, dated today; {REPLACE}",
            )
    return pulled


def _with_history(known: list[Entry], pulled: list[Entry]) -> list[Entry]:
    """Return the lines known before and those of the present state, when they add up to that state."""
    states, before = consent.by_person(pulled), consent.by_person(known)
    subjects = Counter(entry.subject_id for entry in pulled)
    if twice := [subject for subject, count in subjects.items() if count > 1]:
        raise ProjectError(f"the database has several rows of {twice[0]}", "one row a person, or leave --present out")
    if missing := [lines[0].subject_id for person, lines in before.items() if person not in states]:
        problem = f"the database lacks {len(missing)} of the {len(before)} subjects of {NAME}, such as {missing[0]}"
        raise ProjectError(problem, f"see that the query leaves nobody out; {REPLACE}")
    joined = list({entry.key: entry for entry in (*known, *pulled)}.values())
    for person, lines in consent.by_person(joined).items():
        state, expected = consent.decide(lines)[0], consent.decide(states[person])[0]
        if state != expected:
            raise ProjectError(
                f"{lines[0].subject_id} is {expected} in the database, and would be {state} with the lines of {NAME}",
                f"see that effective_at is when the state began; {REPLACE}",
            )
    return joined


def _query(address: str, query: str, table: str) -> list[Entry]:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        url = sqlalchemy.make_url(address)
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        fix = "for PostgreSQL: python -m pip install psycopg2-binary; others likewise; and add it to pyproject.toml"
        raise ProjectError(f"Python has no driver for {address.partition(':')[0]}", fix) from error
    except ArgumentError as error:
        problem = "the database's address is no URL of SQLAlchemy"
        raise ProjectError(problem, "write it like postgresql+psycopg2://user@host/name") from error
    try:
        # Rows are fetched in batches, and nothing is committed: whatever else a query does is undone.
        with engine.connect().execution_options(stream_results=True, yield_per=10_000) as connection:
            entries = list(_entries(connection, query, table))
    except SQLAlchemyError as error:
        message = str(getattr(error, "orig", None) or error).strip()
        for secret in filter(None, (url.password, *chain.from_iterable(url.normalized_query.values()))):
            message = message.replace(str(secret), "***")
        fix = "see that the server is up, the address and the query; the password may be in ~/.pgpass or alike"
        shown = f"{url.drivername}://{url.host or ''}/{url.database or ''}"
        raise ProjectError(f"{shown} can't be queried: {message}", fix) from error
    if not entries:
        raise ProjectError("the result holds no rows, and nobody would have consented", "see the query, and its WHERE")
    return entries


def _entries(connection: "Connection", query: str, table: str) -> Iterator[Entry]:
    import sqlalchemy

    if query:  # as it stands: neither `:` nor `%` has a meaning
        result = connection.exec_driver_sql(query, execution_options={"no_parameters": True})
    else:
        schema, _, name = table.rpartition(".")
        source = sqlalchemy.table(name, *map(sqlalchemy.column, COLUMNS), schema=schema or None)
        result = connection.execute(source.select())
    names = [name.lower() for name in result.keys()]  # noqa: SIM118 (no dict)
    if lacking := [name for name in COLUMNS if names.count(name) != 1]:
        problem = f"the result has the columns {', '.join(names)}, and not once each: {', '.join(lacking)}"
        raise ProjectError(problem, f"--query 'SELECT … AS {lacking[0]}, …'")
    places, now = [names.index(name) for name in COLUMNS], datetime.now(UTC)
    for number, row in enumerate(result, 1):
        yield consent.parse_entry(_cells([row[place] for place in places], number), number, "the result", now)


def _cells(row: list[Any], number: int) -> list[str]:
    """Return a row's subject, status and time as the registry has them; refuse what a CSV file could not say."""
    subject, status, time = row
    where = f"row {number} of the result"

    def refused(column: str, value: Any, fix: str) -> ProjectError:
        kind = "empty (NULL)" if value in (None, "") else f"of the type {type(value).__name__}"
        return ProjectError(f"{where}: {column} is {kind}", f"--query: {fix}, or leave such rows out: WHERE …")

    if isinstance(subject, bool) or not isinstance(subject, str | UUID | int):
        raise refused("subject_id", subject, "CAST(… AS VARCHAR) AS subject_id")
    if not isinstance(status, str):
        raise refused("consent_status", status, "CASE WHEN … THEN 'active' ELSE 'revoked' END AS consent_status")
    fix = "(… AT TIME ZONE 'UTC') AS effective_at, with the zone that the times are in"
    if isinstance(time, datetime) and not time.tzinfo:
        raise ProjectError(f"{where}: effective_at {time} has no time zone", f"--query: {fix}")
    if isinstance(time, str) and time.strip():
        time = consent.parse_time(time.strip(), f"{where}: effective_at")
    if not isinstance(time, datetime):
        raise refused("effective_at", time, fix)
    return [str(subject), status, stamp(time)]

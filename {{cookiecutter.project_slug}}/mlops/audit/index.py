"""The index of manifests: which manifest holds which subject, without reading a manifest twice.

An SQLite file that can be deleted at any time. Manifests are numbered in the order in which they are added, and a
subject has a row for each range `[added, removed)` of numbers in which every manifest holds it. So the index is exact
for any order and for branches, and grows with what changes between manifests. Several processes may add to it at once.
A manifest is fetched once, and indexed only if its rows have the digest that was recorded.
"""

import contextlib
import json
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from ..config import home
from ..errors import ProjectError
from ..records.ids import match_key

VERSION = 2  # of the tables and of what `match_key` returns; a file of another version is created anew
WRITE = "BEGIN IMMEDIATE"
NEXT_NUMBER = "SELECT coalesce(max(number) + 1, 0) FROM manifest"
SCHEMA = f"""
DROP TABLE IF EXISTS made; DROP TABLE IF EXISTS manifest; DROP TABLE IF EXISTS member;
CREATE TABLE made AS SELECT lower(hex(randomblob(16))) AS id;
CREATE TABLE manifest (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE);
CREATE TABLE member (
    key INTEGER NOT NULL, subject TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER,
    PRIMARY KEY (key, subject, added)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""

MANIFEST = "data/manifest.parquet"
Fetch = Callable[[str], Path | str]
"""Copies a manifest into a folder and returns its path. Any error means that the manifest is not available there."""


class InconclusiveError(ProjectError):
    """Something that the answer depends on can't be read."""


class ManifestMissingError(ProjectError):
    """No source has a manifest as it was recorded."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The manifests that hold a subject, as bits: manifest 0 is the lowest."""

    exact: int = 0  # those that hold exactly this id
    alike: int = 0  # those that hold a different id that may be the same person's: see `match_key`


class Index:
    """The open index file; by default below the repository's `.dvc/tmp`, which Git ignores."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / ".dvc" / "tmp" / "records" / "index.db"
        with self._translate_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open()
            except sqlite3.OperationalError:  # locked, disk full, no permission: not damaged
                raise
            except sqlite3.DatabaseError:
                self._db.close()
                self.path.unlink()
                self._open()

    def _open(self, anew: bool = False) -> None:
        self._db = sqlite3.connect(self.path, timeout=600, isolation_level=None)
        if anew or self._value("PRAGMA user_version") != VERSION:
            with self._db:
                self._db.execute(WRITE)
                if anew or self._value("PRAGMA user_version") != VERSION:  # no other process was faster
                    for statement in SCHEMA.split(";"):
                        self._db.execute(statement)
        self._id = self._value("SELECT id FROM made")
        self._last: tuple[int, set[str]] = (-1, set())  # the manifest that was added last: the next one is similar

    def _value(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            is_damaged = type(error) is sqlite3.DatabaseError
            reason = "it is damaged" if is_damaged else getattr(error, "strerror", "") or error
            fix = f"rm -r {self.path.parent} (it is made again); or free disk space, or let this user write there"
            raise InconclusiveError(f"the index {self.path} can't be used: {reason}", fix) from error

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN") -> Iterator[None]:
        """Hold one state of the file, whatever other processes add meanwhile; it must be the file that was opened."""
        with self._translate_errors(), self._db:
            self._db.execute(begin)
            if self._value("SELECT id FROM made") != self._id:  # the numbers of manifests may differ
                raise InconclusiveError(f"the index {self.path} was made anew meanwhile", "the same command again")
            yield

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def clear(self) -> None:
        """Remove all manifests."""
        self._db.close()
        with self._translate_errors():
            self._open(anew=True)

    def numbers(self) -> dict[str, int]:
        """Return the number of each manifest in the index, by its SHA-256."""
        with self._transaction():
            return dict(self._db.execute("SELECT sha256, number FROM manifest"))

    def add(self, sha256: str, subjects: Collection[str]) -> None:
        """Add a manifest with the subjects that it holds; nothing happens if it is in the index already."""
        new = set(subjects)
        with self._transaction(WRITE):
            if self._db.execute("SELECT 1 FROM manifest WHERE sha256 = ?", (sha256,)).fetchone():
                return
            number = self._value(NEXT_NUMBER)
            newest = self._db.execute("SELECT subject FROM member WHERE removed IS NULL")
            previous = self._last[1] if self._last[0] == number - 1 else {subject for (subject,) in newest}
            removed = ((number, _key(subject), subject) for subject in sorted(previous - new))
            added = sorted((_key(subject), subject, number) for subject in new - previous)
            close = "UPDATE member SET removed = ? WHERE key = ? AND subject = ? AND removed IS NULL"
            self._db.executemany(close, removed)
            self._db.executemany("INSERT INTO member (key, subject, added) VALUES (?, ?, ?)", added)
            self._db.execute("INSERT INTO manifest VALUES (?, ?)", (number, sha256))
        self._last = (number, new)

    def memberships(self, subjects: Iterable[str]) -> dict[str, Membership]:
        """Return which manifests hold each subject."""
        subjects = list(subjects)
        spellings: dict[str, dict[str, int]] = {}  # of ids that are alike, each with its manifests
        with self._transaction():
            end = self._value(NEXT_NUMBER)  # the end of the rows that are still open
            keys = json.dumps(sorted({_key(subject) for subject in subjects}))
            query = "SELECT subject, added, removed FROM member WHERE key IN (SELECT value FROM json_each(?))"
            for subject, added, removed in self._db.execute(query, (keys,)):
                bits = spellings.setdefault(match_key(subject), {})
                bits[subject] = bits.get(subject, 0) | ((1 << (removed or end)) - (1 << added))
        memberships = {}
        for subject in subjects:
            alike = dict(spellings.get(match_key(subject), {}))
            exact = alike.pop(subject, 0)
            memberships[subject] = Membership(exact, reduce(or_, alike.values(), 0))
        return memberships

    def members(self, manifests: int) -> list[str]:
        """Return the subjects that any of the manifests, given as bits, holds; sorted."""
        end = manifests.bit_length()
        query = "SELECT subject, added, coalesce(removed, ?) FROM member WHERE added < ?"
        with self._transaction():
            rows = self._db.execute(query, (end, end))
            return sorted({subject for subject, added, removed in rows if manifests & ((1 << removed) - (1 << added))})


def _key(subject: str) -> int:
    """Return a short key that ids which are alike share; a collision with others costs a comparison."""
    return zlib.crc32(match_key(subject).encode())


def ingest(index: Index, manifests: Iterable[str], sources: Callable[[str], Iterable[Fetch]]) -> dict[str, str]:
    """Add the manifests, given by SHA-256, that the index lacks; return why, for each that could not be added."""
    missing = {}
    for sha256 in sorted(set(manifests) - index.numbers().keys()):
        try:
            with open_manifest(sha256, sources(sha256)) as (_, subjects):
                index.add(sha256, subjects)
        except ManifestMissingError as error:
            missing[sha256] = error.problem
    return missing


@contextlib.contextmanager
def open_manifest(sha256: str, sources: Iterable[Fetch]) -> Iterator[tuple[Path, set[str]]]:
    """Fetch a manifest from the first source that has it as it was recorded; raise ManifestMissingError if none has.

    Yields:
        Its file, which is deleted when the block ends, and the subjects that it holds.
    """
    reasons: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for fetch in sources:
            try:
                file = Path(fetch(tempfile.mkdtemp(dir=folder)))
                subjects = _read_subjects(file, sha256)
            except Exception as error:  # any error of an artifact store, the file system or the network
                text = error.problem if isinstance(error, ProjectError) else str(error)
                reasons[" ".join(text.split())[:300] or type(error).__name__] = None
                continue
            yield file, subjects
            return
    problem = f"manifest {sha256[:12]}: {'; '.join(reasons) or 'no run or commit has it'}"
    raise ManifestMissingError(problem, "in a clone whose DVC remote has it: python -m mlops mirror repair")


def _read_subjects(path: Path, sha256: str) -> set[str]:
    """Return the subjects of a manifest; raise ValueError if it can't be read, or its rows have another digest."""
    import pyarrow as pa  # only now: it takes 0.2 s, and most questions fetch no manifest
    import pyarrow.parquet as pq

    from ..records import manifest

    subjects: set[str] = set()
    digest = manifest.Digest()
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(manifest.SCHEMA):
                raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(manifest.ROW_GROUP):
                if any(column.null_count for column in batch.columns):
                    raise ValueError("it has empty cells")
                digest.update(batch)
                subjects.update(batch.column(0).unique().to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"it can't be read: {error}") from error
    if digest.hexdigest() != sha256:
        raise ValueError(f"its rows are not those that were recorded: their digest is {digest.hexdigest()[:12]}")
    return subjects

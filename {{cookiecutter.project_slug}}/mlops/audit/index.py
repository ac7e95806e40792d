"""The index of manifests: who is in which of them, without reading one again.

An SQLite file that can be deleted at any time. Manifests are numbered as they come, and a subject has a row for each
stretch `[added, removed)` of these numbers in which every manifest holds it. So it is exact in whatever order they
come, of branches too, and grows with what changes between them. Several processes may add to it at once.
"""

import contextlib
import sqlite3
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..config import home
from ..errors import ProjectError
from ..records.ids import match_key

VERSION = 2  # of the tables and of what `fold` returns; a file of another one is made anew
PATIENCE_S = 600  # while others add
ASKED = 1000  # subjects in one query

SCHEMA = f"""
CREATE TABLE made (id TEXT NOT NULL);
CREATE TABLE manifest (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE);
CREATE TABLE member (
    key INTEGER NOT NULL, subject TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER,
    PRIMARY KEY (key, subject, added)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


class InconclusiveError(ProjectError):
    """What is needed for an answer can't be read: nobody can say that all is well."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Which manifests hold a subject, as bits: manifest 0 is the lowest.

    Args:
        exact: Those that hold this very id.
        alike: Those that hold another id that may be the same person's: see `fold`. Nobody can tell.
    """

    exact: int = 0
    alike: int = 0


class Index:
    """The file, open.

    Args:
        path: Where it is; by default below the repository's `.dvc/tmp`, which Git ignores.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / ".dvc" / "tmp" / "records" / "index.db"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _told(self.path):
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, no space, no right: it may be whole
                    raise
                self._db.close()
                self.path.unlink()
                self._open()

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None)
        if self._version() != VERSION:
            with self._writing():
                if self._version() != VERSION:  # nobody else was first
                    self._make()
        self._made = self._id()
        self._last: tuple[int, set[str]] = (-1, set())  # the last manifest that was added here: the next is like it

    def _make(self) -> None:
        for table in ("made", "manifest", "member"):
            self._db.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute("INSERT INTO made VALUES (?)", (uuid.uuid4().hex,))

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _id(self) -> str:
        return str(self._db.execute("SELECT id FROM made").fetchone()[0])

    def _check_same(self) -> None:
        if self._id() != self._made:  # manifests may have other numbers now
            raise InconclusiveError(f"the index {self.path} was made anew meanwhile", "the same command again")

    def clear(self) -> None:
        """Forget everything."""
        with _told(self.path), self._writing():
            self._make()
        self._made, self._last = self._id(), (-1, set())

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def numbers(self) -> dict[str, int]:
        """Return the manifests that are in it: their numbers, by the SHA-256 of their rows."""
        with _told(self.path), self._reading():
            return self._numbers()

    def _numbers(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT sha256, number FROM manifest"))

    def add(self, sha256: str, subjects: Collection[str]) -> None:
        """Add a manifest, unless it is there.

        Args:
            sha256: Of its rows.
            subjects: Whom it holds, each once.
        """
        wanted = set(subjects)
        with _told(self.path), self._writing():
            self._check_same()
            if sha256 in self._numbers():
                return
            number = self._db.execute("SELECT coalesce(max(number) + 1, 0) FROM manifest").fetchone()[0]
            there = self._newest() if self._last[0] != number - 1 else self._last[1]
            gone = ((number, _key(subject), subject) for subject in sorted(there - wanted))
            new = sorted((_key(subject), subject, number) for subject in wanted - there)
            closed = "UPDATE member SET removed = ? WHERE key = ? AND subject = ? AND removed IS NULL"
            self._db.executemany(closed, gone)
            self._db.executemany("INSERT INTO member (key, subject, added) VALUES (?, ?, ?)", new)
            self._db.execute("INSERT INTO manifest VALUES (?, ?)", (number, sha256))
        self._last = (number, wanted)

    def _newest(self) -> set[str]:
        return {subject for (subject,) in self._db.execute("SELECT subject FROM member WHERE removed IS NULL")}

    def memberships(self, subjects: Iterable[str]) -> dict[str, Membership]:
        """Return which manifests hold each of the subjects."""
        with _told(self.path), self._reading():
            # All rows of a subject that is still there have no end: that of the manifests is theirs.
            end = self._db.execute("SELECT coalesce(max(number) + 1, 0) FROM manifest").fetchone()[0]
            found: dict[str, Membership] = {}
            rest = iter(subjects)
            while some := list(islice(rest, ASKED)):
                found |= self._some(some, end)
            return found

    def _some(self, subjects: list[str], end: int) -> dict[str, Membership]:
        keys = sorted({_key(subject) for subject in subjects})
        marks = ",".join("?" * len(keys))
        query = f"SELECT subject, added, removed FROM member WHERE key IN ({marks})"  # noqa: S608 (question marks)
        bits: dict[str, dict[str, int]] = {}
        for subject, added, removed in self._db.execute(query, keys):
            variants = bits.setdefault(match_key(subject), {})
            variants[subject] = variants.get(subject, 0) | ((1 << (removed or end)) - (1 << added))
        found = {}
        for subject in subjects:
            variants = bits.get(match_key(subject), {})
            alike = 0
            for other, held in variants.items():
                alike |= 0 if other == subject else held
            found[subject] = Membership(variants.get(subject, 0), alike)
        return found

    def members(self, manifests: int) -> list[str]:
        """Return whom any of the manifests, given as bits, holds, sorted."""
        with _told(self.path), self._reading():
            end = manifests.bit_length()
            rows = self._db.execute(
                "SELECT subject, added, coalesce(removed, ?) FROM member WHERE added < ?", (end, end)
            )
            return sorted({subject for subject, added, removed in rows if manifests & ((1 << removed) - (1 << added))})

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """See one state of the file, whatever others add meanwhile."""
        self._db.execute("BEGIN")
        try:
            self._check_same()
            yield
        finally:
            self._db.execute("ROLLBACK")


def _key(subject: str) -> int:
    # Short, and the same for ids that are alike; that others may have it too costs a comparison.
    return zlib.crc32(match_key(subject).encode())


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InconclusiveError(
            f"the index {path} can't be used: {error}",
            "see that the disk has space and nobody holds the file, or delete it: it is made again",
        ) from error

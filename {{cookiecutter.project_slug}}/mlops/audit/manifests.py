"""Get manifests into the index: each is fetched once, and believed only with the digest that was recorded."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import ProjectError
from .index import Index

Fetch = Callable[[Path], Path]
"""Copies one manifest into a folder. It may raise what it likes: then the manifest is not to be had there."""


class DamagedError(ProjectError):
    """A manifest is not the one that was recorded."""


class GoneError(ProjectError):
    """A manifest is not to be had, or nowhere as it was recorded."""


def ingest(index: Index, wanted: Iterable[str], places: Callable[[str], Iterable[Fetch]]) -> dict[str, str]:
    """Add the manifests to the index that it lacks.

    Args:
        index: The index.
        wanted: SHA-256 of manifests.
        places: Where each may be had, the best first.

    Returns:
        Why a manifest is not in the index, for those that are not.
    """
    lacking = {}
    for sha256 in sorted(set(wanted) - index.numbers().keys()):
        try:
            with fetched(sha256, places(sha256)) as (_, subjects):
                index.add(sha256, subjects)
        except GoneError as error:
            lacking[sha256] = error.problem
    return lacking


@contextlib.contextmanager
def fetched(sha256: str, places: Iterable[Fetch]) -> Iterator[tuple[Path, set[str]]]:
    """Have a manifest, as it was recorded, from the first place that has it.

    Args:
        sha256: Of its rows.
        places: Where it may be had.

    Yields:
        Its file, for as long as the block runs; and whom it holds.

    Raises:
        GoneError: Nobody has it.
    """
    reasons: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, fetch in enumerate(places):
            try:
                file = fetch(_made(Path(folder, str(number))))
                subjects = read(file, sha256)
            except Exception as error:  # whatever a store of artifacts, a file or the network can say
                reasons[_told(error)] = None
                continue
            yield file, subjects
            return
    raise GoneError(f"manifest {sha256[:12]}: {'; '.join(reasons) or 'nobody has it'}", _FIX)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _told(error: Exception) -> str:
    text = error.problem if isinstance(error, ProjectError) else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


def read(path: Path, sha256: str) -> set[str]:
    """Return whom a manifest holds.

    Raises:
        DamagedError: It is not the manifest of this digest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..records import manifest

    subjects: set[str] = set()
    sha = manifest.Digest()
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(manifest.SCHEMA):
                raise pa.ArrowInvalid(f"its columns are {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(manifest.ROW_GROUP):
                if any(column.null_count for column in batch.columns):
                    raise pa.ArrowInvalid("it has empty cells")
                sha.update(batch)
                subjects.update(batch.column(0).unique().to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"it can't be read: {error}", _FIX) from error
    if sha.hexdigest() != sha256:
        raise DamagedError(f"its rows are not those that were recorded: their digest is {sha.hexdigest()[:12]}", _FIX)
    return subjects


_FIX = "in a clone whose DVC remote has it: python -m mlops mirror repair"

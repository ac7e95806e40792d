"""One content of a split at a time, read from where it lies in the shards: no second copy, and little memory.

Shards hold contents as they are, uncompressed, so each one is a stretch of a file. Opening a split finds the stretches
and compares them with what Arrow reads; after that, a content is one read, in any order and in any process.
"""

import os
import shutil
import struct
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import ProjectError
from .shards import IDS, READERS, damage_named, shard_files

OPEN_FILES = 256  # shards that stay open, at most: systems allow 1,024 files, some of them 256
MARK = 32  # first bytes of a content, by which its stretch is looked for
SPANS = np.dtype([("file", np.int32), ("length", np.int32), ("start", np.int64)])


class Texts(Sequence[str]):
    """Texts that take as many bytes as they have letters: a list of 1,200,000 takes ten times as much."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Texts": ...
    def __getitem__(self, index: int | slice) -> "str | Texts":
        return Texts(self.array[index]) if isinstance(index, slice) else str(self.array[index].as_py())

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[str]:
        return (text for start in range(0, len(self), 8192) for text in self.array[start : start + 8192].to_pylist())

    def unique(self) -> list[str]:
        """Return the different texts, sorted."""
        return sorted(self.array.unique().to_pylist())

    def positions(self, texts: Sequence[str]) -> np.ndarray:
        """Return the position of each in `texts`, (N,) int64; -1 for those that aren't there."""
        place = {text: index for index, text in enumerate(texts)}
        encoded = self.array if pa.types.is_dictionary(self.array.type) else self.array.dictionary_encode()
        codes = np.array([place.get(text, -1) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
        positions: np.ndarray = codes[encoded.indices.to_numpy(zero_copy_only=False)]
        return positions


class Contents(Sequence[bytes]):
    """The contents of a split, in the order of `record_id`; it can be sent to other processes.

    Args:
        files: Those that hold contents.
        spans: Where each content lies, (N,) of `SPANS`: number of the file, length and start in bytes.
        ids: A row per content, with the columns `record_id`, `subject_id`, `label`.
    """

    def __init__(self, files: Sequence[Path], spans: np.ndarray, ids: pa.Table) -> None:
        self.record_ids: Sequence[str] = Texts(ids["record_id"].combine_chunks())
        self.subject_ids: Sequence[str] = Texts(ids["subject_id"].combine_chunks())
        self.labels = Texts(ids["label"].combine_chunks())
        self._files = [str(file.resolve()) for file in files]
        self._spans = spans
        self._opened: dict[int, BinaryIO] = {}

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Return one content.

        Raises:
            ProjectError: The file was changed or removed since it was opened.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number, length, start = self._spans[index].tolist()
        try:
            content = self._read(number, length, start)
        except OSError as error:
            problem = f"{self._files[number]} can't be read: {error.strerror}"
            raise ProjectError(problem, "dvc repro") from error
        if len(content) < length:
            problem = f"{self._files[number]} was changed while it was read"
            raise ProjectError(problem, "change data only when nothing reads them, then: dvc repro")
        return content

    def _read(self, number: int, length: int, start: int) -> bytes:
        # Files that stay open are read by position, which threads and forked processes can do at the same time.
        if file := self._opened.get(number):
            return os.pread(file.fileno(), length, start)
        file = open(self._files[number], "rb", buffering=0)  # noqa: SIM115 (it may stay open)
        if hasattr(os, "pread") and len(self._opened) < OPEN_FILES:
            self._opened[number] = file
            return os.pread(file.fileno(), length, start)
        with file:
            file.seek(start)
            return file.read(length)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}}


def open_split(split_dir: Path) -> Contents:
    """Open a split of the dataset, such as `data/dataset/train`, to read its contents one by one.

    What Parquet holds in another way than `prepare` writes it, such as compressed, is copied to a temporary folder, and
    a line says so.

    Raises:
        ProjectError: The split isn't there, or a shard is damaged.
    """
    files: list[Path] = shard_files(split_dir)
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        spans, tables = map(list, zip(*pool.map(_index, files), strict=True))
    folder = None
    if others := [number for number, part in enumerate(spans) if part is None]:
        folder = Path(tempfile.mkdtemp(prefix="contents-"))
        for number in others:
            spans[number] = _copy(files[number], folder / f"{number}.bin")
            files[number] = folder / f"{number}.bin"
        size = sum(files[number].stat().st_size for number in others) >> 20
        print(
            f"{split_dir.as_posix()}: contents are compressed in {len(others)} shard(s): copied to {folder}, {size} MB"
        )
    parts = [part for part in spans if part is not None]
    whole: np.ndarray = np.concatenate(parts)
    whole["file"] = np.repeat(np.arange(len(files)), [len(part) for part in parts])
    ids = pa.concat_tables(tables, promote_options="permissive")
    order = pc.sort_indices(ids["record_id"])
    ids = ids.take(order).set_column(IDS.index("label"), "label", ids["label"].take(order).dictionary_encode())
    contents = Contents(files, whole[order.to_numpy()], ids)
    if folder:
        weakref.finalize(contents, _remove, folder, os.getpid())
    return contents


def _index(file: Path) -> tuple[np.ndarray | None, pa.Table]:
    """Return where the contents of a shard lie, (N,) of `SPANS`, or None if one isn't there as it is; and the ids."""
    with damage_named(file), pq.ParquetFile(file) as shard:
        # pq.read_table would import pandas, which takes 0.1 s.
        return _spans(file, shard), shard.read(columns=IDS).select(IDS)


def _spans(file: Path, shard: pq.ParquetFile) -> np.ndarray | None:
    rows: list[tuple[int, int, int]] = []
    position = 0
    with file.open("rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as data:
        for group in range(shard.num_row_groups):
            for content in _group(shard, group):
                # Its length is before it. Between two contents may be the head of a page, or the ids of a row group.
                position = data.find(struct.pack("<I", len(content)) + content[:MARK], position) + 4
                end = position + len(content)
                if position < 4 or data[position:end] != content:
                    return None
                rows.append((0, len(content), position))
                position = end
    return np.array(rows, dtype=SPANS)


def _group(shard: pq.ParquetFile, group: int) -> Iterator[bytes]:
    for value in shard.read_row_group(group, columns=["image"])["image"]:
        if not value.is_valid:
            raise ValueError("a record has no content")
        yield value.as_py()


def _copy(file: Path, target: Path) -> np.ndarray:
    """Write the contents of a shard behind each other to a file; return where they lie, (N,) of `SPANS`."""
    rows: list[tuple[int, int, int]] = []
    with damage_named(file), pq.ParquetFile(file) as shard, target.open("wb") as out:
        for group in range(shard.num_row_groups):
            for content in _group(shard, group):
                rows.append((0, len(content), out.tell()))
                out.write(content)
    return np.array(rows, dtype=SPANS)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that it has forked
        shutil.rmtree(folder, ignore_errors=True)

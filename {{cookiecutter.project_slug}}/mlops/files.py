"""Write files whole or not at all; read them, and compute their digests."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a new path beside `path` to write to; it replaces `path`, a file or a directory, when the block ends well.

    Parents are made too. When the block raises, what was written is deleted, and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        new = Path(folder, path.name)
        yield new
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(new, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, keys in the given order."""
    with atomic_write(path) as new:
        new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def write_report(path: Path, content: Any) -> None:
    """Write a report of a stage, whole or not at all, in the format that its suffix names.

    Args:
        path: `.json` for a dict; `.csv` for a list of dicts with the same keys; `.png` for an image of Pillow's.
        content: What to write. JSON keeps the order of keys, in which DVC shows metrics.
    """
    match path.suffix:
        case ".json":
            write_json(path, content)
        case ".csv":
            with atomic_write(path) as new, new.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(content[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(content)
        case _:
            with atomic_write(path) as new:
                content.save(new)


def read_json(path: Path) -> Any:
    """Read a JSON file; the error of one that is damaged or missing has a note for `explain`: which it is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        error.add_note(f"file: {path.as_posix()}")
        raise


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

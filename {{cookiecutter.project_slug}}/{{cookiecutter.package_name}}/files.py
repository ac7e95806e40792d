"""Files that are there whole or not at all, and their digests."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of `path` when the block ends well.

    Args:
        path: The file or directory to make. Its parents are made too.

    Yields:
        A path beside it that does not exist yet. When the block raises, what was written there is deleted and
        `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        new = Path(folder, path.name)
        yield new
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(new, path)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, keys in the order given: DVC shows metrics in that order."""
    with replacing(path) as new:
        new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Your own images: files below `data/raw`, and `data/raw/records.csv` that says what they are.

    record_id,subject_id,label,path
    scan-00123,patient-7,healthy,images/00123.jpg

`path` is relative to `data/raw`. Image files are kept as they are, byte for byte.
"""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from ..errors import ProjectError
from .sources import Record
from .tables import rows

COLUMNS = ("record_id", "subject_id", "label", "path")


def records(raw: Path) -> Iterator[Record]:
    """Yield a record per row of `records.csv`; images are read, and checked, when they are used.

    Raises:
        ProjectError: `records.csv` isn't there or is malformed.
    """
    table = raw / "records.csv"
    name = table.as_posix()
    try:
        file = table.open("rb")
    except FileNotFoundError as error:
        raise ProjectError(f"{name} is not there", f"write it, with the columns {','.join(COLUMNS)}") from error
    with file:
        for line, (record_id, subject_id, label, path) in rows(file, name, COLUMNS):
            origin = f"{name} line {line}"
            yield Record(record_id, subject_id, label, partial(read_image, raw, path, origin), origin)


def read_image(raw: Path, path: str, origin: str) -> bytes:
    """Read an image file whole, after decoding it whole.

    Args:
        raw: The folder that holds the images.
        path: Relative to `raw`, which it must not leave, not even through a symbolic link.
        origin: Where the path is written, for errors.

    Raises:
        ProjectError: The path is empty, absolute or leads out; the file isn't there, is cut short or isn't an image.
    """
    file = raw / path
    if not path or Path(path).is_absolute() or not file.resolve().is_relative_to(raw.resolve()):
        raise ProjectError(
            f"{origin}: path {path!r} is not a file inside {raw.as_posix()}",
            f"put the image below {raw.as_posix()}; if DVC linked it there: dvc unprotect {raw.as_posix()}",
        )
    fix = f"restore the files, or take the rows out of {raw.as_posix()}/records.csv"
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ProjectError(f"{origin}: {path!r} can't be read: {error.strerror}", fix) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    # Pillow's decoders raise these for bytes that they can't make sense of.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ProjectError(f"{origin}: {path!r} is damaged or not an image: {error}", fix) from error
    return content

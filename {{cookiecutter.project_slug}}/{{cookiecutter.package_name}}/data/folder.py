"""Your own images, below `data/raw`: a folder for each label, or a list of them. `docs/data.md` shows the layouts.

Image files are kept as they are, byte for byte; `images.py` says which are taken.
"""

from collections.abc import Iterator
from pathlib import Path

from mlops import ProjectError, Record, list_files, params, read_file

from ..images import ImageError, open_image
from . import DataParams

RAW = Path("data/raw")


def records() -> Iterator[Record]:
    """Yield a record for each image; it is read, and checked, when it is used."""
    return list_files(RAW, params("data", DataParams).folders)


def read(path: str) -> bytes:
    """Read an image file whole, after decoding it whole.

    Raises:
        ProjectError: It can't be read, or is no image that training could use.
    """
    content = read_file(RAW, path)
    try:
        open_image(content, shrink=True)
    except ImageError as error:
        raise ProjectError(f"{path!r} {error}", f"correct the file, or take it out of {RAW.as_posix()}") from error
    return content

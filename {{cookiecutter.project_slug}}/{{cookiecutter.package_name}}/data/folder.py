"""Your own images, below `data/raw`: a folder for each label, or a list of them. `docs/data.md` shows the layouts.

Image files are kept as they are, byte for byte; `images.py` says which are taken.
"""

from collections.abc import Iterator
from pathlib import Path

from mlops import ProjectError, Record, list_files, params, read_file

from ..images import ImageError, open_image
from . import DataParams

RAW = Path("data/raw")
NOT_TAKEN = {  # by what is in the first bytes of a file, whatever its name
    b"ftyphei": ("is HEIC", "convert it to JPEG or PNG"),
    b"ftypmif1": ("is HEIF", "convert it to JPEG or PNG"),
    b"ftypavif": ("is AVIF", "convert it to JPEG or PNG"),
    b"https://git-lfs": ("is a pointer of Git LFS, not the image", "git lfs pull"),
}


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
        known = (NOT_TAKEN[mark] for mark in NOT_TAKEN if mark in content[:40])
        problem, fix = next(known, (str(error) if content else "is empty, 0 bytes", "correct the file"))
        fix = f"{fix}, or take it out of {RAW.as_posix()}, and of the list if there is one"
        raise ProjectError(f"{path!r} {problem}", fix) from error
    return content

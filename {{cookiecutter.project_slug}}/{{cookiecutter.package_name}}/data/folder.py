"""Your own images: files below `data/raw`, and `data/raw/records.csv` that says what they are.

    record_id,subject_id,label,path
    scan-00123,patient-7,healthy,images/00123.jpg

`path` is relative to `data/raw`. Image files are kept as they are, byte for byte; `images.py` says which are taken.
"""

import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mlops import ProjectError, Record, read_csv

from ..images import ImageError, open_image

RAW = Path("data/raw")
COLUMNS = ("record_id", "subject_id", "label", "path")


def records(raw: Path = RAW) -> Iterator[Record]:
    """Yield a record per row of `records.csv`; images are read, and checked, when they are used.

    Raises:
        ProjectError: `records.csv` isn't there, can't be read or is malformed; or DVC does not watch the folder.
    """
    for line, (record_id, subject_id, label, path) in read_csv(raw / "records.csv", COLUMNS):
        origin = f"{(raw / 'records.csv').as_posix()} line {line}"
        yield Record(record_id, subject_id, label, read=partial(read_image, raw, path, origin), origin=origin)


def read_image(raw: Path, path: str, origin: str) -> bytes:
    """Read an image file whole, after decoding it whole.

    Args:
        raw: The folder that holds the images.
        path: Relative to `raw`, which it must not leave, not even through a symbolic link.
        origin: Where the path is written, for errors.

    Raises:
        ProjectError: The path is empty, absolute or leads out; the file isn't there or can't be read; it is cut short,
            or no image that training could use.
    """
    fix = f"restore the files, or take the rows out of {raw.as_posix()}/records.csv"
    try:
        _refuse_outside(raw, path, origin)
        if not stat.S_ISREG((raw / path).stat().st_mode):  # reading a pipe would not end
            raise ValueError("it is a folder, a pipe or a device, not a file")
        content = (raw / path).read_bytes()
        open_image(content)
    except ImageError as error:
        raise ProjectError(f"{origin}: {path!r} {error}", fix) from error
    except (OSError, RuntimeError, ValueError) as error:  # the last two: a loop of links, a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise ProjectError(f"{origin}: {path!r} can't be read: {reason}", fix) from error
    return content


def _refuse_outside(raw: Path, path: str, origin: str) -> None:
    if not path or Path(path).is_absolute() or not (raw / path).resolve().is_relative_to(raw.resolve()):
        raise ProjectError(
            f"{origin}: path {path!r} is not a file inside {raw.as_posix()}",
            f"put the image below {raw.as_posix()}; if DVC linked it there: dvc unprotect {raw.as_posix()}",
        )

"""Write the dataset as image files, for tools that want a folder per label."""

from pathlib import Path
from urllib.parse import quote

from ..contract import interface
from ..errors import ProjectError
from ..files import atomic_write
from . import shards


def export(dataset: Path, folder: Path) -> int:
    """Write `<folder>/<split>/<label>/<record_id>.<ext>` with the images' own bytes.

    Args:
        dataset: The dataset directory.
        folder: A folder that doesn't exist yet.

    Returns:
        How many images were written.

    Raises:
        ProjectError: The folder exists, the dataset doesn't, or it holds an image that this project doesn't open.
    """
    if folder.exists():
        raise ProjectError(f"{folder} exists already", "name a new folder, or remove it")
    splits = sorted(path for path in dataset.glob("*") if path.is_dir())
    if not splits:
        raise ProjectError(f"there is no dataset in {dataset}", "dvc repro prepare, or dvc pull prepare")
    count = 0
    with atomic_write(folder) as new:
        for split in splits:
            for file in shards.shard_files(split):
                for row in shards.read_shard(file).to_pylist():
                    _write(new / split.name, row["label"], row["record_id"], row["image"])
                    count += 1
    return count


def _write(folder: Path, label: str, record_id: str, image: bytes) -> None:
    try:
        extension = interface().decode(image)
    except ValueError as error:
        raise ProjectError(
            f"the content of record {record_id!r} {error}", "correct the source, then: dvc repro"
        ) from error
    # An id may hold what a file name can't, such as a slash.
    target = folder / quote(label, safe=" ") / f"{quote(record_id, safe=' ')}.{extension}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(image)

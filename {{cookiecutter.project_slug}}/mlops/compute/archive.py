"""The code that a job runs: the files of one commit, and nothing else of the clone that starts it."""

import gzip
import tarfile
import tempfile
from pathlib import Path

from ..files import atomic_write
from ..tracking import checkout


def pack(commit: str, path: Path) -> None:
    """Write the project's files at a commit as a .tar.gz: the same bytes for the same commit."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_write(path) as new,
        new.open("wb") as target,
        gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as files,
    ):
        # Not `git archive`: it leaves out submodules, and what attributes tell it to.
        code = checkout.write(commit, Path(scratch))
        for file in sorted(code.rglob("*")):
            files.add(file, file.relative_to(code).as_posix(), recursive=False, filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Take away what differs between persons and times."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a tar below `folder`.

    Raises:
        tarfile.TarError: It is damaged, or one of them would be outside.
    """
    with tarfile.open(path) as packed:
        # Python knows the filter since 3.11.4. Before, it is enough that the file is our own.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)  # noqa: S202 (filtered)

"""The code that a job runs: the files of one commit, and nothing else of the clone that starts it."""

import gzip
import shutil
import tarfile
import tempfile
from pathlib import Path

from ..files import replacing
from ..tracking.git import git

# A person's setting would change the bytes.
UMASK = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "tar.umask", "GIT_CONFIG_VALUE_0": "0022"}


def pack(commit: str, path: Path) -> None:
    """Write the project's files at a commit as a .tar.gz: the same bytes for the same commit."""
    with tempfile.TemporaryDirectory() as scratch, replacing(path) as new:
        plain = Path(scratch, "code.tar")
        # Of a repository with several projects: this one's folder.
        git("archive", "--format=tar", f"--output={plain}", commit, env=UMASK)
        with (
            plain.open("rb") as source,
            new.open("wb") as target,
            gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as packed,
        ):
            shutil.copyfileobj(source, packed)


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a tar below `folder`.

    Raises:
        tarfile.TarError: It is damaged, or one of them would be outside.
    """
    with tarfile.open(path) as packed:
        # Python knows the filter since 3.11.4. Before, it is enough that the file is our own.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)  # noqa: S202 (filtered)

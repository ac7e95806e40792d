"""What DVC keeps of earlier commits: in the cache, else in the remote. The work tree is not touched."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ProjectError
from .git import git
from .snapshot import LOCK


class LostError(ProjectError):
    """Bytes that a commit names are nowhere."""


class Archive:
    """DVC's cache and remote, by hash; a context manager."""

    def __init__(self) -> None:
        from dvc.repo import Repo

        self._repo = Repo(os.getcwd())
        self._cache = self._repo.cache.local

    def __enter__(self) -> "Archive":
        """Open it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self._repo.close()

    def fetch(self, hashes: Iterable[str]) -> None:
        """Bring what the cache lacks from the remote, all at once; what the remote lacks too is left out.

        Raises:
            ProjectError: The remote can't be reached.
        """
        wanted = set(hashes)
        try:
            self._pull(wanted)  # of a folder, that is its list of files
            self._pull({file for value in wanted for file in self._files(value)})
        except Exception as error:  # each kind of remote lets its own kinds of errors through
            raise ProjectError(
                f"the DVC remote does not give the results: {error.__cause__ or error}",
                "mend the connection (dvc remote list; dvc fetch), then the same command again",
            ) from error

    def _files(self, value: str) -> list[str]:
        try:
            return [found.value for _, _, found in self._list(value)]
        except LostError:  # `copy` tells of it; the others are fetched
            return []

    def _pull(self, values: set[str]) -> None:
        from dvc_data.hashfile.hash_info import HashInfo

        lacking = [HashInfo("md5", value) for value in sorted(values) if not self._path(value).is_file()]
        if lacking:
            self._repo.cloud.pull(lacking)

    def copy(self, value: str, target: Path) -> None:
        """Write the file or folder with this hash to `target`.

        Raises:
            LostError: The cache has not all of it.
        """
        if not self._has(value):
            raise LostError(f"{value} is neither in DVC's cache nor in its remote", "dvc push, in a clone that has it")
        if not value.endswith(".dir"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._path(value), target)
            with target.open("rb") as file:
                if hashlib.file_digest(file, "md5").hexdigest() != value:
                    raise self._damaged(value)
            return
        for key, _, found in self._list(value):
            self.copy(found.value, target.joinpath(*key))

    def _has(self, value: str) -> bool:
        return self._path(value).is_file() and all(self._has(found.value) for _, _, found in self._list(value))

    def _list(self, value: str) -> Any:
        """Return what a folder holds, as far as it is known; nothing for a file."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree
        from dvc_objects.errors import ObjectFormatError

        if not value.endswith(".dir") or not self._path(value).is_file():
            return ()
        try:
            return Tree.load(self._cache, HashInfo("md5", value))
        except ObjectFormatError as error:
            raise self._damaged(value) from error

    def _damaged(self, value: str) -> LostError:
        path = self._path(value)
        return LostError(f"{path} is damaged", f"delete it: {path}; then the same command again")

    def _path(self, value: str) -> Path:
        return Path(self._cache.oid_to_path(value))

    def file_of_git(self, commit: str, path: str) -> bytes | None:
        """Return a file that Git keeps at a commit, or None when it isn't there; `path` from the project's root."""
        files = self._repo.scm.get_fs(commit)
        name = git("rev-parse", "--show-prefix") + path
        return bytes(files.cat_file(name)) if files.exists(name) else None


def md5(content: bytes) -> str:
    """Return the hash by which DVC names a file."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def hashes_of(commit: str) -> dict[str, str]:
    """Return the hashes that `dvc.lock` of a commit names: all outputs, and what `train` read.

    Raises:
        ProjectError: There is none, or it can't be read.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        stages = YAML(typ="safe").load(git("show", f"{commit}:./{LOCK}"))["stages"]
        made = {one["path"]: one["md5"] for stage in stages.values() for one in stage.get("outs", []) if "md5" in one}
        read = {one["path"]: one["md5"] for one in stages.get("train", {}).get("deps", []) if "md5" in one}
    except (YAMLError, KeyError, TypeError) as error:
        raise ProjectError(f"{LOCK} of commit {commit[:10]} can't be read: {error!r}", f"git show {commit}") from error
    return {**made, **read}

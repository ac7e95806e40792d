"""Which files are read below a path, through symbolic links: a commit must hold each link and what it leads to."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import ProjectError

LIMIT = 40  # links on the way to one file; Linux follows no more
SKIPPED = (".git", "__pycache__")


class Reader:
    """Collects files and links, by paths without a link on the way.

    Args:
        root: The top folder of the Git repository, without links. All that is read must be below it.
        kept: Files and folders below it that DVC keeps; they are left out.
        deps: Folders and files that DVC hashes.

    Attributes:
        files: Regular files.
        links: Symbolic links that lead to them.
    """

    def __init__(self, root: Path, kept: Sequence[Path], deps: Collection[Path]) -> None:
        self.root, self.kept, self.deps = root, kept, deps
        self.files: set[Path] = set()
        self.links: set[Path] = set()
        self._folders: set[Path] = set()

    def read(self, path: Path) -> None:
        """Take in a file, or all that is in a folder; what does not exist is left out.

        Args:
            path: Absolute and normalised.

        Raises:
            ProjectError: It is outside the repository, a link can't be stored in a commit, or it is no regular file.
        """
        if self._keeper(path):
            return
        real = self._resolve(path)
        if real != path:
            self._check_target(path, real)
        if real.is_dir():
            if real not in self._folders:
                self._folders.add(real)
                for name in sorted(set(os.listdir(real)) - set(SKIPPED)):
                    self.read(real / name)
        elif real.is_file():
            self.files.add(real)
        elif os.path.lexists(real):
            raise ProjectError(f"{shown(path)} is no regular file", f"remove {shown(path)}, or put a file in its place")

    def _resolve(self, path: Path) -> Path:
        """Return where a path leads, step by step, and note the links on the way."""
        if not path.is_relative_to(self.root):
            raise ProjectError(
                f"the run would depend on {shown(path)}, which is outside the Git repository {self.root}, so no commit "
                "can hold it",
                f"copy it into the repository and name that in dvc.yaml; data: dvc import-url {shown(path)} data/raw",
            )
        todo, here, passed = list(reversed(path.relative_to(self.root).parts)), self.root, 0
        while todo:
            part = todo.pop()
            step = here.parent if part == ".." else here / part
            if not step.is_relative_to(self.root):
                raise _bad_link(path, f"that leads outside the Git repository {self.root}")
            if not step.is_symlink():
                here = step
                continue
            target, passed = os.readlink(step), passed + 1
            if os.path.isabs(target):
                raise _bad_link(step, f"to the absolute address {target}, which is another file elsewhere")
            if passed > LIMIT:
                raise _bad_link(step, "that leads to itself")
            self.links.add(step)
            todo.extend(reversed(Path(target).parts))
        return here

    def _check_target(self, path: Path, real: Path) -> None:
        if keeper := self._keeper(real):
            raise _bad_link(path, f"into {shown(keeper)}, which DVC keeps and Git does not")
        hashed = any(path.is_relative_to(dep) and path != dep for dep in self.deps)
        if hashed and real.is_dir() and not any(real.is_relative_to(dep) for dep in self.deps):
            raise ProjectError(
                f"DVC does not look into {shown(path)}, a link to a folder, so a change there would run nothing again",
                f"add `- {shown(real)}` to the deps of the stage in dvc.yaml, or put the files in place of the link",
            )

    def _keeper(self, path: Path) -> Path | None:
        return next((out for out in self.kept if path.is_relative_to(out)), None)


def shown(path: Path) -> str:
    """Return a path from the working directory, for people."""
    return Path(os.path.relpath(path)).as_posix().encode(errors="replace").decode()


def _bad_link(path: Path, how: str) -> ProjectError:
    return ProjectError(
        f"{shown(path)} is a link {how}, so no commit can hold what it gives",
        f"put the file itself in place of the link, or a relative link to a file that Git tracks: {shown(path)}",
    )

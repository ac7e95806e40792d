"""The versions of the template, in its Git repository."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hooks.post_gen_project import without_credentials

from .errors import UpdateError
from .git import git, list_files, read_files, succeeds

SKELETON = "{{cookiecutter.project_slug}}/"
PACKAGE = "{{cookiecutter.package_name}}"
LOCK, PINS, PYPROJECT = "requirements.lock", "environment.json", "pyproject.toml"
MACHINERY = ("mlops", LOCK, PINS, PYPROJECT)
"""What an update looks at; of `pyproject.toml`, only the lists of packages."""


@dataclass(frozen=True)
class Template:
    """A clone of the template, at the version that a project is updated to.

    Args:
        root: Its top folder.
        address: Where it was cloned from, without credentials.
    """

    root: Path
    address: str

    @cached_property
    def commit(self) -> str:
        """The commit of the new version."""
        return git(self.root, "rev-parse", "HEAD")

    @cached_property
    def prompts(self) -> dict[str, Any]:
        """The content of `cookiecutter.json` of the new version."""
        content: dict[str, Any] = json.loads(git(self.root, "show", "HEAD:cookiecutter.json"))
        return content

    @property
    def version(self) -> str:
        """The number of the new version."""
        return str(self.prompts["_version"])

    def is_later(self, commit: str) -> bool:
        """Return whether a commit comes after the new version."""
        return commit != self.commit and succeeds(self.root, "merge-base", "--is-ancestor", "HEAD", commit)

    def knows(self, commit: str) -> bool:
        """Return whether the clone has a commit."""
        return succeeds(self.root, "cat-file", "-e", f"{commit}^{{commit}}")

    def machinery(self, commit: str) -> dict[str, bytes]:
        """Return the files that an update looks at, as of a commit, by their paths in a project."""
        files = read_files(self.root, commit, *(SKELETON + path for path in MACHINERY))
        return {path.removeprefix(SKELETON): content for path, content in files.items()}

    def closest_commit(self, files: Mapping[str, str]) -> str:
        """Return the commit that has most of a project's files: the last of these, if there are several.

        Args:
            files: The ids of the project's files below `mlops/`, and of its lock.
        """
        paths = (f"{SKELETON}mlops", f"{SKELETON}{LOCK}")
        commits = git(self.root, "log", "--format=%H", "HEAD", "--", *paths).split()

        def equal_files(commit: str) -> int:
            known = list_files(self.root, commit, *paths)
            return sum(known.get(f"{SKELETON}{path}") == name for path, name in files.items())

        return max(commits, key=equal_files)

    def changed_files(self, commit: str, package: str) -> list[str]:
        """Return the files that differ between a commit and the new version and are not part of an update.

        Args:
            commit: The commit.
            package: The name of the team's package, as the paths have it.
        """
        changed = git(self.root, "diff", "--name-only", "--no-renames", "-z", commit, "HEAD", "--", SKELETON)
        paths = [path.removeprefix(SKELETON) for path in changed.split("\0") if path]
        others = [path for path in paths if path.split("/")[0] not in MACHINERY or path == PYPROJECT]
        return [path.replace(PACKAGE, package) for path in others]


def open_template(root: Path, address: str) -> Template:
    """Return the clone that this code is part of.

    Args:
        root: Its top folder.
        address: Where it was cloned from; "" means what Git knows as its origin, or the folder itself.

    Raises:
        UpdateError: The folder is no Git repository, so it has no versions.
    """
    if not (root / ".git").exists():
        raise UpdateError(f"{root} is no Git repository, so it has no versions", "git clone the template")
    if not address:
        has_origin = succeeds(root, "remote", "get-url", "origin")
        address = git(root, "remote", "get-url", "origin") if has_origin else root.as_posix()
    return Template(root, without_credentials(address))

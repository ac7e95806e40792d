"""Read and write Git repositories: the template's clone, and the project."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hooks.post_gen_project import LOCATED

from .errors import UpdateError


class GitError(UpdateError):
    """A command of Git failed; the problem holds its message."""


def git_bytes(folder: Path, *command: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
    """Run Git in a folder and return its output; raise GitError if it failed."""
    inherited = {name: value for name, value in os.environ.items() if name not in LOCATED}
    try:
        done = subprocess.run(
            ["git", *command], cwd=folder, env={**inherited, **(env or {})}, input=stdin, capture_output=True
        )
    except FileNotFoundError as error:
        raise UpdateError("git is not installed", "install git") from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise GitError(f"git {command[0]}: {message}", f"correct what Git reports: git {' '.join(command)}")
    return done.stdout


def git(folder: Path, *command: str, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run Git in a folder and return its output as text, without the last newline."""
    output = git_bytes(folder, *command, stdin=stdin.encode(errors="surrogateescape"), env=env)
    return output.decode(errors="surrogateescape").removesuffix("\n")


def succeeds(folder: Path, *command: str) -> bool:
    """Return whether a command of Git succeeds."""
    try:
        git_bytes(folder, *command)
    except GitError:
        return False
    return True


def list_files(folder: Path, rev: str, *paths: str) -> dict[str, str]:
    """Return the ids of the files of a commit below some paths, by their paths from the repository's top folder."""
    listed = git(folder, "--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", rev, "--", *paths)
    entries = (line.partition("\t") for line in listed.split("\0") if line)
    return {path: entry.split()[2] for entry, _, path in entries if entry.split()[1] == "blob"}


def read_files(folder: Path, rev: str, *paths: str) -> dict[str, bytes]:
    """Return the content of the files of a commit below some paths, by their paths from the repository's top folder."""
    ids = list_files(folder, rev, *paths)
    output = git_bytes(folder, "cat-file", "--batch", stdin="".join(f"{name}\n" for name in ids.values()).encode())
    contents, start = {}, 0
    for path in ids:
        header = output.index(b"\n", start)
        size = int(output[start:header].split()[2])
        contents[path] = output[header + 1 : header + 1 + size]
        start = header + 1 + size + 1
    return contents

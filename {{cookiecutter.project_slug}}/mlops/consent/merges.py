"""Lines of the registry that a merge lost: it took one side's lines, and a withdrawal of the other side is gone."""

import subprocess
from collections.abc import Iterator
from functools import cache

from ruamel.yaml import YAML

from ..errors import ProjectError
from ..records import consent
from ..records.consent import Entry
from . import storage
from .storage import KEPT, NAME


def lost(now: bytes) -> tuple[list[str], list[str]]:
    """Compare the registry with what the merges in the history of HEAD had before them.

    A line is lost if a parent had it, and neither the merge nor the registry has it. What somebody took out in a commit
    before the merge was not lost in it.

    Args:
        now: The registry.

    Returns:
        The lines that were lost, and versions that can't be compared, a text each.
    """
    present = set(map(storage.key, consent.entries(now, NAME)))
    gone: dict[str, None] = {}
    unread: dict[str, None] = {}
    if _git("rev-parse", "--is-shallow-repository").strip() == "true":
        unread["this clone is shallow, so merges may be cut off its history: git fetch --unshallow"] = None
    for commit, parents in _merges():
        try:
            for entry, parent in _lost(commit, parents):
                if storage.key(entry) not in present:
                    line = " ".join(filter(None, storage.key(entry)))
                    where = f"of commit {parent[:10]} that the merge {commit[:10]} lost"
                    gone[f"{NAME} lacks a line {where}: {line}"] = None
        except ProjectError as error:
            unread[f"the merge {commit[:10]} can't be compared: {error.problem}. {error.fix}"] = None
    return list(gone), list(unread)


def _merges() -> Iterator[tuple[str, list[str]]]:
    # Without --full-history, Git leaves out just those merges that took one side's file.
    paths = [f"./{NAME}", f"./{KEPT.as_posix()}"]
    for line in _git("rev-list", "--merges", "--full-history", "--parents", "HEAD", "--", *paths).splitlines():
        commit, *parents = line.split()
        yield commit, parents


def _lost(commit: str, parents: list[str]) -> Iterator[tuple[Entry, str]]:
    after = _keys(commit)
    for parent in parents:
        for other in (one for one in parents if one != parent):
            base = _keys(_git("merge-base", parent, other).strip())
            removed = base - _keys(other)  # on purpose, by a commit of the other side
            for key, entry in _entries(parent).items():
                if key not in after | removed:
                    yield entry, parent


def _keys(commit: str) -> set[tuple[str, str, str]]:
    return set(_entries(commit))


def _entries(commit: str) -> dict[tuple[str, str, str], Entry]:
    content = _content(commit) if commit else b""
    return {storage.key(one): one for one in consent.entries(content, f"{NAME} of {commit[:10]}")} if content else {}


@cache
def _content(commit: str) -> bytes:
    """Return the registry at a commit; nothing where it has none.

    Raises:
        ProjectError: DVC keeps it, and its cache on this machine lacks that version.
    """
    if _git("ls-tree", commit, "--", f"./{NAME}"):
        return subprocess.run(["git", "show", f"{commit}:./{NAME}"], capture_output=True, check=True).stdout
    if not _git("ls-tree", commit, "--", f"./{KEPT.as_posix()}"):
        return b""
    kept = YAML(typ="safe").load(_git("show", f"{commit}:./{KEPT.as_posix()}"))
    return storage.cached(str(kept["outs"][0]["md5"]), f"of commit {commit[:10]}", "dvc fetch --all-commits")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, encoding="utf-8")
    return "" if done.returncode else done.stdout  # no repository, no commit, no common ancestor: nothing to compare

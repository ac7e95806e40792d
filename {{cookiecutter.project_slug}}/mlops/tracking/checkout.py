"""What a fresh checkout of a commit gives: written to a folder, or compared with what a stage is about to read.

Git stores less than what is read: of a submodule its commit, of a link its target, of a file what filters and
attributes make of it. A commit names what was read only where a checkout gives back the same bytes.
"""

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ProjectError
from .git import GitError, git, paths, untracked_error
from .links import Reader, shown

# As in a clone of somebody without settings: a commit must not mean other bytes to another person.
PLAIN = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", f"core.attributesFile={os.devnull}")
SUBMODULE = "160000"  # Git's mode of an entry that names a commit


@dataclass(frozen=True)
class _Repository:
    """A repository with an index of its own: the project's, or a submodule's.

    Args:
        root: Its top folder.
        index: The index file.
        above: The repository that it is a submodule of; None for the project's.
    """

    root: Path
    index: Path
    above: "_Repository | None" = None

    def git(self, *args: str, stdin: str | None = None, **env: str) -> str:
        """Run git with this index."""
        return git(*args, where=self.root, env={"GIT_INDEX_FILE": str(self.index), **env}, stdin=stdin)

    def entries(self) -> dict[str, tuple[str, str]]:
        """Return mode and object of each entry of the index, by name."""
        lines = (line.partition("\t") for line in paths(self.git("ls-files", "--stage", "-z")))
        return {name: (about.split()[0], about.split()[1]) for about, _, name in lines}


def add_and_check(index: Path, reader: Reader) -> None:
    """Add to an index what is read, as it is now, and see that a checkout of it gives the same bytes.

    Args:
        index: Of the project's repository. Files of it that are read must be tracked, there or in the real index.
        reader: What is read.

    Raises:
        ProjectError: Git does not track a file, a submodule was edited and not committed, or a file would come back
            with other bytes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        repositories = {reader.root: _Repository(reader.root, index)}
        contents: dict[Path, list[str]] = {}
        for path in sorted(reader.files | reader.links):
            owner = _owner(path.parent, repositories, Path(scratch))
            contents.setdefault(owner, []).append(path.relative_to(owner).as_posix())
        for root, repository in repositories.items():  # those above come before those inside
            names = contents.get(root, [])
            if repository.above is None:
                _add(repository, names)
            else:
                _pin(repository, repository.above)
                _refuse_uncommitted(repository, names)
        for number, (root, names) in enumerate(contents.items()):
            _compare(repositories[root], names, Path(scratch, f"restored-{number}"))


def _owner(folder: Path, repositories: dict[Path, _Repository], scratch: Path) -> Path:
    """Return the top folder of the repository that a folder belongs to, and get to know that repository."""
    if folder in repositories:
        return folder
    above = _owner(folder.parent, repositories, scratch)
    if not os.path.lexists(folder / ".git"):
        return above
    made = _Repository(folder, scratch / f"index-{len(repositories)}", repositories[above])
    try:
        made.git("read-tree", "HEAD")
    except GitError as error:
        raise ProjectError(
            f"{shown(folder)} is a Git repository without a commit", f"rm -r {shown(folder)}/.git"
        ) from error
    repositories[folder] = made
    return folder


def _add(repository: _Repository, names: Sequence[str]) -> None:
    """Bring files into the index of the project's repository."""
    new = git("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "-z", "HEAD", where=repository.root)
    tracked = repository.entries().keys() | set(paths(new))
    if missing := [shown(repository.root / name) for name in names if name not in tracked]:
        raise untracked_error(missing)
    if names:
        options = ("--force", "--pathspec-from-file=-", "--pathspec-file-nul")
        repository.git("add", *options, stdin=_listed(names), GIT_LITERAL_PATHSPECS="1")


def _pin(inner: _Repository, outer: _Repository) -> None:
    """Make the index of the outer repository name the commit that is checked out in a submodule."""
    name, head = inner.root.relative_to(outer.root).as_posix(), git("rev-parse", "HEAD", where=inner.root)
    mode, commit = outer.entries().get(name, ("", ""))
    if mode != SUBMODULE:
        raise ProjectError(
            f"{shown(inner.root)} is a Git repository of its own, of which no commit of this one tells",
            f"git submodule add <address> {shown(inner.root)}; or, without its history: rm -r {shown(inner.root)}/.git",
        )
    if outer.above is None:
        outer.git("update-index", "--cacheinfo", f"{SUBMODULE},{head},{name}")
    elif commit != head:
        raise _uncommitted(outer, [name])


def _refuse_uncommitted(repository: _Repository, names: Sequence[str]) -> None:
    tracked = repository.entries()
    if missing := [name for name in names if name not in tracked]:
        raise _uncommitted(repository, missing)


def _uncommitted(repository: _Repository, names: Sequence[str]) -> ProjectError:
    listed = [shown(repository.root / name) for name in names[:5]]
    where, what = shown(repository.root), " ".join(name.encode(errors="replace").decode() for name in names[:5])
    return ProjectError(
        f"the run would depend on {', '.join(listed)}, changed in the submodule {where} and in no commit of it",
        f"git -C {where} add {what} && git -C {where} commit, and publish it: git -C {where} push",
    )


def _compare(repository: _Repository, names: Sequence[str], folder: Path) -> None:
    """See that a checkout of the index gives what is here."""
    _write(repository, names, folder)
    changed = [name for name in names if not _same(repository.root / name, folder / name)]
    if repository.above and changed:
        raise _uncommitted(repository, changed)
    if changed:
        names = [shown(repository.root / name) for name in changed]
        raise ProjectError(
            f"a checkout would give other bytes than {', '.join(names[:5])} has here: attributes of Git change them",
            f"see which: git check-attr -a -- {names[0]}; take them out of .gitattributes and .git/info/attributes, or "
            "give the file the bytes of a checkout (such as line ends)",
        )


def _same(here: Path, restored: Path) -> bool:
    if here.is_symlink() or restored.is_symlink():
        return here.is_symlink() and restored.is_symlink() and os.readlink(here) == os.readlink(restored)
    return restored.is_file() and filecmp.cmp(here, restored, shallow=False)


def write(commit: str, folder: Path) -> Path:
    """Write the project's files at a commit, with those of its submodules, as a fresh checkout has them.

    Args:
        commit: A commit of this clone.
        folder: Where to; it stands for the top of the Git repository.

    Returns:
        The project's folder in it.

    Raises:
        ProjectError: There is no such commit, or a submodule has not the one that this one names.
    """
    top, project = Path(git("rev-parse", "--show-toplevel")), git("rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory() as scratch:
        _write_tree(_Repository(top, Path(scratch, "index")), commit, project, folder)
    return folder / project


def _write_tree(repository: _Repository, commit: str, prefix: str, folder: Path) -> None:
    repository.git("read-tree", commit)
    entries = {name: entry for name, entry in repository.entries().items() if name.startswith(prefix)}
    _write(repository, [name for name, (mode, _) in entries.items() if mode != SUBMODULE], folder)
    for name, (mode, inner) in entries.items():
        root = repository.root / name
        if mode == SUBMODULE and os.path.lexists(root / ".git"):  # else it is not here, so nothing of it was read
            index = repository.index.with_name(f"{repository.index.name}-{inner}")
            _write_tree(_Repository(root, index), inner, "", folder / name)


def _write(repository: _Repository, names: Iterable[str], folder: Path) -> None:
    """Check files out of the index of a repository into a folder, as a clone without settings of its own would."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of a worktree, the Git directory of the repository that it is of.
    git_dir = (repository.root / git("rev-parse", "--git-common-dir", where=repository.root)).resolve()
    lfs = ("-c", f"lfs.storage={git_dir / 'lfs'}")  # Git LFS has the files that it keeps there
    with tempfile.TemporaryDirectory() as scratch:
        _copy_settings(git_dir, Path(scratch))
        env = {
            "GIT_DIR": scratch,
            "GIT_OBJECT_DIRECTORY": str(git_dir / "objects"),
            "GIT_INDEX_FILE": str(repository.index),
            # In a work tree without files, Git takes the attributes of the index: the commit holds those.
            "GIT_WORK_TREE": str(folder),
            "GIT_ATTR_NOSYSTEM": "1",
        }
        git(*PLAIN, *lfs, "checkout-index", "--stdin", "-z", where=folder, env=env, stdin=_listed(names))


def _copy_settings(git_dir: Path, folder: Path) -> None:
    """Make a Git directory with the configuration of another, which may name filters, and without its attributes."""
    (folder / "refs").mkdir()
    (folder / "HEAD").write_text("ref: refs/heads/nothing\n", encoding="utf-8")
    shutil.copy(git_dir / "config", folder)


def _listed(names: Iterable[str]) -> str:
    return "".join(f"{name}\0" for name in names)

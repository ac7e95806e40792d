"""What a fresh checkout of a commit gives: written to a folder, or compared with what a stage is about to read.

Git stores less than what is read: of a submodule its commit, of a link its target, of a file the output of filters and
attributes. A commit names what was read only where a checkout gives back the same bytes.
"""

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProjectError
from .git import GitError, git, paths, untracked_error

if TYPE_CHECKING:
    from dvc.repo import Repo

# As in a clone without user settings: a commit must not mean other bytes to another person.
PLAIN = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", f"core.attributesFile={os.devnull}")
SUBMODULE = "160000"  # Git's mode of an entry that names a commit


def ignored_by_dvc(repo: "Repo") -> Callable[[str], bool]:
    """Return a function that tells whether DVC ignores an absolute path; it works when `repo` is closed too."""
    return partial(repo.dvcignore.is_ignored, repo.fs, ignore_subrepos=False)


@dataclass
class Reader:
    """The files that are read, and the symbolic links that lead to them: a commit must hold both."""

    root: Path  # the top folder of the Git repository, without links; everything that is read must be below it
    cached: Sequence[Path]  # files and folders below it that DVC stores; they are left out
    deps: Collection[Path]  # folders and files that DVC hashes
    is_ignored: Callable[[str], bool]  # whether DVC ignores a path, such as an editor's swap file: it is not read
    files: set[Path] = field(default_factory=set)  # regular ones, by paths without a link on the way
    links: set[Path] = field(default_factory=set)  # symbolic ones on the way to them
    _folders: set[Path] = field(default_factory=set)

    def read(self, path: Path) -> None:
        """Add a file, or a folder's, by its absolute, normalised path; raise ProjectError if no commit can hold it."""
        if any(path.is_relative_to(out) for out in self.cached):
            return
        real = self._resolve(path)
        for out in self.cached:
            if real.is_relative_to(out):
                raise _link_error(path, f"into {shown(out)}, which DVC keeps and Git does not")
        hashed = real != path and any(path.is_relative_to(dep) and path != dep for dep in self.deps)
        if hashed and real.is_dir() and not any(real.is_relative_to(dep) for dep in self.deps):
            raise ProjectError(
                f"DVC does not look into {shown(path)}, a link to a folder, so a change there would run nothing again",
                f"add `- {shown(real)}` to the deps of the stage in dvc.yaml, or put the files in place of the link",
            )
        if real.is_dir():
            if real not in self._folders:
                self._folders.add(real)
                for name in sorted(set(os.listdir(real)) - {".git", "__pycache__"}):
                    if not self.is_ignored(str(real / name)):
                        self.read(real / name)
        elif real.is_file():
            self.files.add(real)
        elif os.path.lexists(real):
            raise ProjectError(f"{shown(path)} is no regular file", f"remove {shown(path)}, or put a file in its place")

    def _resolve(self, path: Path) -> Path:
        """Return where a path leads, step by step, and add the links on the way."""
        if not path.is_relative_to(self.root):
            problem = f"the run would depend on {path}, which is outside the Git repository {self.root}"
            fix = f"dvc import-url {path} data/raw (code: copy it into the repository), and name that in dvc.yaml"
            raise ProjectError(f"{problem}, so no commit can hold it", fix)
        todo, folder, followed = list(reversed(path.relative_to(self.root).parts)), self.root, 0
        while todo:
            part = todo.pop()
            step = folder.parent if part == ".." else folder / part
            if not step.is_relative_to(self.root):
                raise _link_error(path, f"that leads outside the Git repository {self.root}")
            if not step.is_symlink():
                folder = step
                continue
            target, followed = os.readlink(step), followed + 1
            if os.path.isabs(target):
                raise _link_error(step, f"to the absolute address {target}, which is another file elsewhere")
            if followed > 40:  # Linux follows no more
                raise _link_error(step, "that leads to itself")
            self.links.add(step)
            todo.extend(reversed(Path(target).parts))
        return folder


def shown(path: Path) -> str:
    """Return a path as messages print it: relative to the working directory."""
    return Path(os.path.relpath(path)).as_posix().encode(errors="replace").decode()


def _link_error(path: Path, problem: str) -> ProjectError:
    fix = f"put the file itself in place of the link, or a relative link to a file that Git tracks: {shown(path)}"
    return ProjectError(f"{shown(path)} is a link {problem}, so no commit can hold what it gives", fix)


@dataclass
class _Repository:
    """A repository with an index of its own: the project's, or a submodule's."""

    root: Path  # its top folder
    index: Path
    parent: "_Repository | None" = None  # the repository that it is a submodule of; None for the project's
    names: list[str] = field(default_factory=list)  # of the files in question, from its top folder

    def git(self, *args: str, stdin: str | None = None, **env: str) -> str:
        return git(*args, where=self.root, env={"GIT_INDEX_FILE": str(self.index), **env}, stdin=stdin)

    def entries(self) -> dict[str, list[str]]:
        """Return mode, object and stage of each entry of the index, by name."""
        lines = (line.partition("\t") for line in paths(self.git("ls-files", "--stage", "-z")))
        return {name: entry.split() for entry, _, name in lines}


def add_and_check(index: Path, reader: Reader) -> None:
    """Add to an index of the project's repository the files that are read, and check what a checkout of it gives.

    It raises ProjectError if Git tracks a file neither in this index nor in the real one, a submodule was edited and
    not committed, or a checkout would give a file other bytes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        project = _Repository(reader.root, index)
        repositories = {project.root: project}
        for path in sorted(reader.files | reader.links):
            repository = _repository_of(path.parent, repositories, Path(scratch))
            repository.names.append(path.relative_to(repository.root).as_posix())
        new = git("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "-z", "HEAD", where=reader.root)
        tracked = project.entries().keys() | set(paths(new))
        if missing := [shown(project.root / name) for name in project.names if name not in tracked]:
            raise untracked_error(missing)
        if project.names:
            options = ("--force", "--pathspec-from-file=-", "--pathspec-file-nul")
            project.git("add", *options, stdin="\0".join(project.names), GIT_LITERAL_PATHSPECS="1")
        for repository in repositories.values():  # outer repositories come before their submodules
            if repository.parent:
                _pin_submodule(repository, repository.parent)
        for number, repository in enumerate(item for item in repositories.values() if item.names):
            _compare(repository, Path(scratch, f"restored-{number}"))


def _repository_of(folder: Path, repositories: dict[Path, _Repository], scratch: Path) -> _Repository:
    """Return the repository that a folder belongs to, and add it to those by their top folders."""
    if folder in repositories:
        return repositories[folder]
    outer = _repository_of(folder.parent, repositories, scratch)
    if not os.path.lexists(folder / ".git"):
        return outer
    inner = _Repository(folder, scratch / f"index-{len(repositories)}", outer)
    try:
        inner.git("read-tree", "HEAD")
    except GitError as error:
        problem = f"{shown(folder)} is a Git repository without a commit"
        raise ProjectError(problem, f"rm -r {shown(folder)}/.git") from error
    repositories[folder] = inner
    return inner


def _pin_submodule(inner: _Repository, outer: _Repository) -> None:
    """Make the index of the outer repository name the commit that is checked out in a submodule."""
    name, head = inner.root.relative_to(outer.root).as_posix(), git("rev-parse", "HEAD", where=inner.root)
    mode, commit, *_ = outer.entries().get(name, ("", ""))
    if mode != SUBMODULE:
        raise ProjectError(
            f"{shown(inner.root)} is a Git repository of its own, and no submodule of this one",
            f"git submodule add <address> {shown(inner.root)}; or, without its history: rm -r {shown(inner.root)}/.git",
        )
    if outer.parent is None:
        outer.git("update-index", "--cacheinfo", f"{SUBMODULE},{head},{name}")
    elif commit != head:
        raise _uncommitted_error(outer, [name])
    tracked = inner.entries()
    if missing := [name for name in inner.names if name not in tracked]:
        raise _uncommitted_error(inner, missing)


def _uncommitted_error(repository: _Repository, names: Sequence[str]) -> ProjectError:
    files = ", ".join(shown(repository.root / name) for name in names[:5])
    submodule, args = shown(repository.root), " ".join(name.encode(errors="replace").decode() for name in names[:5])
    problem = f"the run would depend on {files}, changed in the submodule {submodule} and in no commit of it"
    fix = f"git -C {submodule} add {args} && git -C {submodule} commit, and publish it: git -C {submodule} push"
    return ProjectError(problem, fix)


def _compare(repository: _Repository, folder: Path) -> None:
    _write(repository, folder)
    changed = [name for name in repository.names if not _is_same(repository.root / name, folder / name)]
    if repository.parent and changed:
        raise _uncommitted_error(repository, changed)
    if changed:
        files = [shown(repository.root / name) for name in changed]
        raise ProjectError(
            f"a checkout would give other bytes than {', '.join(files[:5])} has here: attributes of Git change them",
            f"to take a checkout's: git add {files[0]} && rm {files[0]} && git checkout -- {files[0]}; to keep these: "
            f"remove what `git check-attr -a {files[0]}` names from .gitattributes and .git/info/attributes",
        )


def _is_same(path: Path, restored: Path) -> bool:
    if path.is_symlink() or restored.is_symlink():
        return path.is_symlink() and restored.is_symlink() and os.readlink(path) == os.readlink(restored)
    return restored.is_file() and filecmp.cmp(path, restored, shallow=False)


def write(commit: str, folder: Path) -> Path:
    """Write the project's files at a commit, with its submodules, as a fresh checkout has them; return their folder.

    `folder` is the top folder of the Git repository. It raises ProjectError where a clone lacks its commit.
    """
    root, project = Path(git("rev-parse", "--show-toplevel")), git("rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory() as scratch:
        _write_tree(_Repository(root, Path(scratch, "index")), commit, project, folder)
    return folder / project


def _write_tree(repository: _Repository, commit: str, prefix: str, folder: Path) -> None:
    repository.git("read-tree", commit)
    entries = {name: entry for name, entry in repository.entries().items() if name.startswith(prefix)}
    repository.names = [name for name, (mode, *_) in entries.items() if mode != SUBMODULE]
    _write(repository, folder)
    for name, (mode, inner, *_) in entries.items():
        root = repository.root / name
        if mode == SUBMODULE and os.path.lexists(root / ".git"):  # one that is not checked out was not read
            index = repository.index.with_name(f"{repository.index.name}-{inner}")
            _write_tree(_Repository(root, index), inner, "", folder / name)


def _write(repository: _Repository, folder: Path) -> None:
    """Check the named files out of a repository's index into a folder, as a clone without user settings would."""
    folder.mkdir(parents=True, exist_ok=True)
    # In a worktree, the Git directory of the main repository.
    git_dir = (repository.root / git("rev-parse", "--git-common-dir", where=repository.root)).resolve()
    lfs = ("-c", f"lfs.storage={git_dir / 'lfs'}")  # where Git LFS keeps its files
    with tempfile.TemporaryDirectory() as scratch:
        # A Git directory with the repository's configuration, which may name filters, and without its attributes.
        Path(scratch, "refs").mkdir()
        Path(scratch, "HEAD").write_text("ref: refs/heads/nothing\n", encoding="utf-8")
        shutil.copy(git_dir / "config", scratch)
        env = {
            "GIT_DIR": scratch,
            "GIT_OBJECT_DIRECTORY": str(git_dir / "objects"),
            "GIT_INDEX_FILE": str(repository.index),
            # In an empty work tree, Git takes the attributes from the index: the commit holds those.
            "GIT_WORK_TREE": str(folder),
            "GIT_ATTR_NOSYSTEM": "1",
        }
        git(*PLAIN, *lfs, "checkout-index", "--stdin", "-z", where=folder, env=env, stdin="\0".join(repository.names))

"""Name what a stage is about to read with one Git commit, whatever state the work tree is in.

The commit holds the tracked files as they are now, and a `dvc.lock` without the running stage and what comes after it:
their entries are still those of an earlier run. `git checkout` of it, then `dvc pull --allow-missing`, restores the
code, the parameters and the data of the run. HEAD, the index and the work tree stay as they are.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract import package_name
from ..errors import ProjectError
from . import checkout
from .git import AUTHOR, GitError, git, head, paths
from .links import Reader

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK = "dvc.lock"


@dataclass(frozen=True)
class Scope:
    """What a snapshot before one stage holds; all paths are relative to the project's root.

    Args:
        stages: The running stage and all that depend on it.
        outs: Their outputs. DVC deletes them before the stage runs, and they are no part of what it reads.
        carried: Small outputs of the stages before it that DVC doesn't cache, such as metrics: they live in Git.
        needed: Files and folders that the pipeline reads and no stage makes.
        deps: Those of them that DVC hashes.
        tracked: What DVC keeps, so Git need not.
    """

    stages: frozenset[str]
    outs: tuple[str, ...]
    carried: tuple[str, ...]
    needed: tuple[str, ...]
    deps: tuple[str, ...]
    tracked: tuple[str, ...]


_noted: dict[Path, tuple[int, int, int]] = {}


def note_files() -> None:
    """Note how code and parameters are before a stage imports and reads them.

    An edit between that and `snapshot` would put into the commit what did not run; `snapshot` then refuses.
    """
    files = (path for name in (package_name(), "mlops") for path in Path(name).rglob("*") if path.suffix != ".pyc")
    _noted.update({path: _state(path) for path in (*files, Path("params.yaml")) if path.is_file()})


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _refuse_edited() -> None:
    if edited := [path.as_posix() for path, state in _noted.items() if _state(path) != state]:
        raise ProjectError(
            f"{', '.join(edited[:5])} changed while the stage began, so nobody can tell what it has read",
            "the same command, again",
        )


def snapshot(stage: str) -> str:
    """Return the id of a commit whose tree is what `stage` reads.

    The same content gives the same id, since author and date are fixed; HEAD itself when it holds just that.

    Raises:
        ProjectError: There is no commit yet, or a commit can't hold what the stage depends on, byte for byte: a file
            that Git does not track, a link that leads out, an edited submodule, a file that attributes change, or one
            that was edited since `note_files`.
    """
    _refuse_edited()
    parent = head()
    scope = _scope(stage)
    with tempfile.TemporaryDirectory() as folder:
        # Never a copy of the real index: its stat cache hides a same-size edit that DVC just made (`0.1` to `0.5`).
        now = _Index(Path(folder, "now"), scope)
        now.add_work_tree()
        checkout.add_and_check(now.path, reader_of(scope))
        tree = now.write(Path(LOCK).read_text(encoding="utf-8") if Path(LOCK).exists() else None)
        if tree == _Index(Path(folder, "head"), scope).write(_lock_of(parent)):
            return parent
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), git("show", "-s", "--format=%cI", parent))
    return git("commit-tree", tree, "-p", parent, "-m", f"What {stage} reads", env={**AUTHOR, **dates})


class _Index:
    """A temporary Git index that starts as HEAD without the outputs of the stages to come."""

    def __init__(self, path: Path, scope: Scope) -> None:
        self.scope, self.path = scope, path
        self.env = {"GIT_INDEX_FILE": str(path)}
        git("read-tree", "HEAD", env=self.env)

    def add_work_tree(self) -> None:
        git("add", "--update", "--", ".", env=self.env)
        staged = paths(
            git("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "--relative", "-z", "HEAD")
        )
        wanted = [path for path in (*staged, *self.scope.carried) if Path(path).exists()]
        if wanted:
            git("add", "--force", "--", *wanted, env=self.env)

    def write(self, lock: str | None) -> str:
        git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *self.scope.outs, LOCK, env=self.env)
        if lock is not None:
            blob = git("hash-object", "-w", "--stdin", stdin=_pruned(lock, self.scope.stages))
            path = git("rev-parse", "--show-prefix") + LOCK
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=self.env)
        return git("write-tree", env=self.env)


def _lock_of(commit: str) -> str | None:
    try:
        return git("show", f"{commit}:./{LOCK}") + "\n"
    except GitError:
        return None


def _pruned(lock: str, stages: frozenset[str]) -> str:
    from dvc.utils.serialize import dumps_yaml, parse_yaml

    content = parse_yaml(lock, LOCK)
    content["stages"] = {name: entry for name, entry in content.get("stages", {}).items() if name not in stages}
    return str(dumps_yaml(content))


def _scope(stage: str) -> Scope:
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        return _scope_in(repo, stage)


def _scope_in(repo: "Repo", stage: str) -> Scope:
    import networkx

    running = repo.stage.load_one(name=stage)
    after = {running, *networkx.ancestors(repo.index.graph, running)}  # an edge points from a stage to what it needs
    before = networkx.descendants(repo.index.graph, running)
    inputs = [dep for one in {running, *before} for dep in one.deps if dep.protocol == "local"]
    made = tuple(_relative(out.fs_path) for out in repo.index.outs)
    kept = tuple(_relative(out.fs_path) for out in repo.index.outs if out.use_cache)
    named = {_relative(dep.fs_path) for dep in inputs}
    variables = {Path(path).as_posix() for path in running.dvcfile.resolver.context.imports}  # `vars` of dvc.yaml
    return Scope(
        stages=frozenset(one.name for one in after if hasattr(one, "name")),
        outs=tuple(sorted(_relative(out.fs_path) for one in after for out in one.outs)),
        carried=tuple(sorted(_relative(out.fs_path) for one in before for out in one.outs if not out.use_cache)),
        # Both packages whole: a commit without a module that no stage watches can't run.
        needed=tuple(
            sorted(
                {"dvc.yaml", "pyproject.toml", package_name(), "mlops"}
                | {_relative(one.path) for one in before}
                | variables
                | named - set(made)
            )
        ),
        deps=tuple(sorted(named - set(made))),
        tracked=kept,
    )


def reader_of(scope: Scope) -> Reader:
    """Return what a stage reads of the files that Git keeps.

    Raises:
        ProjectError: A commit can't hold some of it.
    """
    here = Path.cwd().resolve()
    kept, deps, read = (
        [Path(os.path.normpath(here / name)) for name in names]
        for names in (scope.tracked, scope.deps, (*scope.needed, *scope.carried))
    )
    reader = Reader(Path(git("rev-parse", "--show-toplevel")).resolve(), kept, deps)
    for path in (*read, *_imported(reader.root)):
        reader.read(path)
    return reader


def _imported(root: Path) -> list[Path]:
    """Return the modules below a folder that this process has imported: also those that `dvc.yaml` does not name."""
    here, installed = (str(root), os.getcwd()), Path(sys.prefix).resolve()  # the environment may be in the folder
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    modules = [Path(os.path.realpath(file)) for file in files if file.startswith(here)]
    return [path for path in modules if path.is_relative_to(root) and not path.is_relative_to(installed)]


def _relative(path: str) -> str:
    return Path(os.path.relpath(path)).as_posix()

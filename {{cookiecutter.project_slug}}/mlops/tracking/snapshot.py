"""Name what a stage is about to read with one Git commit, whatever the state of the work tree.

The commit holds the tracked files as they are now, and `dvc.lock` without the entries of the running stage and of the
stages after it, which describe an earlier run. `git checkout` of it, then `dvc pull --allow-missing`, restores the
code, the parameters and the data of the run. HEAD, the index and the work tree do not change.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..contract import package_name
from ..errors import ProjectError
from .checkout import Reader, add_and_check, ignored_by_dvc
from .git import AUTHOR, GitError, git, head, paths

LOCK = "dvc.lock"

_file_states: dict[Path, tuple[int, int, int]] = {}


@dataclass(frozen=True)
class _Scope:  # what the commit for one stage holds; paths are relative to the project's root
    stages: frozenset[str]  # the running stage and all that depend on it
    outs: tuple[str, ...]  # their outputs: DVC deletes them before the stage runs, which reads none of them
    carried: tuple[str, ...]  # outputs of earlier stages that DVC doesn't cache, such as metrics: Git has them
    required: tuple[str, ...]  # files and folders that the pipeline reads and no stage makes
    deps: tuple[str, ...]  # those of them that DVC hashes
    cached: tuple[str, ...]  # outputs that DVC stores, so Git need not
    is_ignored: Callable[[str], bool]  # whether DVC ignores an absolute path


def note_files() -> None:
    """Note the state of code and parameters before a stage imports and reads them.

    `snapshot` refuses files that were edited since: the commit would hold code that did not run.
    """
    files = (path for name in (package_name(), "mlops") for path in Path(name).rglob("*") if path.suffix != ".pyc")
    _file_states.update({path: _state(path) for path in (*files, Path("params.yaml")) if path.is_file()})


def _state(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def snapshot(stage: str) -> str:
    """Return the id of a commit whose tree is what `stage` reads.

    Author and date are fixed, so the same content gives the same id; HEAD itself when it holds exactly that.

    Raises:
        ProjectError: There is no commit yet, or a commit can't hold what the stage depends on, byte for byte: a file
            that Git does not track, a link that leads out, an edited submodule, a file that attributes change, or one
            that was edited since `note_files`.
    """
    if edited := [path.as_posix() for path, state in _file_states.items() if _state(path) != state]:
        raise ProjectError(
            f"{', '.join(edited[:5])} changed while the stage began, so it is unknown which version it read",
            "run the same command again",
        )
    parent = head()
    scope = _scope(stage)
    with tempfile.TemporaryDirectory() as folder:
        # Never a copy of the real index: its stat cache hides a same-size edit that DVC just made (`0.1` to `0.5`).
        index = _Index(Path(folder, "now"), scope)
        index.add_work_tree()
        add_and_check(index.path, _read_files(scope))
        tree = index.write_tree(Path(LOCK).read_text(encoding="utf-8") if Path(LOCK).exists() else None)
        try:
            head_lock = git("show", f"{parent}:./{LOCK}") + "\n"
        except GitError:
            head_lock = None
        if tree == _Index(Path(folder, "head"), scope).write_tree(head_lock):
            return parent
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), git("show", "-s", "--format=%cI", parent))
    return git("commit-tree", tree, "-p", parent, "-m", f"What {stage} reads", env={**AUTHOR, **dates})


class _Index:
    """A temporary Git index that starts as HEAD."""

    def __init__(self, path: Path, scope: _Scope) -> None:
        self.scope, self.path = scope, path
        self.env = {"GIT_INDEX_FILE": str(path)}
        git("read-tree", "HEAD", env=self.env)

    def add_work_tree(self) -> None:
        git("add", "--update", "--", ".", env=self.env)
        staged = git("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "--relative", "-z", "HEAD")
        new = [path for path in (*paths(staged), *self.scope.carried) if Path(path).exists()]
        if new:
            git("add", "--force", "--", *new, env=self.env)

    def write_tree(self, lock: str | None) -> str:
        """Write a tree without the outputs of the stages to come, and with the rest of `lock`, the text of dvc.lock."""
        from dvc.utils.serialize import dumps_yaml, parse_yaml

        git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *self.scope.outs, LOCK, env=self.env)
        if lock is not None:
            content = parse_yaml(lock, LOCK)
            stages = content.get("stages", {}).items()
            content["stages"] = {name: entry for name, entry in stages if name not in self.scope.stages}
            blob = git("hash-object", "-w", "--stdin", stdin=str(dumps_yaml(content)))
            path = git("rev-parse", "--show-prefix") + LOCK
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=self.env)
        return git("write-tree", env=self.env)


def _scope(stage: str) -> _Scope:
    import networkx
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        graph, outs = repo.index.graph, list(repo.index.outs)
        running = repo.stage.load_one(name=stage)
        # An edge points from a stage to one that it depends on.
        before, after = networkx.descendants(graph, running), {running, *networkx.ancestors(graph, running)}
        inputs = {
            _relative(dep.fs_path) for item in (running, *before) for dep in item.deps if dep.protocol == "local"
        } - {_relative(out.fs_path) for out in outs}
        variables = {Path(path).as_posix() for path in running.dvcfile.resolver.context.imports}  # `vars` of dvc.yaml
        # Both packages whole: a commit without a module that no stage depends on can't run.
        code = {"dvc.yaml", "pyproject.toml", package_name(), "mlops", *(_relative(item.path) for item in before)}
        return _Scope(
            stages=frozenset(item.name for item in after if hasattr(item, "name")),
            outs=tuple(sorted(_relative(out.fs_path) for item in after for out in item.outs)),
            carried=tuple(sorted(_relative(out.fs_path) for item in before for out in item.outs if not out.use_cache)),
            required=tuple(sorted(code | variables | inputs)),
            deps=tuple(sorted(inputs)),
            cached=tuple(_relative(out.fs_path) for out in outs if out.use_cache),
            is_ignored=ignored_by_dvc(repo),
        )


def _relative(path: str) -> str:
    return Path(os.path.relpath(path)).as_posix()


def _read_files(scope: _Scope) -> Reader:
    project, root = Path.cwd().resolve(), Path(git("rev-parse", "--show-toplevel")).resolve()
    cached, deps, required = (
        [Path(os.path.normpath(project / name)) for name in names]
        for names in (scope.cached, scope.deps, (*scope.required, *scope.carried))
    )
    # Also the modules that this process has imported: `dvc.yaml` need not name them.
    prefixes, environment = (str(root), os.getcwd()), Path(sys.prefix).resolve()  # which may be below `root`
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    modules = [Path(os.path.realpath(file)) for file in files if file.startswith(prefixes)]
    imported = [path for path in modules if path.is_relative_to(root) and not path.is_relative_to(environment)]
    reader = Reader(root, cached, deps, scope.is_ignored)
    for path in (*required, *imported):
        reader.read(path)
    return reader

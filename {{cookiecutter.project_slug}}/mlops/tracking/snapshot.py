"""Name what a stage is about to read with one Git commit, whatever the state of the work tree.

The commit holds the tracked files as they are now, and `dvc.lock` without the entries of the running stage and of the
stages after it, which describe an earlier run. `git checkout` of it, then `dvc pull --allow-missing`, restores the
code, the parameters and the data of the run. HEAD, the index and the work tree do not change.
"""

import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..contract import package_name
from ..errors import ProjectError
from .checkout import Reader, add_and_check, ignored_by_dvc
from .git import commit_tree, git, head, paths, try_git

LOCK = "dvc.lock"

_file_states: dict[Path, tuple[int, int, int]] = {}


@dataclass(frozen=True)
class _Scope:  # what the commit for one stage holds; paths are relative to the project's root
    stages: frozenset[str]  # the running stage and all that depend on it
    outs: tuple[str, ...]  # their outputs: DVC deletes them before the stage runs, which reads none of them
    carried: tuple[str, ...]  # outputs of earlier stages that DVC doesn't cache, such as metrics: Git has them
    reader: Reader  # what the pipeline reads and no stage makes


def note_files() -> None:
    """Note the state of code and parameters before a stage imports and reads them.

    `snapshot` refuses files that were edited since: the commit would hold code that did not run.
    """
    files = (path for name in (package_name(), "mlops") for path in Path(name).rglob("*") if path.suffix != ".pyc")
    _file_states.update({path: _state(path) for path in (*files, Path("params.yaml")) if path.is_file()})


def _state(path: Path) -> tuple[int, int, int] | None:
    stat = path.stat() if path.exists() else None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None


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
    parent, scope = head(), _scope(stage)
    with tempfile.TemporaryDirectory() as folder:
        # Never a copy of the real index: its stat cache hides a same-size edit that DVC just made (`0.1` to `0.5`).
        index = Path(folder, "index")
        env = {"GIT_INDEX_FILE": str(index)}
        git("read-tree", "HEAD", env=env)
        git("add", "--update", "--", ".", env=env)
        staged = git("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "--relative", "-z", "HEAD")
        if new := [path for path in (*paths(staged), *scope.carried) if Path(path).exists()]:
            git("add", "--force", "--", *new, env=env)
        add_and_check(index, scope.reader)
        tree = _write_tree(env, scope, Path(LOCK).read_text(encoding="utf-8") if Path(LOCK).exists() else None)
        git("read-tree", "HEAD", env=env)
        if tree == _write_tree(env, scope, try_git("show", f"{parent}:./{LOCK}")):
            return parent
    return commit_tree(tree, [parent], f"What {stage} reads", git("show", "-s", "--format=%cI", parent))


def _write_tree(env: dict[str, str], scope: _Scope, lock: str | None) -> str:
    """Write the tree of an index without the outputs of the stages to come, and with the rest of dvc.lock's text."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml

    git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *scope.outs, LOCK, env=env)
    if lock is not None:
        content = parse_yaml(lock, LOCK)
        stages = content.get("stages", {}).items()
        content["stages"] = {name: entry for name, entry in stages if name not in scope.stages}
        blob = git("hash-object", "-w", "--stdin", stdin=str(dumps_yaml(content)))
        path = git("rev-parse", "--show-prefix") + LOCK
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=env)
    return git("write-tree", env=env)


def _scope(stage: str) -> _Scope:
    import networkx
    from dvc.repo import Repo

    project, root = Path.cwd().resolve(), Path(git("rev-parse", "--show-toplevel")).resolve()

    def absolute(names: Iterable[str]) -> list[Path]:
        return [Path(os.path.normpath(project / name)) for name in names]

    with Repo(os.getcwd()) as repo:
        graph, outs = repo.index.graph, list(repo.index.outs)
        running = repo.stage.load_one(name=stage)
        # An edge points from a stage to one that it depends on.
        before, after = networkx.descendants(graph, running), {running, *networkx.ancestors(graph, running)}
        carried = sorted(_relative(out.fs_path) for item in before for out in item.outs if not out.use_cache)
        deps = (dep for item in (running, *before) for dep in item.deps if dep.protocol == "local")
        inputs = {_relative(dep.fs_path) for dep in deps} - {_relative(out.fs_path) for out in outs}
        variables = {Path(path).as_posix() for path in running.dvcfile.resolver.context.imports}  # `vars` of dvc.yaml
        # Both packages whole: a commit without a module that no stage depends on can't run.
        code = {"dvc.yaml", "pyproject.toml", package_name(), "mlops", *(_relative(item.path) for item in before)}
        cached = absolute(_relative(out.fs_path) for out in outs if out.use_cache)
        reader = Reader(root, cached, absolute(inputs), ignored_by_dvc(repo))
        for path in (*absolute([*sorted(code | variables | inputs), *carried]), *_imported_files(root)):
            reader.read(path)
        return _Scope(
            stages=frozenset(item.name for item in after if hasattr(item, "name")),
            outs=tuple(_relative(out.fs_path) for item in after for out in item.outs),
            carried=tuple(carried),
            reader=reader,
        )


def _relative(path: str) -> str:
    return Path(os.path.relpath(path)).as_posix()


def _imported_files(root: Path) -> list[Path]:
    """Return the modules below `root` that this process has imported: `dvc.yaml` need not name them."""
    prefixes, environment = (str(root), os.getcwd()), Path(sys.prefix).resolve()  # which may be below `root`
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    modules = [Path(os.path.realpath(file)) for file in files if file.startswith(prefixes)]
    return [path for path in modules if path.is_relative_to(root) and not path.is_relative_to(environment)]

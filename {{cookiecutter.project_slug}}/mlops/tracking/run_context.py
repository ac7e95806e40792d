"""Facts that only the clone that starts a stage knows: the commit that it reads, who starts it, labels and tags.

A job has no Git: the clone that starts it writes them to the job's file.

The commit holds the tracked files as they are, whatever the state of the work tree, and `dvc.lock` without the entries
of the running stage and of those after it, which describe an earlier run. `git checkout` of it, then `dvc pull
--allow-missing`, restores code, parameters and data of the run. HEAD, the index and the work tree do not change.
"""

import contextlib
import getpass
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import pipeline
from ..config import home, job_file, load_platform
from ..contract import package_name
from ..errors import ProjectError
from ..files import read_json
from ..pipeline import LOCK
from . import dataset_tags, dvc_remote, inputs, lineage_log, publishing, stage_metrics
from .checkout import Reader, add_and_check, ignored_by_dvc
from .git import commit_tree, exists, git, head, paths, remote_url, try_git
from .run_files import read_facts

DATASET = "data/dataset"

_file_states: dict[Path, tuple[int, int, int] | None] = {}


@dataclass(frozen=True)
class RunContext:
    """Where a stage was started, in types of JSON."""

    commit: str  # its tree is what the stage reads
    run: str  # a new id, for a training
    user: str  # Git's name of who started it
    git_remote_url: str  # of `origin`, without credentials; "" for none
    git_branch: str  # "" when none is checked out
    baseline_commit: str  # of the experiment; else HEAD
    dvc_exp_name: str  # "" when it is no experiment of DVC's
    dvc_remote_url: str  # without credentials
    data_version: str  # the label of the dataset, or the beginning of its hash; "" before there is one
    folder: str  # the project's in its Git repository, with a slash at its end; "" for the root
    release_tags: Sequence[str]  # names of the Git tags of registered versions
    name: str = ""  # of the run, for people
    stage_metrics: Mapping[str, float] = field(default_factory=dict)  # of the stages before a training
    inputs_elsewhere: Sequence[Mapping[str, str]] = ()  # what a clone gets from other places: `inputs.elsewhere`


def from_job() -> RunContext | None:
    """Return what the clone that started this job wrote to the job's file; None when this is no job."""
    path = job_file()
    return RunContext(**read_json(path)["origin"]) if path else None


def collect(stage: str) -> RunContext:
    """Return the context of a stage that this clone is about to start.

    It raises what `snapshot` does, and ProjectError for a training that was not started by DVC, or while an earlier
    stage is out of date: the run would name what it did not read. And for a registration of a run whose commit is lost.
    """
    from dvc.repo.experiments.utils import gen_random_name

    loaded = pipeline.load_stage(stage)
    if loaded.is_training:
        check_upstream(loaded)
    if loaded.is_registering:
        _check_trained_commit()
    commit, label, metrics = snapshot(stage), "", {}
    if loaded.is_training:
        metrics, label = stage_metrics.read(loaded.upstream), dataset_tags.label_of(dataset_md5())
    user = try_git("config", "user.name", where=home())
    if user is None:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user without a name
            user = "unknown"
    dvc_exp_name = os.environ.get("DVC_EXP_NAME", "")
    return RunContext(
        commit=commit,
        run=uuid.uuid4().hex[:12],
        user=user,
        git_remote_url=remote_url(home()),
        git_branch=git("branch", "--show-current", where=home()),
        baseline_commit=os.environ.get("DVC_EXP_BASELINE_REV") or head(),
        dvc_exp_name=dvc_exp_name,
        dvc_remote_url=dvc_remote.remote_url(),
        data_version=label,
        folder=git("rev-parse", "--show-prefix"),
        release_tags=git("tag", "--list", "*@v*", where=home()).split(),
        name=dvc_exp_name or gen_random_name(),  # such as "dewy-stub", as DVC names experiments
        stage_metrics=metrics,
        inputs_elsewhere=_elsewhere(loaded),
    )


def check_inputs(name: str) -> None:
    """Refuse, before the first stage works, what a commit for the last one could not hold, or others could not get."""
    stages = pipeline.load_stages()
    recorded = [stage for stage in stages.values() if stage.is_training or stage.is_registering]
    if later := [stage.name for stage in recorded if name in stage.upstream]:
        snapshot(later[-1])


def _elsewhere(stage: pipeline.Stage) -> list[dict[str, str]]:
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        return inputs.elsewhere(repo.stage.load_one(name=name) for name in (stage.name, *stage.upstream))


def log_training(context: RunContext) -> None:
    """Write a training to the branch `lineage` before it begins, and publish that; once, however often it is called."""
    _record(context.commit, context.name, context.run)
    publishing.publish(wait=False)


def keep_trained_commit() -> None:
    """Write the training of the run in the work tree to the branch `lineage`, unless a log keeps its commit."""
    facts = read_facts()
    commit = facts["data_git_commit_id"]
    if exists(commit) and not lineage_log.keeps(commit):
        _record(commit, facts["name"], facts["run"])


def _record(commit: str, name: str, run: str) -> None:
    lineage_log.record_once(commit, f"train {name}\n\nrun: {run}\nproject: {load_platform().project}\n")


def _check_trained_commit() -> None:
    """Check that this clone has the commit that the run in the work tree names, else nobody could restore its version.

    It is in another clone alone when an experiment was pulled from there. It is fetched, if that clone has published
    it; or made again, where the content is the same.
    """
    facts = read_facts()
    commit = facts["data_git_commit_id"]
    if lineage_log.fetch_commit(commit):
        return
    with contextlib.suppress(ProjectError):
        snapshot(pipeline.training_stage().name)
    if not exists(commit):
        add = "" if remote_url(home()) else "git remote add origin <address of the repository>; "
        raise ProjectError(
            f"run {facts['run']} names commit {commit[:10]}, which neither this clone nor its Git remote has, so "
            "nobody could restore what the registered version was made from",
            f"in the clone that trained it: {publishing.PUSH}; then here: {add}git fetch origin, and the same command",
        )


def check_upstream(stage: pipeline.Stage) -> None:
    """Check that the work tree is what `dvc.lock` names: the run will name it as what it was made from."""
    from dvc.repo import Repo

    if not os.environ.get("DVC_STAGE"):
        problem = f"{stage.name} was started by hand, so dvc.lock does not say what it reads"
        raise ProjectError(problem, f"dvc repro {stage.name}")
    with Repo(os.getcwd()) as repo:
        status = repo.status(targets=list(stage.upstream))
    if changed := [name for name, changes in status.items() if _is_modified(changes)]:
        problem = f"{' and '.join(changed)} changed and did not run since: {status}"
        raise ProjectError(problem, f"dvc repro {stage.name}")


def _is_modified(changes: Any) -> bool:
    # A file that is deleted here, such as raw data that were never pulled, can't have been read in another version.
    if isinstance(changes, dict):
        return any(map(_is_modified, changes.values()))
    return any(map(_is_modified, changes)) if isinstance(changes, list) else changes not in ("deleted", "not in cache")


def dataset_md5() -> str:
    """Return the hash of the dataset directory in `dvc.lock`; raise ProjectError if it is not in there."""
    from ruamel.yaml import YAML

    lock = YAML(typ="safe").load(Path(LOCK)) if Path(LOCK).exists() else {}
    stages = pipeline.load_stages()  # dvc.lock also has those that were removed from dvc.yaml, or have another name
    outs = (out for name, entry in lock.get("stages", {}).items() if name in stages for out in entry.get("outs", []))
    if md5 := next((out["md5"] for out in outs if out["path"] == DATASET), None):
        return str(md5)
    raise ProjectError(f"dvc.lock does not name {DATASET}", "run the stage through DVC: dvc repro")


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
    """Return the id of a commit whose tree is what `stage` reads; HEAD itself when it holds exactly that.

    Author and date are fixed, so the same content gives the same id. It raises ProjectError where there is no commit
    yet, or none can hold what the stage depends on, byte for byte: a file that Git does not track, a link that leads
    out, an edited submodule, a file that attributes change, or one that was edited since `note_files`.
    """
    if edited := [path.as_posix() for path, state in _file_states.items() if _state(path) != state]:
        problem = f"{', '.join(edited[:5])} changed while the stage began, so it is unknown which version it read"
        raise ProjectError(problem, "run the same command again")
    lineage_log.check_refs()
    parent, (stages, outs, carried, reader) = head(), _scope(stage)
    with tempfile.TemporaryDirectory() as folder:
        # Never a copy of the real index: its stat cache hides a same-size edit that DVC just made (`0.1` to `0.5`).
        index = Path(folder, "index")
        env = {"GIT_INDEX_FILE": str(index)}
        git("read-tree", "HEAD", env=env)
        # HEAD may still have a file that moved to DVC since, because it must not be in Git's history.
        outs += map(str, reader.cached)
        git("add", "--update", "--", ".", *(f":(exclude,literal){out}" for out in outs), env=env)
        staged = git("diff", "--cached", "--name-only", "--diff-filter=A", "--no-renames", "--relative", "-z", "HEAD")
        if new := [str(path) for path in (*map(Path, paths(staged)), *carried) if path.exists()]:
            git("add", "--force", "--", *new, env=env)
        add_and_check(index, reader)
        tree = _write_tree(env, stages, outs, Path(LOCK).read_text(encoding="utf-8") if Path(LOCK).exists() else None)
        git("read-tree", "HEAD", env=env)
        if tree == _write_tree(env, stages, outs, try_git("show", f"{parent}:./{LOCK}")):
            return parent
    return commit_tree(tree, [parent], f"What {stage} reads", git("show", "-s", "--format=%cI", parent))


def _write_tree(env: dict[str, str], without: set[str], outs: list[str], lock: str | None) -> str:
    """Write the tree of an index without `outs`, and with dvc.lock's text, less the entries of stages `without`."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml

    git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *outs, LOCK, env=env)
    if lock is not None:
        content = parse_yaml(lock, LOCK)
        stages = content.get("stages", {}).items()
        content["stages"] = {name: entry for name, entry in stages if name not in without}
        blob = git("hash-object", "-w", "--stdin", stdin=str(dumps_yaml(content)))
        path = git("rev-parse", "--show-prefix") + LOCK
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=env)
    return git("write-tree", env=env)


def _scope(stage: str) -> tuple[set[str], list[str], list[Path], Reader]:
    """Return what the commit for a stage lacks and holds.

    It lacks the stage and all that depend on it, and their outputs: DVC deletes them before the stage runs. It holds
    outputs of earlier stages that DVC doesn't cache, such as metrics, and what the pipeline reads and no stage makes.
    """
    import networkx
    from dvc.repo import Repo

    project, root = Path.cwd().resolve(), Path(git("rev-parse", "--show-toplevel")).resolve()
    # The modules of the repository that this process has imported, too: `dvc.yaml` need not name them.
    prefixes, environment = (str(root), os.getcwd()), Path(sys.prefix).resolve()  # which may be below `root`
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    modules = [Path(os.path.realpath(file)) for file in files if file.startswith(prefixes)]
    imported = [path for path in modules if path.is_relative_to(root) and not path.is_relative_to(environment)]

    def absolute(path: str) -> Path:
        return Path(os.path.normpath(project / os.path.relpath(path)))

    with Repo(os.getcwd()) as repo:
        graph, outs = repo.index.graph, list(repo.index.outs)
        running = repo.stage.load_one(name=stage)
        # An edge points from a stage to one that it depends on.
        before, after = networkx.descendants(graph, running), {running, *networkx.ancestors(graph, running)}
        inputs.elsewhere((running, *before))  # refuses what others can't get
        carried = sorted(absolute(out.fs_path) for item in before for out in item.outs if not out.use_cache)
        items = (item for item in (running, *before) if item.cmd)  # the source of an import is not read: DVC has a copy
        deps = (dep for item in items for dep in item.deps if dep.protocol == "local")
        sources = {absolute(dep.fs_path) for dep in deps} - {absolute(out.fs_path) for out in outs}
        variables = running.dvcfile.resolver.context.imports  # `vars` of dvc.yaml
        # Both packages whole: a commit without a module that no stage depends on can't run.
        code = (".dvcignore", "dvc.yaml", "pyproject.toml", package_name(), "mlops", *(item.path for item in before))
        cached = [absolute(out.fs_path) for out in outs if out.use_cache]
        reader = Reader(root, cached, sources, ignored_by_dvc(repo))
        for path in (*sorted({*map(absolute, (*code, *variables)), *sources}), *carried, *imported):
            reader.read(path)
        outputs = [str(absolute(out.fs_path)) for item in after for out in item.outs]
        return {item.name for item in after if hasattr(item, "name")}, outputs, carried, reader

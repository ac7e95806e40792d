"""The stages of `dvc.yaml`, as DVC's own loader reads them: `vars`, `foreach`, `matrix` and `wdir` work."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ProjectError
from .explain import explain

LOCK = "dvc.lock"
RUN_REPORT = "reports/run.json"  # an output of the stage that trains
METRICS_REPORT = "reports/metrics.json"  # another one
REGISTER_REPORT = "reports/register.json"  # an output of the stage that registers


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`; paths are relative to the project's root, stages are in the order in which they run."""

    name: str  # with an @ where `foreach` or `matrix` made it: `count@a`
    deps: tuple[str, ...]
    params: tuple[str, ...]  # sections of `params.yaml` that it depends on
    outs: tuple[str, ...]  # metrics and plots too
    meta: dict[str, Any]  # not part of the stage's identity
    upstream: tuple[str, ...]  # names of the stages that it depends on, directly or not
    always_changed: bool  # runs each time, whether or not something changed

    @property
    def job(self) -> dict[str, Any] | None:
        """Return the settings of its job (`meta.job`), or None when it never runs as a job."""
        return (self.meta["job"] or {}) if "job" in self.meta else None

    @property
    def is_training(self) -> bool:
        """Return whether it writes the report of a training run."""
        return RUN_REPORT in self.outs

    @property
    def is_registering(self) -> bool:
        """Return whether it writes the report of a registration."""
        return REGISTER_REPORT in self.outs


def load_stages() -> dict[str, Stage]:
    """Return the stages by name, in the order in which they run; raise ProjectError if DVC can't read `dvc.yaml`."""
    path = Path("dvc.yaml")
    if not path.exists():
        raise ProjectError(f"dvc.yaml is not in {Path.cwd()}", "run from the project's root, where dvc.yaml is")
    files = (file for file in (path, Path("params.yaml")) if file.exists())  # the second has `vars` too
    return _load(os.getcwd(), *(file.read_bytes() for file in files))


def load_stage(name: str) -> Stage:
    """Return one stage; raise ProjectError if `dvc.yaml` has no such stage."""
    stages = load_stages()
    if name not in stages:
        problem = f"dvc.yaml has no stage {name!r}; it has {', '.join(stages)}"
        raise ProjectError(problem, f"name one of these, or write dvc.yaml:stages.{name.partition('@')[0]}")
    return stages[name]


def running_stage() -> Stage:
    """Return the stage that this process runs; raise ProjectError if DVC did not start it."""
    address = os.environ.get("DVC_STAGE", "")
    if not address:
        raise ProjectError("DVC runs no stage here, so dvc.lock does not say what is read", "dvc repro")
    file, _, name = address.rpartition(":")
    *folders, _ = Path(file or "dvc.yaml").parts  # DVC names it `../dvc.yaml:train` when it was started in a subfolder
    return load_stage(name if set(folders) <= {".."} else address)


def stage_of_command(name: str) -> Stage:
    """Return the stage that `python -m mlops stage <name>` runs.

    It is the one that DVC started: of `foreach` and `matrix`, one for each item (`count@a`) has the same command. By
    hand, it is the one of that name. Raise ProjectError if `dvc.yaml` has no such stage.
    """
    return running_stage() if os.environ.get("DVC_STAGE") else load_stage(name)


def require_dep(path: str) -> None:
    """Check that the running stage has a dep that contains a file: else a change of it would rerun nothing.

    A stage that is not started by DVC is not checked.

    Args:
        path: The file.

    Raises:
        ProjectError: It has none.
    """
    if not os.environ.get("DVC_STAGE"):
        return
    stage = running_stage()
    if not any(Path(path).is_relative_to(dep) for dep in stage.deps):
        problem = f"{stage.name} reads {path}, which dvc.yaml does not name"
        raise ProjectError(problem, f"add `- {path}` to dvc.yaml:stages.{stage.name.partition('@')[0]}.deps")


def training_stage() -> Stage:
    """Return the stage that trains, which has `reports/run.json` among its outs; raise ProjectError if not one has."""
    stages = [stage for stage in load_stages().values() if stage.is_training]
    if len(stages) != 1:
        problem = f"dvc.yaml has {len(stages)} stages that write {RUN_REPORT}"
        fix = f"- {RUN_REPORT}: {{cache: false}} in dvc.yaml:stages.train.metrics, if that one trains, and in no other"
        raise ProjectError(problem, fix)
    return stages[0]


@functools.lru_cache(maxsize=4)
def _load(root: str, *_contents: bytes) -> dict[str, Stage]:
    import networkx
    from dvc.config import ConfigError
    from dvc.dependency.param import ParamsDependency
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    def relative(entries: list[Any]) -> tuple[str, ...]:
        return tuple(Path(os.path.relpath(entry.fs_path, root)).as_posix() for entry in entries)

    loaded: dict[str, Stage] = {}
    try:
        with Repo(root) as repo:
            graph = repo.index.graph  # an edge points from a stage to what it depends on
            position = {stage: number for number, stage in enumerate(repo.index.stages)}
            order = networkx.lexicographical_topological_sort(graph.reverse(), key=position.__getitem__)
            stages = [stage for stage in order if isinstance(stage, PipelineStage)]
            for stage in stages:
                before = networkx.descendants(graph, stage)
                params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
                loaded[stage.addressing] = Stage(
                    name=stage.addressing,
                    deps=relative([dep for dep in stage.deps if dep not in params]),
                    params=tuple(dict.fromkeys(name.partition(".")[0] for dep in params for name in dep.params)),
                    outs=relative(stage.outs),
                    meta=stage.meta if isinstance(stage.meta, dict) else {},
                    upstream=tuple(other.addressing for other in stages if other in before),
                    always_changed=stage.always_changed,
                )
    except DvcException as error:
        if isinstance(error, NotDvcRepoError):
            raise ProjectError(f"{root} has no folder .dvc", "restore it: git checkout -- .dvc") from error
        if isinstance(error, ConfigError) and (known := explain(error)):
            raise known from error
        problem = f"DVC can't load the stages: {' '.join(str(error).split())}"
        raise ProjectError(
            problem, "correct that file; this passes then, and until then says where: dvc dag"
        ) from error
    for stage_name, stage in loaded.items():
        if not isinstance(stage.job, dict | None):
            problem = f"dvc.yaml:stages.{stage_name}.meta.job is {stage.job!r}, and not the settings of a job"
            raise ProjectError(problem, f"dvc.yaml:stages.{stage_name}.meta.job: {{kind: processing}}")
    return loaded

"""The stages of `dvc.yaml`, as DVC's own loader reads them: `vars`, `foreach`, `matrix` and `wdir` work."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ProjectError

RUN_REPORT = "reports/run.json"  # an output of the stage that trains
REGISTER_REPORT = "reports/register.json"  # an output of the stage that registers


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`.

    Args:
        name: As in `dvc repro <name>`.
        deps: Files and folders that it depends on, relative to the project's root.
        params: Sections of `params.yaml` that it depends on.
        outs: Files and folders that it writes, metrics and plots among them.
        meta: Its `meta`, which is no part of what the stage is.
        upstream: Names of the stages that it depends on, directly or not, in the order in which they run.
        downstream: Names of the stages that depend on it, directly or not, in that order.
    """

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    meta: dict[str, Any]
    upstream: tuple[str, ...]
    downstream: tuple[str, ...]

    @property
    def job(self) -> dict[str, Any] | None:
        """Return how its job is asked for (`meta.job`), or None when it never runs as a job."""
        return (self.meta["job"] or {}) if "job" in self.meta else None

    def params_of_all(self) -> tuple[str, ...]:
        """Return the sections of `params.yaml` that it or a stage before it depends on."""
        stages = load_stages()
        names = (name for stage in (*self.upstream, self.name) for name in stages[stage].params)
        return tuple(dict.fromkeys(names))

    @property
    def is_training(self) -> bool:
        """Return whether it writes the report of a training run."""
        return RUN_REPORT in self.outs

    @property
    def is_registering(self) -> bool:
        """Return whether it writes the report of a registration."""
        return REGISTER_REPORT in self.outs


def load_stages() -> dict[str, Stage]:
    """Return the stages by name, in the order in which they run.

    Raises:
        ProjectError: There is no `dvc.yaml` in the working directory, or DVC refuses it.
    """
    path = Path("dvc.yaml")
    if not path.exists():
        raise ProjectError(f"dvc.yaml is not in {Path.cwd()}", "run from the project's root, where dvc.yaml is")
    return _load(os.getcwd(), path.read_bytes())


def load_stage(name: str) -> Stage:
    """Return one stage.

    Raises:
        ProjectError: `dvc.yaml` has no such stage, is not there, or DVC refuses it.
    """
    stages = load_stages()
    if name not in stages:
        raise ProjectError(
            f"dvc.yaml has no stage {name!r}; it has {', '.join(stages)}",
            f"correct the name, or add dvc.yaml:stages.{name}",
        )
    return stages[name]


def running_stage() -> Stage:
    """Return the stage that this process runs.

    Raises:
        ProjectError: It was not started by DVC.
    """
    name = os.environ.get("DVC_STAGE", "")
    if not name:
        raise ProjectError("no stage of DVC's is running, so dvc.lock does not say what is read", "dvc repro")
    return load_stage(name.removeprefix("dvc.yaml:"))


def require_dep(path: str) -> None:
    """See that DVC watches what the running stage reads: else a new image or a withdrawn consent would run nothing.

    Run by hand, nothing is watched, and nothing is checked.

    Raises:
        ProjectError: `dvc.yaml` does not name it.
    """
    if not os.environ.get("DVC_STAGE"):
        return
    stage = running_stage()
    if not any(Path(path).is_relative_to(dep) for dep in stage.deps):
        raise ProjectError(
            f"{stage.name} reads {path}, which dvc.yaml does not name",
            f"add `- {path}` to dvc.yaml:stages.{stage.name}.deps",
        )


def training_stage() -> Stage:
    """Return the stage that trains: the one with `reports/run.json` among its outputs.

    Raises:
        ProjectError: No stage has it, or several do.
    """
    found = [stage for stage in load_stages().values() if stage.is_training]
    if len(found) != 1:
        raise ProjectError(
            f"dvc.yaml has {len(found)} stages that write {RUN_REPORT}",
            "let one stage have it, the one that trains",
        )
    return found[0]


@functools.lru_cache(maxsize=4)
def _load(root: str, _content: bytes) -> dict[str, Stage]:
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    try:
        with Repo(root) as repo:
            graph = repo.index.graph  # an edge points from a stage to what it depends on
            position = {stage: number for number, stage in enumerate(repo.index.stages)}
            order = networkx.lexicographical_topological_sort(graph.reverse(), key=position.__getitem__)
            stages = [stage for stage in order if isinstance(stage, PipelineStage)]
            before = {stage: networkx.descendants(graph, stage) for stage in stages}
            return {
                stage.addressing: _stage_of(
                    stage,
                    root,
                    upstream=[other.addressing for other in stages if other in before[stage]],
                    downstream=[other.addressing for other in stages if stage in before[other]],
                )
                for stage in stages
            }
    except DvcException as error:
        raise ProjectError(f"DVC refuses dvc.yaml: {error}", "correct it: dvc stage list says more") from error


def _stage_of(stage: Any, root: str, upstream: list[str], downstream: list[str]) -> Stage:
    from dvc.dependency.param import ParamsDependency

    def relative(paths: list[str]) -> tuple[str, ...]:
        return tuple(Path(os.path.relpath(path, root)).as_posix() for path in paths)

    params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
    return Stage(
        name=stage.addressing,
        deps=relative([dep.fs_path for dep in stage.deps if dep not in params]),
        params=tuple(dict.fromkeys(name.partition(".")[0] for dep in params for name in dep.params)),
        outs=relative([out.fs_path for out in stage.outs]),
        meta=stage.meta or {},
        upstream=tuple(upstream),
        downstream=tuple(downstream),
    )

"""All runs that an audit asks about, from whichever source has them."""

from collections.abc import Iterable
from dataclasses import replace

from ..config import load_platform
from ..errors import ProjectError
from ..tracking.lineage_log import ShallowCloneError
from . import catalog_dvc, catalog_mlflow, deployments
from .catalog_mlflow import Catalog
from .index import InconclusiveError
from .manifests import Fetch


def read(source: str = "mlflow", experiments: tuple[str, ...] = ()) -> Catalog:
    """Read what there is.

    Args:
        source: `mlflow`, or `dvc`: the history of Git and DVC in this clone.
        experiments: Look at these MLflow experiments only; by default at all.

    Raises:
        NoAnswerError: MLflow can't be reached, or refuses.
        UndecidedError: There is no run at all: an empty MLflow has nothing to say of anybody.
        ShallowCloneError: This clone is shallow, and nothing else has a run.
        ProjectError: There is no such experiment, or this is no Git repository.
    """
    if source == "dvc" and experiments:
        raise ProjectError("DVC's history knows no experiments of MLflow's", "leave out --experiment, or --source dvc")
    world = catalog_dvc.read_all() if source == "dvc" else _mlflow(experiments)
    if not world.runs:
        raise InconclusiveError(
            f"there is no run in {' and '.join(map(str, filter(None, world.source.values())))}, so nothing to look at",
            "see that it is the right one (platform.yaml:tracking_uri), and has what it had: mirror status",
        )
    return world


def _mlflow(experiments: tuple[str, ...]) -> Catalog:
    """Read MLflow; what it lacks and the log has, trainings and versions, is looked up in DVC's history."""
    world, log = catalog_mlflow.read(experiments), deployments.read_log()
    doubts = deployments.compare(log, world.versions)
    project = load_platform().project
    if not experiments and deployments.NO_LOG in log.doubts and all(run.experiment != project for run in world.runs):
        doubts = (deployments.NO_RUNS,)  # another server, or one that lost them
    world = replace(world, versions=[*world.versions, *log.lost(world.versions)], doubts=doubts)
    if experiments and project not in experiments:
        return world
    there = {name for run in world.runs for name in run.names}
    try:
        lost = catalog_dvc.read(without=there)
    except ShallowCloneError:
        if not world.runs:
            raise
        return world  # a doubt says so

    def places(sha256: str) -> Iterable[Fetch]:
        yield from world.places(sha256)
        if any(run.manifest == sha256 for run in lost.runs):
            yield from lost.places(sha256)

    return replace(world, runs=[*world.runs, *lost.runs], places=places if lost.runs else world.places)

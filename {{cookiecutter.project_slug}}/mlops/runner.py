"""Run one stage, here or as a job, with the code and the environment that its lineage will name."""

import importlib
import importlib.util
import logging
from pathlib import Path

from . import pipeline
from .config import check_environment, home, job_file, load_platform
from .contract import package_name, stage_main
from .errors import ProjectError
from .tracking import mlflow_check, stage_metrics
from .tracking.git import git, paths, untracked_error
from .tracking.mlflow_client import SAME, MlflowAwayError
from .tracking.run_context import check_inputs, note_files

log = logging.getLogger(__name__)


def run_stage(name: str) -> None:
    """Run the module `stages/<name>.py`: here, or as a job when `RUN_ON` and `meta.job` of its stage say so.

    Raises:
        ProjectError: The code is not the working directory's, `dvc.yaml` has no such stage, the environment is not the
            pinned one, the job failed, an experiment's copy lacks code that Git does not track, or the stage raises it.
    """
    # An installed copy, or PYTHONSAFEPATH, would silently run other code than that of the commit that the run names.
    package = Path(__file__).resolve().parent
    if package.parent != Path.cwd().resolve():
        problem = f"the code that would run is {package}, outside the working directory {Path.cwd()}"
        fix = "uninstall that copy (`pip uninstall`), unset PYTHONSAFEPATH, and run from the project's root"
        raise ProjectError(problem, fix)
    stage = pipeline.stage_of_command(name)
    try:
        _check_mlflow(stage)
        if runs_as_job(stage):
            if not importlib.util.find_spec(".compute", __package__):
                problem = f"this project has no {__package__}/compute, so its stages run on this machine only"
                raise ProjectError(problem, "unset RUN_ON, or set platform.yaml:run_on: local")
            check_inputs(stage.name)
            importlib.import_module(".compute.submit", __package__).run(stage.name, _publish)
        else:
            check_environment(load_platform().allow_other_environment)
            if not job_file():  # a job's files are those of the commit already
                note_files()
                check_inputs(stage.name)
            stage_main(name.partition("@")[0])()
        if not job_file():
            stage_metrics.send(stage.name)
    except ImportError as error:
        _check_untracked(error)
        raise


def _check_mlflow(stage: pipeline.Stage) -> None:
    """Raise ProjectError if a stage would train or register for an MLflow that can't take the result."""
    if job_file() or not (stage.is_training or stage.is_registering):  # who started a job has asked
        return
    try:
        mlflow_check.check_usable()
    except MlflowAwayError as error:
        if stage.is_training:  # `register` says the same, when it has waited longer
            fix = error.fix.replace(SAME, "then python -m mlops mirror sync")
            log.warning("%s. The training goes on without it. To mend that: %s", error.problem, fix)


def runs_as_job(stage: pipeline.Stage) -> bool:
    """Return whether a stage runs as a job; one without `meta.job` in `dvc.yaml` never does."""
    return load_platform().run_on != "local" and stage.job is not None


def _publish(name: str) -> None:
    """Record in Git what a job registered, if it did: a job has no Git."""
    if pipeline.load_stage(name).is_registering:
        from .registry import versions

        versions.publish()


def _check_untracked(error: ImportError) -> None:
    """Raise ProjectError if a module can't be imported in an experiment's copy because Git does not track it.

    The copy holds what Git tracks. In the work tree, such a file is refused before a training (`run_context.snapshot`).
    """
    packages = (package_name(), "mlops")
    if (error.name or "").partition(".")[0] not in packages or home() == Path.cwd().resolve():
        return
    untracked = paths(git("ls-files", "--others", "-z", "--", *packages, where=home()))
    missing = [path for path in untracked if "__pycache__" not in Path(path).parts]
    if missing:
        raise untracked_error(missing) from error

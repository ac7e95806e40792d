"""Run one stage, in the code and the environment that its lineage will name."""

import errno
import importlib
from pathlib import Path

from . import environment
from .errors import ProjectError
from .settings import load_platform

STAGES = ("prepare", "manifest", "train", "register")
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_stage(name: str) -> None:
    """Run the stage `name` of `dvc.yaml`.

    Raises:
        ProjectError: The code is not the working directory's, the environment is not the pinned one, the disk is
            full, or what the stage itself says.
    """
    _check_code_is_here()
    platform = load_platform()
    environment.check(platform.allow_other_environment)
    stage = importlib.import_module(f".stages.{name}", __package__)
    try:
        stage.main()
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        raise ProjectError(
            f"the disk is full: {error.filename or 'while writing outputs'}",
            "free some space (`dvc gc -w` removes unused cache), then run again",
        ) from error


def _check_code_is_here() -> None:
    # An installed copy, or PYTHONSAFEPATH, would run other code than the commit that the run names. In silence.
    package = Path(__file__).resolve().parent
    if not package.is_relative_to(Path.cwd().resolve()):
        raise ProjectError(
            f"the code that would run is {package}, outside the working directory {Path.cwd()}",
            "uninstall that copy (`pip uninstall`), unset PYTHONSAFEPATH, and run from the project's root",
        )

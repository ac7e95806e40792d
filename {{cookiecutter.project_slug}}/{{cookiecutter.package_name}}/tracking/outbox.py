"""Runs that MLflow did not take when they ended, kept until it does.

A run ends in the work tree, where the next one takes its place, or in a folder that DVC throws away.
"""

import logging
import shutil
from pathlib import Path

from ..errors import ProjectError
from ..settings import PACKAGE, home
from .mirror import ARTIFACTS, RUN_DIR, read_facts, sync

log = logging.getLogger(__name__)


def folder() -> Path:
    """Return where they are kept, a folder for each: out of Git's and DVC's sight."""
    return home() / ".dvc" / "tmp" / "unsent"


def send_or_keep() -> None:
    """Send the run that has just ended; when that fails, keep a copy that later work does not overwrite.

    Nothing that MLflow does, or its database, or the store of its artifacts, may cost a finished training.
    """
    try:
        log.info("MLflow run: %s", sync())
    except Exception as error:
        run = read_facts()["run"]
        for name in (str(RUN_DIR), *ARTIFACTS):
            _copy(Path(name), folder() / run / name)
        problem = error.problem if isinstance(error, ProjectError) else repr(error)
        log.warning("%s. The run is kept; to send it later: python -m %s mirror sync", problem, PACKAGE)


def send_all() -> list[str]:
    """Send the runs that were kept, then what MLflow lacks of the run in the work tree.

    Returns:
        MLflow's ids of the runs.

    Raises:
        ProjectError: The first that was not taken; the others were sent all the same.
    """
    sent, problems = [], []
    kept = sorted(folder().glob("*"))
    for root in (*kept, Path()):
        if root == Path() and kept and not (RUN_DIR / "lineage.json").exists():
            continue  # no run here, and none was asked for
        try:
            sent.append(sync(root))
        except ProjectError as error:
            problems.append(error)
        else:
            if root in kept:
                shutil.rmtree(root)
    if problems:
        raise problems[0]
    return list(dict.fromkeys(sent))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy(source, target)

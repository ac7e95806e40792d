"""What a project's sandbox has of jobs."""

import json
from typing import Any

from ..conftest import BakedProject

FOLDER = ".dvc/tmp/jobs"


def jobs(project: BakedProject) -> list[str]:
    """Return the names of the jobs, the oldest first."""
    files = (project.path / FOLDER).glob("*/job.json")
    return [path.parent.name for path in sorted(files, key=lambda path: path.stat().st_mtime)]


def result(project: BakedProject, name: str) -> dict[str, Any]:
    """Return what a job handed back."""
    content: dict[str, Any] = json.loads((project.path / FOLDER / name / "out/result.json").read_text(encoding="utf-8"))
    return content

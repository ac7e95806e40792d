"""What a project's sandbox has of jobs."""

from ..conftest import BakedProject

FOLDER = ".dvc/tmp/jobs"


def jobs(project: BakedProject) -> list[str]:
    """Return the names of the jobs, the oldest first."""
    files = (project.path / FOLDER).glob("*/job.json")
    return [path.parent.name for path in sorted(files, key=lambda path: path.stat().st_mtime)]

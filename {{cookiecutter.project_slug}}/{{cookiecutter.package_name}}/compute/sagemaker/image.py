"""The container image of jobs."""

from ...errors import ProjectError
from ..spec import JobSpec


def of(spec: JobSpec) -> tuple[str, str]:
    """Return the image of a job, and the shell command that brings what it lacks; "" for none."""
    if not spec.image:
        raise ProjectError("no image is set for SageMaker's jobs", "make image")
    return spec.image, ""

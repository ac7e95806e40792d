"""The projects of the pipeline's tests, for those of its stages as jobs."""

from ..pipeline.conftest import project, reproduced

__all__ = ["project", "reproduced"]

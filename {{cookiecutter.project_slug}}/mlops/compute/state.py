"""What becomes of a job."""

from enum import StrEnum


class State(StrEnum):
    """SageMaker's words, and one for what has its description and was not started yet."""

    PREPARED = "Prepared"
    RUNNING = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"

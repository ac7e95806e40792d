"""The one error that is meant for a person: what is wrong, and what to do about it."""


class ProjectError(Exception):
    """Something the user can mend.

    The library raises it; the command line prints both parts and exits with 2.

    Args:
        problem: What is wrong, with the value that is wrong.
        fix: A command to type, or the `file:key` to change.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}\nFix: {fix}")
        self.problem = problem
        self.fix = fix


class UnavailableError(ProjectError):
    """A server can't be reached, or asks to be called less often: the same may succeed later."""

"""Errors as AWS answers them."""


class ServiceError(Exception):
    """An answer that is an error.

    Args:
        code: AWS's name of the error.
        message: Its text.
        status: Of HTTP.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        """Keep the three."""
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class JobError(Exception):
    """A job fails; the text is its FailureReason."""


def not_emulated(what: str) -> ServiceError:
    """Return the error for what SageMaker can and this emulator can't."""
    return ServiceError("NotEmulated", f"not emulated: {what}", 400)

"""What AWS asks of a request beyond its API's model."""

from typing import Any


def apply(noun: str, told: dict[str, Any]) -> None:
    pass

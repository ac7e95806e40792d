"""Stage `register`."""

from pathlib import Path

from mlops import register


def main() -> None:
    """Register every model, good or not."""
    register(Path("models/model"))

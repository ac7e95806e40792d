"""A place where jobs run: this machine's sandbox, or SageMaker.

The launcher knows what every place can do, and no more.
"""

import importlib
from pathlib import Path
from typing import Any, Protocol

from ..config import load_platform
from ..tracking.run_context import RunContext
from .state import State


class Backend(Protocol):
    """What the module `service` of each place has."""

    def folder(self) -> Path:
        """Return where this machine keeps what it knows of its jobs."""

    def check(self) -> None:
        """See that a job can be started from here.

        Raises:
            ProjectError: It can't.
        """

    def last(self, base: str) -> str | None:
        """Return the name of the last attempt at something."""

    def state(self, name: str) -> State:
        """Return what became of a job."""

    def is_described(self, name: str) -> bool:
        """Return whether this machine has what a job of this name was told, or is to be told."""

    def origin_of(self, name: str) -> RunContext:
        """Return where a job was started."""

    def prepare(self, name: str, description: dict[str, Any]) -> None:
        """Describe a job that is to be started."""

    def start(self, name: str) -> None:
        """Start a prepared job."""

    def follow(self, name: str) -> None:
        """Show what a job prints until it ends. Ctrl-C stops it, a second one leaves it to itself.

        Raises:
            KeyboardInterrupt: It was stopped by Ctrl-C.
            ProjectError: It failed, or was stopped otherwise.
        """

    def out_dir(self, name: str) -> Path:
        """Return the folder of what an ended job handed back."""

    def stop(self, name: str) -> None:
        """Ask a job to stop: its training ends as after Ctrl-C. Nothing happens to one that has ended."""

    def log_of(self, name: str) -> str:
        """Return what a job printed.

        Raises:
            ProjectError: There is no such job.
        """

    def row(self, name: str) -> str:
        """Return what there is to say of a job, in a line."""


def current_backend() -> Backend:
    """Return the place that `RUN_ON`, or `platform.yaml:run_on`, names."""
    return _of(load_platform().run_on)


def backend_of(name: str) -> Backend:
    """Return the place that has a job of this name; no two have the same."""
    sandbox = _of("sandbox")
    return sandbox if sandbox.is_described(name) or not load_platform().region else _of("sagemaker")


def _of(run_on: str) -> Backend:
    place: Backend = importlib.import_module(f".{run_on}.service", __package__)
    return place


def next_attempt(base: str, attempt: str | None) -> str:
    """Return the name of the attempt after another one, or of the first."""
    return f"{base}-{int(attempt.rpartition('-')[2]) + 1 if attempt else 1}"

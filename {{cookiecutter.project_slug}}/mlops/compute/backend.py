"""Where jobs run: the interface of a backend, and the backends that a project has.

A backend is a class that implements `Backend`. Each sub-folder of `mlops/compute` with a `backend.py` has one, and
`[tool.mlops.backends]` in `pyproject.toml` adds more (docs/backends.md); `RUN_ON` or `platform.yaml:run_on` chooses.
"""

import abc
import importlib
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from ..config import load_platform, load_tool_settings
from ..errors import ProjectError
from ..files import read_json
from ..tracking.run_context import RunContext
from .spec import JobSpec

log = logging.getLogger(__name__)

DESCRIPTION, CODE = "job.json", "code.tar.gz"  # what a job gets: files of these names


class State(StrEnum):
    """States of a job, from its description to its end."""

    PREPARED = "Prepared"
    RUNNING = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


@dataclass(frozen=True)
class JobRow:
    """What `jobs list` shows of a job."""

    state: State
    reason: str = ""  # why it failed or was stopped
    billable_s: int | None = None  # seconds to pay for
    machines: str = ""  # that these seconds are of


class Backend(abc.ABC):
    """Runs jobs. A job is the command `python -m mlops jobs run DESCRIPTION OUT_DIR` in the files of one commit.

    What this machine knows of a job is in a folder of its name, with the description in `job.json`.
    """

    NAME: ClassVar[str]  # as `RUN_ON` has it: the name of its sub-folder, or its key in `[tool.mlops.backends]`

    @abc.abstractmethod
    def folder(self) -> Path:
        """Return the folder that has the folders of the backend's jobs, of all copies of this repository."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raise ProjectError when no job can be started from this machine."""

    @abc.abstractmethod
    def state(self, name: str) -> State:
        """Return the state of a job."""

    @abc.abstractmethod
    def prepare(self, name: str, description: dict[str, Any]) -> None:
        """Store the description of a job, and the code of its commit, before it is started."""

    @abc.abstractmethod
    def start(self, name: str) -> None:
        """Start a prepared job."""

    @abc.abstractmethod
    def follow(self, name: str) -> None:
        """Print the log of a job until it ends; raise ProjectError unless it completed.

        Ctrl-C stops the job and, when that has ended, raises KeyboardInterrupt; a second Ctrl-C detaches at once.
        """

    @abc.abstractmethod
    def out_dir(self, name: str) -> Path:
        """Return the folder with what an ended job wrote to OUT_DIR, after fetching it where necessary."""

    @abc.abstractmethod
    def stop(self, name: str) -> None:
        """Ask a job to stop: its training ends as after Ctrl-C. A job that has ended is left as it is."""

    @abc.abstractmethod
    def log_of(self, name: str) -> str:
        """Return what a job printed; raise ProjectError when there is no such job."""

    @abc.abstractmethod
    def row(self, name: str) -> JobRow:
        """Return what `jobs list` shows of a job."""

    def names(self, prefix: str = "", everyones: bool = False) -> list[str]:
        """Return the names of this clone's jobs, or of everyone's where the backend knows them, the oldest first."""
        files = sorted(self.folder().glob(f"{prefix}*/{DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
        return [path.parent.name for path in files if not path.parent.name.startswith(".")]

    def last(self, base: str) -> str | None:
        """Return the name of the latest attempt of whoever started it, `<base>-<number>`, or None."""
        names = self.names(f"{base}-", everyones=True)
        attempts = (name for name in names if name.removeprefix(f"{base}-").isdigit())
        return max(attempts, key=attempt_of, default=None)

    def is_described(self, name: str) -> bool:
        """Return whether this machine has the description of a job, started or not."""
        return (self.folder() / name / DESCRIPTION).exists()

    def describe(self, name: str) -> dict[str, Any]:
        """Return the description of a job, fetched where necessary."""
        return dict(read_json(self.folder() / name / DESCRIPTION))

    def context_of(self, name: str) -> RunContext:
        """Return the context in which a job was started."""
        return RunContext(**self.describe(name)["origin"])

    def has_job(self, name: str) -> bool:
        """Return whether this backend may have a job that this machine has no description of."""
        return self.is_described(name)

    def plan(self, folder: Path, name: str, description: dict[str, Any]) -> str:
        """Return the request that would start a job, as JSON, and write its files to `folder`; nothing is sent."""
        raise NotImplementedError

    def needs(self, specs: dict[str, JobSpec]) -> list[str]:
        """Return what must exist before the jobs of these stages can run, one line each; `jobs rehearse` prints it."""
        return []

    def clean(self) -> int:
        """Delete the working folders of ended jobs, but not their results; return the number of bytes freed."""
        return 0


def attempt_of(name: str) -> int:
    """Return the number at the end of a job's name."""
    return int(name.rpartition("-")[2])


def backends() -> dict[str, type[Backend]]:
    """Return the backends of the project by name; raise ProjectError if a declared class can't be one."""
    return {name: _load(name, target) for name, target in _declared().items()}


def current_backend() -> Backend:
    """Return the backend that `RUN_ON`, or `platform.yaml:run_on`, names; raise ProjectError if there is none."""
    name, declared = load_platform().run_on, _declared()
    if name not in declared:
        fix = f"RUN_ON or platform.yaml:run_on: {' | '.join(['local', *declared])}"
        raise ProjectError(f"there is no backend {name!r} to run jobs on", fix)
    return _load(name, declared[name])()


def backend_of(name: str) -> Backend:
    """Return the backend that has a job of this name; raise ProjectError if none has it."""
    known = [backend() for backend in backends().values()]
    owners = [backend for backend in known if backend.is_described(name)]
    if not owners and (owners := [backend for backend in known if backend.has_job(name)]):
        log.info("this machine has no job %r: asking %s", name, owners[0].NAME)
    if not owners:
        raise ProjectError(f"there is no job {name!r}", "python -m mlops jobs list")
    return owners[0]


def _declared() -> dict[str, str]:
    """Return where the class of each backend is, by name: a module, or `module:Class`."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/backend.py"))
    extra = load_tool_settings().backends
    if taken := sorted(extra.keys() & {"local", *folders}):
        problem = f"pyproject.toml:tool.mlops.backends has {', '.join(taken)}, which mlops has already"
        raise ProjectError(problem, "choose another name there")
    return {name: f"{__package__}.{name}.backend" for name in folders} | extra


def _load(name: str, target: str) -> type[Backend]:
    fix = f"correct it, or pyproject.toml:tool.mlops.backends.{name}; mlops/compute/backend.py has the interface"
    module_name, _, class_name = target.partition(":")
    try:
        members = vars(importlib.import_module(module_name))
    except ModuleNotFoundError as error:
        raise ProjectError(f"backend {name!r} is {target}, which can't be imported: {error}", fix) from error
    classes = [member for member in members.values() if isinstance(member, type) and issubclass(member, Backend)]
    own = [cls for cls in classes if (cls.__name__ == class_name if class_name else cls.__module__ == module_name)]
    if not own:
        raise ProjectError(f"backend {name!r} is {target}, which is no subclass of {__name__}:Backend", fix)
    if missing := sorted(own[0].__abstractmethods__):
        raise ProjectError(f"backend {name!r} is {target}, which lacks the method(s) {', '.join(missing)}", fix)
    if getattr(own[0], "NAME", "") != name:
        raise ProjectError(f"backend {name!r} is {target}, which lacks NAME = {name!r}", fix)
    return own[0]

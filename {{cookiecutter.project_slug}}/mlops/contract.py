"""What `mlops` asks of the team's package, and the only place that imports it.

The package is named by `[tool.mlops] package` in `pyproject.toml`. `stages/<name>.py` has a function `main()` for each
stage; `interface.py` has what `Interface` lists; `data/__init__.py` has `DataParams`, the model of `params.yaml:data`
(with `source`, `fraction` and `consent`), and `load(source)`, which returns a source of records.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import ValidationError

from .config import load_tool_settings
from .errors import ProjectError

if TYPE_CHECKING:
    import numpy as np


class Metric(Protocol):
    """A figure that says how good predictions are."""

    name: str
    function: "Callable[[np.ndarray, np.ndarray], float]"
    """Takes labels, (N,) positions, and the probability of each of K labels, (N, K), float; N is at least 1."""
    higher_is_better: bool
    needs_probabilities: bool
    """False: the position of the highest is enough. Models whose rows have no `scores` are measured by such alone."""
    labels: int
    """K at least: with fewer labels, the metric says nothing."""


class Interface(Protocol):
    """The module `interface` of the team's package. A *content* is the encoded file of one record.

    It, and all that it imports of its own package, travels with a registered model: it imports nothing of `mlops`.
    """

    TRAVELS: Sequence[str]
    """Files and folders of the package that go with a registered model, `interface.py` among them."""
    WEIGHTS: str
    """The file of a model's directory that makes it another model when it changes."""
    REQUIREMENTS: Sequence[str]
    """Names of the packages that these import."""
    METRICS: Sequence[Metric]
    """By which models are measured: the gate and `registry promote --by` know them as `test_<name>`."""

    def load(self, directory: Path) -> Any:
        """Return the model of a directory that `train` wrote; anything it raises means that it is damaged."""

    def predict(self, model: Any, contents: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return a prediction for each content, with the same keys each, `label` among them.

        A classifier gives `scores` too, the probability of each label: `{"label": "7", "scores": {"1": 0.1, …}}`.
        """

    def example(self, model: Any) -> bytes:
        """Return a content that the model takes."""

    def decode(self, content: bytes) -> str:
        """Return the file extension of a content (`png`), after a check of it; raise ValueError if it is no good."""


def package_name() -> str:
    """Return the name of the team's package."""
    return load_tool_settings().package


def interface() -> Interface:
    """Import the team's `interface`; raise ProjectError if the package can't be found."""
    return cast(Interface, _import("interface"))


def known_metrics() -> dict[str, Metric]:
    """Return the team's metrics by name; raise ProjectError if its `interface` has none."""
    if not hasattr(interface(), "METRICS"):  # as that of a project from before there were
        problem = f"{package_name()}/interface.py has no METRICS, by which models are measured"
        raise ProjectError(problem, "write them: mlops/contract.py:Metric says what they are")
    return {metric.name: metric for metric in interface().METRICS}


def data_package() -> ModuleType:
    """Import the team's `data`; raise ProjectError if the package can't be found."""
    return _import("data")


def stage_main(name: str) -> Callable[[], None]:
    """Import the function that a stage runs; raise ProjectError if there is no such module, or it has no `main`."""
    module = _import(f"stages.{name}")
    if not hasattr(module, "main"):
        raise ProjectError(f"{module.__file__} has no function main()", "define it there: the stage runs it")
    return cast(Callable[[], None], module.main)


def _import(name: str) -> ModuleType:
    full = f"{package_name()}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if not error.name or not f"{full}.".startswith(f"{error.name}."):
            raise
        file = f"{full.replace('.', '/')}.py"
        if Path(file).exists():  # the working directory is not on Python's path
            problem = f"Python can't import {full}, and {Path.cwd()} has it"
            raise ProjectError(problem, "unset PYTHONSAFEPATH, and run from the project's root") from error
        fix = f"write {file}, or restore it: git checkout {file}; of another name: pyproject.toml:tool.mlops.package"
        raise ProjectError(f"there is no module {full} in {Path.cwd()}", fix) from error


def load_model(directory: Path) -> Any:
    """Load the model of a directory; raise ProjectError if a file is missing or damaged."""
    try:
        return interface().load(directory)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        path = directory.as_posix()
        fix = f"restore it: dvc pull --force {path}; or train again: dvc repro --force train"
        invalid = error.errors()[0]["msg"] if isinstance(error, ValidationError) else None
        problem = f"the model in {path} is damaged: {invalid or ' '.join(str(error).split())}"
        raise ProjectError(problem, fix) from error

"""What the project's configuration files say, typed and checked.

`params.yaml` holds what may change the model: DVC tracks it, and each stage declares the shape of its own section.
`platform.yaml` holds where things are: nothing in it is ever part of a stage's identity.
`pyproject.toml` has a section `[tool.mlops]`: the name of the team's package, and what else it declares.
"""

import copy
import difflib
import functools
import json
import os
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from .errors import ProjectError


class StrictModel(BaseModel):
    """A section of a configuration file: unknown keys are refused, types are not bent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Platform(StrictModel):
    """Where things are.

    Args:
        project: Name of the MLflow experiment and of the registered model.
        tracking_uri: MLflow server; null means an SQLite file in this repository.
        run_on: Where the stages that have a `meta.job` in `dvc.yaml` run: `local`, or a backend of `compute/`. The
            others run on this machine.
        job: How jobs are asked for, where a stage's `meta.job` says nothing else: see `mlops/compute/spec.py`.
        role_arn: IAM role of SageMaker's jobs.
        region: AWS region of SageMaker's jobs.
        jobs_uri: Where code goes to SageMaker's jobs, and their results come from, `s3://…`; null means beside the DVC
            remote.
        allow_other_environment: Run although installed packages differ from `environment.json`; recorded on the run.
    """

    project: str
    tracking_uri: str | None
    run_on: str
    job: dict[str, Any] = Field(default_factory=dict)
    role_arn: str | None = None
    region: str | None = None
    jobs_uri: str | None = None
    allow_other_environment: bool


class ToolSettings(StrictModel):
    """The section `[tool.mlops]` of `pyproject.toml`.

    Args:
        package: Name of the team's package, which lies beside `mlops/`.
        numeric: Packages that compute: `environment.json` pins their versions.
        backends: More backends of jobs than those in `mlops/compute`: `name = "module:Class"`.
    """

    package: str
    numeric: list[str]
    backends: dict[str, str] = Field(default_factory=dict)


AnySection = TypeVar("AnySection", bound=StrictModel)


def load_params(section: str, shape: type[AnySection]) -> AnySection:
    """Read one section of `params.yaml` in the working directory.

    Raises:
        ProjectError: The file or the section is missing, or a key is unknown, missing, or out of range.
    """
    content = _read("params.yaml")
    if section not in content:
        raise ProjectError(
            f"params.yaml has no section {section!r}{_nearest(section, content)}", f"add `{section}:` to params.yaml"
        )
    return check("params.yaml", section, content[section], shape)


def read_params() -> dict[str, Any]:
    """Read the whole of `params.yaml`, unchecked."""
    return _read("params.yaml")


def load_platform() -> Platform:
    """Read `platform.yaml` in the working directory; `MLFLOW_TRACKING_URI` and `RUN_ON` go before what it says.

    Raises:
        ProjectError: The file is missing, or a key is unknown, missing, or of the wrong type.
    """
    content = _read("platform.yaml")
    for key, variable in (("tracking_uri", "MLFLOW_TRACKING_URI"), ("run_on", "RUN_ON")):
        if os.environ.get(variable):
            content[key] = os.environ[variable]
    return check("platform.yaml", "", content, Platform)


def load_tool_settings() -> ToolSettings:
    """Read `[tool.mlops]` of `pyproject.toml` in the working directory.

    Raises:
        ProjectError: The file or the section is missing, or a key is unknown, missing, or of the wrong type.
    """
    content = _parse_toml(_read_text("pyproject.toml")).get("tool", {}).get("mlops")
    if content is None:
        raise ProjectError("pyproject.toml has no section [tool.mlops]", 'add it, with package = "<your package>"')
    return check("pyproject.toml", "tool.mlops", content, ToolSettings)


def home() -> Path:
    """Return the repository that the work belongs to.

    That is the working directory, except inside `dvc exp run --temp` or `--queue`, where DVC works in a throw-away copy
    below the real repository's `.dvc/tmp` and names the real one in `DVC_ROOT`.
    """
    here = Path.cwd().resolve()
    parent = Path(os.environ.get("DVC_ROOT", here)).resolve()
    return parent if here.is_relative_to((parent / ".dvc" / "tmp").resolve()) else here


def job_file() -> Path | None:
    """Return the file that tells a job what it is; None when this process is not part of one."""
    path = os.environ.get("STAGE_JOB")
    return Path(path) if path else None


def read_machines() -> dict[str, Any]:
    """Return the machines of this job: `hosts`, `current_host`, `instance_type`, `keeps_checkpoints`.

    A backend's entry point sets `STAGE_MACHINES`; elsewhere there is one machine without a name.
    """
    alone = {"hosts": [""], "current_host": "", "instance_type": "", "keeps_checkpoints": False}
    return {**alone, **json.loads(os.environ.get("STAGE_MACHINES", "{}"))}


def _read(name: str) -> dict[str, Any]:
    try:
        content = copy.deepcopy(_parse(_read_text(name)))
    except YAMLError as error:
        raise ProjectError(f"{name} is not valid YAML: {error}", f"correct {name}") from error
    if not isinstance(content, dict):
        raise ProjectError(f"{name} holds no keys", f"restore it: git checkout {name}")
    return content


def _read_text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ProjectError(
            f"{name} is not in {Path.cwd()}", "run from the project's root, where dvc.yaml is"
        ) from error
    except UnicodeDecodeError as error:
        raise ProjectError(f"{name} is not UTF-8: {error}", f"save {name} as UTF-8") from error


@functools.lru_cache(maxsize=8)
def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"pyproject.toml is not valid TOML: {error}", "correct pyproject.toml") from error


@functools.lru_cache(maxsize=8)
def _parse(text: str) -> Any:
    # Of the same text once: some verbs ask ten times, and each took 2 ms.
    return YAML(typ="safe").load(text)


def check(name: str, section: str, content: Any, shape: type[AnySection]) -> AnySection:
    """Give the content of a section its shape.

    Args:
        name: The file, for errors.
        section: Where it stands there, with dots; "" for the whole file.
        content: As it was read.
        shape: What it must have.

    Raises:
        ProjectError: A key is unknown, missing, or out of range.
    """
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        # An unknown key goes first: where a key is misspelt, the right one is missing too.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in ((section,) if section else ()) + first["loc"])
        if first["type"] == "extra_forbidden":
            nearest = _nearest(str(first["loc"][-1]), shape.model_fields)
            raise ProjectError(
                f"{name} has an unknown key: {key}{nearest}", f"correct or remove {name}:{key}"
            ) from error
        if first["type"] == "missing":
            raise ProjectError(f"{name} lacks the key {key}", f"add {key} to {name}") from error
        said = first["msg"].removeprefix("Value error, ")
        raise ProjectError(
            f"{name}:{key} is {first['input']!r}: {said[0].lower()}{said[1:]}", f"change {name}:{key}"
        ) from error


def _nearest(word: str, known: Any) -> str:
    found = difflib.get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else f" (known: {', '.join(sorted(map(str, known)))})"

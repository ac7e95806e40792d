"""The project's configuration files, typed and checked.

`params.yaml` holds what may change the model: DVC tracks it, and each stage declares the keys of its own section.
`platform.yaml` holds where things are: nothing in it is ever part of a stage's identity.
`pyproject.toml` has a section `[tool.mlops]`: the name of the team's package, and its declarations.
`environment.json` pins the packages that compute: stages depend on it, and it is checked before a stage runs.
`make lock` writes it; a change of torch then retrains, a change of pytest does not.
"""

import copy
import difflib
import functools
import json
import os
import re
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from .errors import ProjectError
from .files import atomic_write, write_json

PINS_PATH = Path("environment.json")


class StrictModel(BaseModel):
    """A section of a configuration file, a pydantic model: unknown keys are refused, types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _valid_project(name: str) -> str:
    """Refuse a name that MLflow's registry or a Git tag (`<name>@v1.0.0`) would refuse after the training."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name) or ".." in name:
        rule = "letters, digits, _ and -, and single dots, up to 100 of them, a letter or digit first"
        raise ValueError(f"it must be {rule}, such as digit-classifier")
    return name


class Platform(StrictModel):
    """`platform.yaml`: where things are."""

    project: Annotated[str, AfterValidator(_valid_project)]  # name of the MLflow experiment and of the registered model
    tracking_uri: str | None  # MLflow server; null means an SQLite file in this repository
    run_on: str  # where stages with a `meta.job` in `dvc.yaml` run: `local`, or a backend of `compute/`
    job: dict[str, Any] = Field(default_factory=dict)  # defaults of `meta.job`: see `mlops/compute/spec.py`
    role_arn: str | None = None  # IAM role of SageMaker's jobs
    region: str | None = None  # AWS region of SageMaker's jobs
    jobs_uri: str | None = None  # where SageMaker's jobs get code and leave results; null means beside the DVC remote
    publish: Literal["auto", "ask", "never"] = "auto"  # the log of trainings, to the Git remote `origin`
    allow_other_environment: bool  # run although installed packages differ from `environment.json`; recorded on the run


class ToolSettings(StrictModel):
    """The section `[tool.mlops]` of `pyproject.toml`."""

    package: str  # name of the team's package, which lies beside `mlops/`
    numeric: list[str]  # packages that compute: `environment.json` pins their versions
    backends: dict[str, str] = Field(default_factory=dict)  # of jobs, beside those in `mlops/compute`: "module:Class"


AnySection = TypeVar("AnySection", bound=StrictModel)


def load_params(section: str, shape: type[AnySection]) -> AnySection:
    """Read one section of `params.yaml` in the working directory.

    Args:
        section: Its name, such as `train`.
        shape: A subclass of `StrictModel` with the section's keys, their types and ranges.

    Returns:
        An instance of `shape`.

    Raises:
        ProjectError: The file or the section is missing, or a key is unknown, missing, or out of range.
    """
    content = read_params()
    if section not in content:
        problem = f"params.yaml has no section {section!r}{_nearest(section, content)}"
        raise ProjectError(problem, f"add `{section}:` to params.yaml")
    return check("params.yaml", section, content[section], shape)


def read_params() -> dict[str, Any]:
    """Read all of `params.yaml`, unchecked."""
    return _read("params.yaml")


def set_param(path: str, value: str) -> None:
    """Change one value of `params.yaml`, such as `split.salt`."""
    set_values(Path("params.yaml"), {path: SingleQuotedScalarString(value)}, null="")


def set_values(file: Path, values: Mapping[str, str], null: str) -> list[str]:
    """Change values of a YAML file, and nothing else of it: comments, order and quotes stay.

    Args:
        file: The file; it is written when something changes.
        values: By path, such as `job.image`.
        null: How the file writes that there is no value.

    Returns:
        What was changed, a line each.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    yaml.Representer = type("Representer", (RoundTripRepresenter,), {})  # what is added to it, ruamel adds to the class
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", null)
    )
    _read(file.as_posix())  # it refuses what can't be read
    content, changes = yaml.load(file.read_text(encoding="utf-8-sig")), []
    for path, value in values.items():
        *sections, key = path.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        if section.get(key) != value:
            section[key] = value
            changes.append(f"{file.as_posix()}:{path}: {value}")
    if changes:
        with atomic_write(file) as new, new.open("w", encoding="utf-8", newline="\n") as stream:
            yaml.dump(content, stream)
    return changes


def load_platform() -> Platform:
    """Read `platform.yaml` in the working directory; `MLFLOW_TRACKING_URI` and `RUN_ON` override it."""
    content = _read("platform.yaml")
    overrides = {"tracking_uri": os.environ.get("MLFLOW_TRACKING_URI"), "run_on": os.environ.get("RUN_ON")}
    content |= {key: value for key, value in overrides.items() if value}
    return check("platform.yaml", "", content, Platform)


def load_tool_settings() -> ToolSettings:
    """Read `[tool.mlops]` of `pyproject.toml` in the working directory."""
    tool = _read("pyproject.toml").get("tool")
    content = tool.get("mlops") if isinstance(tool, dict) else None
    if content is None:
        fix = "restore it: git checkout pyproject.toml; mlops/config.py:ToolSettings says what it has"
        raise ProjectError("pyproject.toml has no section [tool.mlops]", fix)
    return check("pyproject.toml", "tool.mlops", content, ToolSettings)


def check_environment(allow_other: bool) -> None:
    """Raise ProjectError when a pinned package is missing or has another public version (`+cpu` does not count).

    With `allow_other`, do nothing: the difference is recorded on the run.
    """
    if (packages := other_packages()) and not allow_other:
        listed = ", ".join(f"{name} {have} (pinned: {want})" for name, (want, have) in packages.items())
        raise ProjectError(
            f"installed packages differ from environment.json: {listed}",
            "python -m pip install -r requirements.lock (after a wanted upgrade: make lock), "
            "or platform.yaml:allow_other_environment: true",
        )


def other_packages() -> dict[str, tuple[str, str]]:
    """Return `{package: (pinned, installed)}` for those that differ in their public version."""
    return {name: (want, have) for name, want in read_pins().items() if (have := _installed(name)) != want}


def read_pins() -> dict[str, str]:
    """Return the pinned public version of each numeric package."""
    return _read(PINS_PATH.name)


def write_pins() -> None:
    """Write the installed public versions of the numeric packages to `environment.json`."""
    write_json(PINS_PATH, {name: _installed(name) for name in load_tool_settings().numeric})


def home() -> Path:
    """Return the repository that the work belongs to: the working directory, or the one that DVC made a copy of.

    In `dvc exp run --temp` or `--queue`, DVC works in a temporary copy below the repository's `.dvc/tmp`, and names the
    repository in `DVC_ROOT`.
    """
    folder = Path.cwd().resolve()
    parent = Path(os.environ.get("DVC_ROOT", folder)).resolve()
    return parent if folder.is_relative_to((parent / ".dvc" / "tmp").resolve()) else folder


def job_file() -> Path | None:
    """Return the file that describes the job that this process is part of; None when it is part of none."""
    path = os.environ.get("STAGE_JOB")
    return Path(path) if path else None


def read_machines() -> dict[str, Any]:
    """Return the job's machines, from `STAGE_MACHINES`, which a backend sets; else one machine without a name."""
    texts = dict.fromkeys(("current_host", "instance_type", "network_interface"), "")
    single = {"hosts": [""], **texts, "keeps_checkpoints": False}
    return {**single, **json.loads(os.environ.get("STAGE_MACHINES", "{}"))}


def _installed(name: str) -> str:
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return "not installed"


def _read(name: str) -> dict[str, Any]:
    content = copy.deepcopy(_parse(name, _read_text(name)))
    if not isinstance(content, dict):
        raise ProjectError(f"{name} holds no keys with values", f"write them, or restore it: git checkout {name}")
    return content


def _read_text(name: str) -> str:
    restore = f"restore it: git checkout {name}"
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        fix = restore if Path("dvc.yaml").exists() else "run from the project's root, where dvc.yaml is"
        raise ProjectError(f"{name} is not in {Path.cwd()}", fix) from error
    except IsADirectoryError as error:
        raise ProjectError(f"{name} is a folder", f"mv {name} {name}.old && git checkout {name}") from error
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or text.startswith("\ufeff"):
        problem = f"{name} is not in UTF-8: it is in UTF-16 or another encoding, or has several byte order marks"
        raise ProjectError(problem, f"save it as UTF-8 in your editor, or {restore}")
    if conflict := re.search("^<{7} .*", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        fix = f"merge them in your editor; or, while the merge goes on, take one side: git checkout --ours {name}"
        raise ProjectError(f"{name} has two versions since a merge in Git, at line {line}: {conflict[0]}", fix)
    return text


@functools.lru_cache(maxsize=8)
def _parse(name: str, text: str) -> Any:
    # Cached: some commands read a file ten times, at 2 ms each.
    parse = {".toml": tomllib.loads, ".json": json.loads}.get(Path(name).suffix, YAML(typ="safe").load)
    try:
        return parse(text)
    except (ValueError, YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = str(getattr(error, "problem", None) or error).partition(" with value")[0]
        where = f"{name} line {mark.line + 1}" if mark else name
        problem = f"{where} is not valid {Path(name).suffix[1:].upper()}: {' '.join(reason.split())}"
        raise ProjectError(problem, f"correct that, or restore it: git checkout {name}") from error


def check(name: str, section: str, content: Any, shape: type[AnySection]) -> AnySection:
    """Make a model of a section's content; raise ProjectError if a key is unknown, missing, or out of range.

    Errors name the file (`name`) and the key in it; `section` may have dots, and is "" for the whole file.
    """
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        # An unknown key comes first: where a key is misspelt, the right one is missing too.
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in ((section,) if section else ()) + first["loc"])
        if first["type"] == "extra_forbidden":
            problem = f"{name} has an unknown key: {key}{_nearest(str(first['loc'][-1]), shape.model_fields)}"
            raise ProjectError(problem, f"correct or remove {name}:{key}") from error
        if first["type"] == "missing":
            raise ProjectError(f"{name} lacks the key {key}", f"add {key} to {name}") from error
        is_section = first["type"] in ("model_type", "dict_type")
        text = "it must hold keys with values" if is_section else first["msg"].removeprefix("Value error, ")
        value, kind = first["input"], first["type"].removesuffix("_type")
        shown = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
        hint = " (text stands in quotes)" if kind == "string" and value is not None else ""
        if kind in ("int", "float", "bool") and isinstance(value, str):
            hint = " (without quotes)"
        raise ProjectError(
            f"{name}:{key} is {shown}: {text[0].lower()}{text[1:]}", f"change {name}:{key}{hint}"
        ) from error


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(sorted(map(str, known)))})"

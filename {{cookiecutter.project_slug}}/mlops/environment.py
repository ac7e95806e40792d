"""The packages that compute: pinned in `environment.json`, which the stages depend on, and checked before a stage runs.

`make lock` writes the file; a change of torch then retrains, a change of pytest does not.
"""

from importlib import metadata
from pathlib import Path

from .config import load_tool_settings
from .errors import ProjectError
from .files import read_json, write_json

PINS_PATH = Path("environment.json")


def check(allow_other: bool) -> None:
    """Raise ProjectError when a pinned package is missing or has another public version (`+cpu` does not count).

    With `allow_other`, do nothing: the difference is recorded on the run.
    """
    if (packages := differences()) and not allow_other:
        listed = ", ".join(f"{name} {have} (pinned: {want})" for name, (want, have) in packages.items())
        raise ProjectError(
            f"installed packages differ from environment.json: {listed}",
            "python -m pip install -r requirements.lock (after a wanted upgrade: make lock), "
            "or platform.yaml:allow_other_environment: true",
        )


def differences() -> dict[str, tuple[str, str]]:
    """Return `{package: (pinned, installed)}` for those that differ in their public version."""
    pins: dict[str, str] = read_json(PINS_PATH)
    return {name: (want, have) for name, want in pins.items() if (have := _installed(name)) != want}


def write_pins() -> None:
    """Write the installed public versions of the numeric packages to `environment.json`."""
    write_json(PINS_PATH, {name: _installed(name) for name in load_tool_settings().numeric})


def _installed(name: str) -> str:
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return "not installed"

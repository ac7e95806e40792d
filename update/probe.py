"""Report on a copy of a project: run with its environment, in its root, by `checks.look_at`.

Imports nothing of `update`, since the environment may be another one.
"""

import importlib
import json
import pkgutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any


def main() -> None:
    """Write the report to the file that the first argument names; the second one has the pins, or null."""
    pins = json.loads(sys.argv[2])
    problems = [*package_problems(pins), *code_problems()] if pins is not None else []
    reasons, upstream = stale_stages()
    report = {"problems": problems, "reasons": reasons, "upstream": upstream}
    Path(sys.argv[1]).write_text(json.dumps(report), encoding="utf-8")


def package_problems(pins: Mapping[str, str]) -> list[str]:
    """Return the requirements of pinned packages that other pins do not meet."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    problems = []
    for name, version in pins.items():
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            pin = pins.get(canonicalize_name(needed.name))
            applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if pin and applies and not needed.specifier.contains(pin, prereleases=True):
                problems.append(f"requirements.lock: {name} {version} needs {needed}, and the pin is {pin}")
    return problems


def code_problems() -> list[str]:
    """Return what can't be imported: of mlops, all; of the team's package, what mlops asks of it."""
    import mlops

    problems = []
    modules = [module.name for module in pkgutil.walk_packages(mlops.__path__, "mlops.", onerror=lambda name: None)]
    for name in modules:
        if not name.endswith("__main__"):
            problems += failure(name, lambda name=name: importlib.import_module(name))
    if problems:
        return problems
    from mlops.contract import Interface, interface, package_name, stage_main

    package = package_name()
    problems += failure(f"{package}/interface.py", interface)
    if not problems:
        members = [name for name in (*Interface.__annotations__, *vars(Interface)) if not name.startswith("_")]
        lacking = [name for name in members if not hasattr(interface(), name)]
        problems += [f"{package}/interface.py has no {name}, which mlops asks for" for name in lacking]
    for path in sorted(Path(package, "stages").glob("[!_]*.py")):
        problems += failure(path.as_posix(), lambda path=path: stage_main(path.stem))
    return problems


def failure(name: str, load: Any) -> list[str]:
    """Return what was raised while something was loaded."""
    try:
        load()
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {' '.join(str(error).split())}"]
    return []


def stale_stages() -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """Return why each stage would run, without its outputs, and the stages upstream of each."""
    import networkx
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    with Repo() as repo:
        status = repo.status()
        graph = repo.index.graph  # an edge points from a stage to what it depends on
        upstream = {
            stage.addressing: [
                other.addressing for other in networkx.descendants(graph, stage) if isinstance(other, PipelineStage)
            ]
            for stage in repo.index.stages
            if isinstance(stage, PipelineStage)
        }
    reasons: dict[str, dict[str, str]] = {}
    for stage in status.keys() & upstream:
        entries = [
            entry if isinstance(entry, dict) else {"changed deps": {"its command": entry}} for entry in status[stage]
        ]
        deps = {path: state for entry in entries for path, state in entry.get("changed deps", {}).items()}
        reasons[stage] = {path: state if isinstance(state, str) else "modified" for path, state in deps.items()}
    return reasons, upstream


if __name__ == "__main__":
    main()

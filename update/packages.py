"""The lock, and the lists of packages in pyproject.toml, in which the owner has packages of their own.

Both are merged entry by entry: what only one side changed is that side's.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .errors import UpdateError
from .template import LOCK, PINS, PYPROJECT

LISTS = (("project", "dependencies"), ("project", "optional-dependencies", "dev"), ("tool", "mlops", "numeric"))


def merge(base: Mapping[str, bytes] | None, ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Merge the lock, `environment.json` and the lists of packages in `pyproject.toml`.

    Args:
        base: The files of the template's old version; None when it is not known.
        ours: The project's files.
        theirs: The files of the template's new version.

    Raises:
        UpdateError: The owner's requirements and the template's can't both be met by one pin.
    """
    new_lists = _lists(theirs[PYPROJECT])
    pyproject = _merge_pyproject(_lists(base[PYPROJECT]) if base else None, ours[PYPROJECT], new_lists)
    lists = _lists(pyproject)
    required = [_requirement(text) for text in _required(lists)]
    limits = [*required, *map(_requirement, _required(new_lists))]
    wanted: set[str] = {canonicalize_name(item.name) for item in required}
    pins = _merge_pins(_pins(base[LOCK]) if base else None, _pins(ours[LOCK]), _pins(theirs[LOCK]), wanted, limits)
    numeric = lists[LISTS[2]].values()
    present = json.loads(ours[PINS])
    environment = {name: _version(pins.get(canonicalize_name(name), "")) or present.get(name) for name in numeric}
    lock = "".join(f"{line}\n" for _, line in sorted(pins.items())).encode()
    return {
        PYPROJECT: pyproject,
        LOCK: lock if pins != _pins(ours[LOCK]) else ours[LOCK],
        PINS: (json.dumps(environment, indent=2) + "\n").encode() if environment != present else ours[PINS],
    }


def pinned_versions(lock: bytes) -> dict[str, str]:
    """Return the versions that a lock pins, by the package's name; what it takes from an address is left out."""
    return {name: version for name, line in _pins(lock).items() if (version := _version(line))}


def team_package(pyproject: bytes) -> str:
    """Return the name of the team's package."""
    return str(tomllib.loads(pyproject.decode("utf-8"))["tool"]["mlops"]["package"])


def skip_in_cruft(pyproject: bytes, paths: tuple[str, ...]) -> bytes:
    """Add paths to `[tool.cruft] skip`."""
    document = tomlkit.parse(pyproject.decode("utf-8"))
    skip = document.setdefault("tool", {}).setdefault("cruft", {}).setdefault("skip", [])
    for path in paths:
        if path not in skip:
            skip.append(path)
    return tomlkit.dumps(document).encode()


def _pins(lock: bytes) -> dict[str, str]:
    """Return the lines of a lock by the package's name; a line with an option is its own name."""
    lines = [line.strip() for line in lock.decode("utf-8").splitlines()]
    return {_name(line): line for line in lines if line and not line.startswith("#")}


def _name(requirement: str) -> str:
    text = re.match(r"[A-Za-z0-9._-]*[A-Za-z0-9]", requirement)
    return canonicalize_name(text[0]) if text and not requirement.startswith("-") else requirement


def _version(line: str) -> str | None:
    pinned = re.fullmatch(r"[\w.-]+==([\w.!+]+)", line)
    return pinned[1] if pinned else None


def _merge_pins(
    base: dict[str, str] | None,
    ours: dict[str, str],
    theirs: dict[str, str],
    wanted: set[str],
    limits: list[Requirement],
) -> dict[str, str]:
    """Return the merged lines; what `wanted` names has one in any case, and all suit `limits`."""
    base = {name: ours[name] for name in theirs.keys() & ours} if base is None else base
    pins = {}
    for name in ours.keys() | theirs.keys():
        before, own, new = base.get(name), ours.get(name), theirs.get(name)
        lines = {own if new == before else new} if own == before or new == before else {own, new}
        candidates = sorted((line for line in lines if line), key=_newness, reverse=True)
        if not candidates and name not in wanted:
            continue
        needed = [item for item in limits if canonicalize_name(item.name) == name]
        both = sorted({line for line in (own, new) if line}, key=_newness, reverse=True)
        # The owner may need another version than the template: the newest that suits both.
        pin = next((line for line in (*candidates, *both) if _meets(line, needed)), None)
        if pin is None:
            problem = f"no pin of {name} suits both you and the template: {' and '.join(map(str, needed))};"
            problem = f"{problem} requirements.lock has {own}, the new version {new}"
            raise UpdateError(problem, f"change {name} in pyproject.toml:project.dependencies, then: make lock")
        pins[name] = pin
    return pins


def _newness(line: str) -> tuple[bool, Version]:
    try:
        return False, Version(_version(line) or "none")
    except InvalidVersion:  # taken from an address: its owner's choice goes first
        return True, Version("0")


def _meets(line: str, requirements: list[Requirement]) -> bool:
    version = _version(line)
    return version is None or all(item.specifier.contains(version, prereleases=True) for item in requirements)


def _requirement(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise UpdateError(f"{PYPROJECT} has a requirement that is none: {text!r}", f"correct {PYPROJECT}") from error


def _lists(pyproject: bytes) -> dict[tuple[str, ...], dict[str, str]]:
    """Return the lists of packages in a `pyproject.toml`: each entry by the package's name."""
    try:
        document = tomllib.loads(pyproject.decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UpdateError(f"{PYPROJECT} is not valid TOML: {error}", f"correct {PYPROJECT}") from error
    lists: dict[tuple[str, ...], dict[str, str]] = {}
    for keys in LISTS:
        entries: Any = document
        for key in keys:
            entries = entries.get(key, {})
        lists[keys] = {_name(entry): entry for entry in entries}
    return lists


def _required(lists: dict[tuple[str, ...], dict[str, str]]) -> list[str]:
    return [text for keys, entries in lists.items() if keys[0] == "project" for text in entries.values()]


def _merge_pyproject(
    base: dict[tuple[str, ...], dict[str, str]] | None, ours: bytes, theirs: dict[tuple[str, ...], dict[str, str]]
) -> bytes:
    """Bring what the template changed in its lists into the owner's file, whose other lines stay as they are."""
    document = tomlkit.parse(ours.decode("utf-8"))
    for keys, own in _lists(ours).items():
        new = theirs[keys]
        old = base[keys] if base else {name: text for name, text in new.items() if name in own}
        if old == new:
            continue
        array: Any = document
        for key in keys:
            array = array.get(key)
            if array is None:
                missing = ", ".join(f'"{text}"' for text in new.values())
                raise UpdateError(f"{PYPROJECT} has no {'.'.join(keys)}", f"add it: {keys[-1]} = [{missing}]")
        names = [_name(str(entry)) for entry in array]
        for name in sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)):
            if own.get(name) != old.get(name):  # the owner changed it: theirs, which the pin has to suit
                continue
            if name not in old:
                position = sum(other < name for other in names)
                array.insert(position, new[name])
                names.insert(position, name)
            elif name not in new:
                position = names.index(name)
                array.pop(position)
                names.pop(position)
            else:
                array[names.index(name)] = new[name]
    return tomlkit.dumps(document).encode()

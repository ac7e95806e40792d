"""Write to `platform.yaml`, and keep its comments."""

from pathlib import Path
from typing import Any

from ...files import atomic_write

PATH = Path("platform.yaml")


def write(values: dict[str, str]) -> list[str]:
    """Set keys of `platform.yaml`, such as `job.image`.

    Args:
        values: By key, with dots for sections.

    Returns:
        What was changed, a line each.
    """
    yaml = _yaml()
    content = yaml.load(PATH.read_text(encoding="utf-8"))
    changed = [key for key, value in values.items() if _set(content, key.split("."), value)]
    if changed:
        with atomic_write(PATH) as new, new.open("w", encoding="utf-8", newline="\n") as file:
            yaml.dump(content, file)
    return [f"platform.yaml:{key}: {values[key]}" for key in changed]


def _set(content: Any, path: list[str], value: str) -> bool:
    *sections, key = path
    for section in sections:
        content = content.setdefault(section, {})
    before = content.get(key)
    content[key] = value
    return bool(before != value)


def _yaml() -> Any:
    """Return a reader and writer that leaves alone what it is not told to change."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml

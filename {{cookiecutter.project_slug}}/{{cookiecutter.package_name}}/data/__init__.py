"""Sources of records. To add one, write a module here with a function `records()` and name it in `params.yaml`."""

import importlib
import pkgutil
from collections.abc import Iterable

from mlops import Record


def names() -> list[str]:
    """Return the names of the sources: the modules of this folder, but for `splits`."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "splits")


def load(source: str) -> Iterable[Record]:
    """Return the records of a source."""
    records: Iterable[Record] = importlib.import_module(f".{source}", __package__).records()
    return records

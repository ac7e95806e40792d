"""What DVC hashes on the laptop, counted inside its processes: this is put on their path as `sitecustomize`.

Python imports that when it starts. A job has an environment of its own, so only the processes of the laptop are here.
"""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

LOG = "HASHED_LOG"  # environment variable with the path of the log: a line of JSON for each hash
WATCHED = "dvc_data.hashfile.hash"


class _Counting:
    """A hasher that writes down how much it was given."""

    def __init__(self, hasher: Any, path: str) -> None:
        self._hasher, self._path, self._size_bytes = hasher, path, 0
        self.name = hasher.name

    def update(self, data: bytes) -> None:
        self._size_bytes += len(data)
        self._hasher.update(data)

    def hexdigest(self) -> str:
        line = json.dumps({"path": self._path, "size_bytes": self._size_bytes, "by": sys.argv})
        with open(os.environ[LOG], "a", encoding="utf-8") as log:
            log.write(line + "\n")
        return str(self._hasher.hexdigest())


def _watch(module: ModuleType) -> None:
    begin = module.HashStreamFile.__init__

    def counted(self: Any, fobj: Any, *args: Any, **named: Any) -> None:
        begin(self, fobj, *args, **named)
        self.hasher = _Counting(self.hasher, str(getattr(fobj, "name", "")))

    module.HashStreamFile.__init__ = counted  # of every way to hash a file, this is the beginning


class _Finder(MetaPathFinder):
    """Waits until DVC imports its hashing: most processes never do."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != WATCHED:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            spec.loader = _Loading(spec.loader)
        return spec


class _Loading(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _watch(module)


if __name__ == "sitecustomize":
    with contextlib.suppress(KeyError):
        if os.environ[LOG]:
            sys.meta_path.insert(0, _Finder())

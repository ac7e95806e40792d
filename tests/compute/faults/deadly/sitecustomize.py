"""Let a process end with its whole group, as by `kill -9`, where a test says: `DIE_AT=<module>:<function>`.

In a folder on PYTHONPATH, Python imports this at its start. The code that dies knows nothing of it, and a job, whose
environment is its own, never sees it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

MODULE, _, ATTRIBUTE = os.environ.get("DIE_AT", "").partition(":")


def die(*_: object, **__: object) -> None:
    """End, with the process that waits for this one."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        owner: object = module
        *path, last = ATTRIBUTE.split(".")
        for name in path:
            owner = getattr(owner, name)
        setattr(owner, last, die)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == MODULE else None
        if spec and spec.origin:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


if MODULE:
    sys.meta_path.insert(0, _Finder())

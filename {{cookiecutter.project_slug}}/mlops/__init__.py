"""The machinery of an ML project: what the stages of the team's package use of it are the names below, and no others.

`python -m mlops --help` is its command line, `mlops/README.md` its map. The names are imported when they are first
used, so that a command that needs no torch does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import StrictModel as StrictModel
    from .config import load_params as params  # noqa: F401 (in _NAMES)
    from .errors import ProjectError as ProjectError
    from .files import write_report as write_report
    from .records.source import with_consent as with_consent
    from .records.csv_reader import read_csv as read_csv
    from .records.manifest import write_manifest as write_manifest
    from .records.shards import read as read_split  # noqa: F401 (in _NAMES)
    from .records.shards import write_dataset as write_dataset
    from .records.source import Record as Record
    from .records.source import read_records as read_records
    from .registry.versions import load_version as load_version
    from .registry.versions import register as register
    from .tracking.run import TrainingRun as TrainingRun
    from .tracking.run import training_run as training_run
    from .training.distributed import run_processes as run_processes

_NAMES = {
    "ProjectError": "errors:ProjectError",
    "Record": "records.source:Record",
    "StrictModel": "config:StrictModel",
    "TrainingRun": "tracking.run:TrainingRun",
    "load_version": "registry.versions:load_version",
    "params": "config:load_params",
    "read_csv": "records.csv_reader:read_csv",
    "read_records": "records.source:read_records",
    "read_split": "records.shards:read",
    "register": "registry.versions:register",
    "run_processes": "training.distributed:run_processes",
    "training_run": "tracking.run:training_run",
    "with_consent": "records.source:with_consent",
    "write_dataset": "records.shards:write_dataset",
    "write_manifest": "records.manifest:write_manifest",
    "write_report": "files:write_report",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    return getattr(importlib.import_module(f".{module}", __name__), attribute)

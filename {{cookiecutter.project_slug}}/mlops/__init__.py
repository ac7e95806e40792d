"""The machinery of an ML project. The team's package uses the names below, and nothing else of it.

`help(mlops.training_run)` says what a function does, `python -m mlops --help` lists the commands, `mlops/README.md`
says what lies where. A name is imported when it is first used: a command that needs no torch does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and mypy: the same names as in _ORIGINS
    from .config import StrictModel as StrictModel
    from .config import load_params
    from .errors import ProjectError as ProjectError
    from .files import sha256 as sha256
    from .files import write_report as write_report
    from .pipeline import require_dep as require_dep
    from .records import shards
    from .records.contents import Contents as Contents
    from .records.listing import list_files as list_files
    from .records.listing import read_file as read_file
    from .records.manifest import write_manifest as write_manifest
    from .records.shards import write_dataset as write_dataset
    from .records.source import Record as Record
    from .records.source import read_records as read_records
    from .records.source import require_consent as require_consent
    from .records.splits import SplitParams as SplitParams
    from .records.splits import split_by_subject as split_by_subject
    from .registry.gate import Gate as Gate
    from .registry.gate import check_gate as check_gate
    from .registry.predictions import predict_files as predict_files
    from .registry.predictions import write_predictions as write_predictions
    from .registry.versions import load_version as load_version
    from .registry.versions import register as register
    from .tracking.run import TrainingRun as TrainingRun
    from .tracking.run import training_run as training_run
    from .training.dataset import ContentDataset as ContentDataset
    from .training.dataset import open_labelled as open_labelled
    from .training.loader import TrainingLoader as TrainingLoader
    from .training.loader import evaluation_batches as evaluation_batches
    from .training.loader import mix_seed as mix_seed
    from .training.numerics import numeric_fingerprint as numeric_fingerprint
    from .training.processes import run_processes as run_processes
    from .training.recipe import BaseTrainParams as BaseTrainParams
    from .training.recipe import known_name as known_name
    from .training.reports import confusion_figure as confusion_figure
    from .training.reports import write_reports as write_reports

    params, read_split = load_params, shards.read

_ORIGINS = {  # in the order of a pipeline
    "ProjectError": "errors:ProjectError",
    "StrictModel": "config:StrictModel",
    "params": "config:load_params",
    "require_dep": "pipeline:require_dep",
    "Record": "records.source:Record",
    "list_files": "records.listing:list_files",
    "read_file": "records.listing:read_file",
    "read_records": "records.source:read_records",
    "require_consent": "records.source:require_consent",
    "SplitParams": "records.splits:SplitParams",
    "split_by_subject": "records.splits:split_by_subject",
    "write_dataset": "records.shards:write_dataset",
    "write_manifest": "records.manifest:write_manifest",
    "sha256": "files:sha256",
    "write_report": "files:write_report",
    "run_processes": "training.processes:run_processes",
    "training_run": "tracking.run:training_run",
    "TrainingRun": "tracking.run:TrainingRun",
    "BaseTrainParams": "training.recipe:BaseTrainParams",
    "known_name": "training.recipe:known_name",
    "read_split": "records.shards:read",
    "open_labelled": "training.dataset:open_labelled",
    "ContentDataset": "training.dataset:ContentDataset",
    "Contents": "records.contents:Contents",
    "TrainingLoader": "training.loader:TrainingLoader",
    "evaluation_batches": "training.loader:evaluation_batches",
    "mix_seed": "training.loader:mix_seed",
    "write_reports": "training.reports:write_reports",
    "confusion_figure": "training.reports:confusion_figure",
    "numeric_fingerprint": "training.numerics:numeric_fingerprint",
    "load_version": "registry.versions:load_version",
    "Gate": "registry.gate:Gate",
    "check_gate": "registry.gate:check_gate",
    "register": "registry.versions:register",
    "predict_files": "registry.predictions:predict_files",
    "write_predictions": "registry.predictions:write_predictions",
}
__all__ = list(_ORIGINS)


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _ORIGINS[name].partition(":")
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return __all__

"""Sources of records: `params.yaml:data.source` names one.

To add a source, write a module here with two functions: `records()` yields a `mlops.Record` for each record, and
`read(content)` returns the bytes of one. Name the files that it reads in `dvc.yaml:stages.prepare.deps`.
"""

import importlib
import pkgutil
from typing import Annotated, Any, Literal

from mlops import StrictModel
from pydantic import Field, field_validator


class DataParams(StrictModel):
    """`params.yaml:data`: which records are used."""

    source: str  # a module of this folder
    folders: str = "label"  # of the source `folder`: what folders say of the files in them, from the top
    fraction: Annotated[float, Field(gt=0, le=1)]  # the records of a small fraction are among those of a larger one
    shards: Annotated[int, Field(ge=1, le=1000)]  # files per split and delivery, at most
    compact_until: str | None = None  # deliveries up to this one are stored as one
    consent: Literal["required", "not_required"]  # not_required: public data behind which nobody stands

    @field_validator("source")
    @classmethod
    def _exists(cls, source: str) -> str:
        if source not in (names := sorted(module.name for module in pkgutil.iter_modules(__path__))):
            raise ValueError(f"data/ has the sources {', '.join(names)}")
        return source


def load(source: str) -> Any:
    """Return the module of a source."""
    return importlib.import_module(f".{source}", __package__)

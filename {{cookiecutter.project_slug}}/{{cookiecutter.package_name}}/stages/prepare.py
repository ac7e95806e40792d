"""Stage `prepare`: from a source of records to the dataset in `data/dataset`.

source -> fraction -> consent -> split by subject -> shards. Run it with `dvc repro prepare`.
"""

from typing import Annotated, Literal, Self

from mlops import StrictModel, params, read_records, with_consent, write_dataset
from pydantic import Field, field_validator, model_validator

from .. import data as sources
from ..data import splits


class DataParams(StrictModel):
    """`params.yaml:data`: which records are used."""

    source: str  # a module of data/ with a function records()
    fraction: Annotated[float, Field(gt=0, le=1)]  # the records of a small fraction are among those of a larger one
    shards: Annotated[int, Field(ge=1, le=1000)]  # files per split, at most; only how much is uploaded after a change
    consent: Literal["required", "not_required"]  # not_required: public data behind which nobody stands

    @field_validator("source")
    @classmethod
    def _exists(cls, source: str) -> str:
        if source not in sources.names():
            raise ValueError(f"data/ has the sources {', '.join(sources.names())}")
        return source


class SplitParams(StrictModel):
    """`params.yaml:split`: which subjects are learned from, chosen by, and tested on."""

    salt: str | int  # another one draws another split
    val: Annotated[float, Field(gt=0, lt=1)]  # fraction of the subjects by which the best epoch is chosen
    test: Annotated[float, Field(gt=0, lt=1)]  # fraction of the subjects that training never sees

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val and test together must be less than 1, to leave subjects to train on")
        return self


def main() -> None:
    """Make `data/dataset` and `reports/prepare.json`, from `params.yaml`, `data/consent.csv` and the source.

    Raises:
        ProjectError: Records, images or the registry are bad, or a split is empty; nothing was written then.
    """
    data, split = params("data", DataParams), params("split", SplitParams)
    records = read_records(sources.load(data.source), data.source)
    allowed = with_consent(splits.subsample(records, data.fraction), data.consent)
    parts = splits.split(allowed.records, str(split.salt), split.val, split.test)
    write_dataset(parts, data.shards, allowed)
    print(
        f"{len(allowed.records)} records ({', '.join(f'{name} {len(part)}' for name, part in parts.items())}),", end=" "
    )
    print(f"{allowed.excluded} left out for lack of consent")

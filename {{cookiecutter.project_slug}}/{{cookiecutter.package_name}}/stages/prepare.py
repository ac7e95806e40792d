"""Stage `prepare`: from a source of records to the dataset in `data/dataset`.

source -> fraction -> consent -> split by subject -> shards. Run it with `dvc repro prepare`.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..data import cifar10, consent, digits, folder, shards, sources, splits
from ..errors import ProjectError
from ..files import write_json
from ..settings import Section, home, load_params, read_stage

SOURCES = {"digits": digits.records, "cifar10": cifar10.records, "folder": folder.records}
"""Each takes the folder where its input is and yields records. Add yours here and in `DataParams.source`."""


class DataParams(Section):
    """`params.yaml:data`: which records are used.

    Args:
        source: Where they come from.
        fraction: How much of them is kept, above 0 to 1; the records of a small fraction are among those of a larger.
        shards: Files per split at most. It changes no result, only how much is uploaded after a change.
        consent: Whether only records of subjects in `data/consent.csv` are used. `not_required` is for public data
            behind which nobody stands, and is recorded with every model.
    """

    source: Literal["digits", "cifar10", "folder"]
    fraction: Annotated[float, Field(gt=0, le=1)]
    shards: Annotated[int, Field(ge=1, le=1000)]
    consent: Literal["required", "not_required"]


class SplitParams(Section):
    """`params.yaml:split`: which subjects are learned from, chosen by, and tested on.

    Args:
        salt: Any text or number; another one draws another split.
        val: Fraction of the subjects by which the best epoch is chosen.
        test: Fraction of the subjects that training never sees.
    """

    salt: str | int
    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]

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
    data, split = load_params("data", DataParams), load_params("split", SplitParams)
    check_watched(data, read_stage("prepare")["deps"])
    # A download serves all experiments, also those that DVC runs in a throw-away copy; what is versioned is read here.
    place = home() / "data" / "download" if data.source == "cifar10" else Path("data", "raw")
    records = splits.thin(sources.load(SOURCES[data.source](place), data.source), data.fraction)
    allowed, digest = _allowed(records, data.consent)
    parts = splits.split(allowed, str(split.salt), split.val, split.test)
    shards.write(parts, data.shards, Path("data", "dataset"))
    excluded = len(records) - len(allowed)
    # DVC makes a column of every number and text in a metrics file, and leaves lists out: hence the list.
    shown = digest if digest == consent.NOT_REQUIRED else digest[:7]
    report = {"excluded": excluded, "consent": shown, "consent_sha256": [digest]}
    write_json(Path("reports", "prepare.json"), report)
    print(f"{len(allowed)} records ({', '.join(f'{name} {len(part)}' for name, part in parts.items())}),", end=" ")
    print(f"{excluded} left out for lack of consent")


def check_watched(data: DataParams, deps: list[str]) -> None:
    """See that DVC watches what the stage will read: else a new image or a withdrawn consent would run nothing.

    Raises:
        ProjectError: `dvc.yaml` does not name it.
    """
    read = {"data/raw": data.source == "folder", "data/consent.csv": data.consent == "required"}
    for path in (path for path, needed in read.items() if needed and path not in deps):
        raise ProjectError(
            f"params.yaml:data makes prepare read {path}, which dvc.yaml does not name",
            f"add `- {path}` to dvc.yaml:stages.prepare.deps (consent.csv: to stages.register.deps too)",
        )


def _allowed(records: list[sources.Record], rule: str) -> tuple[list[sources.Record], str]:
    """Return the records that may be used, and the digest of the registry that says so."""
    if rule == consent.NOT_REQUIRED:
        return records, rule
    registry = consent.read(consent.PATH)
    if doubts := registry.doubts(record.subject_id for record in records):
        print(f"Left out, {doubts}")
    return [record for record in records if registry.allows(record.subject_id)], registry.sha256

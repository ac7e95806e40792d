"""Stage `prepare`: from a source of records to the dataset in `data/dataset`.

source -> fraction -> consent -> split by subject -> shards. Run it with `dvc repro prepare`.
"""

from mlops import SplitParams, params, read_records, require_consent, split_by_subject, write_dataset

from ..data import DataParams, load


def main() -> None:
    """Make `data/dataset` and `reports/prepare.json`, from `params.yaml`, `data/consent.csv` and the source.

    Raises:
        ProjectError: Records, images or the registry are bad, or a split is empty; nothing was written then.
    """
    data, split = params("data", DataParams), params("split", SplitParams)
    with read_records(load(data.source), data.fraction) as records:
        require_consent(records, data.consent)
        split_by_subject(records, split)
        write_dataset(records, data.shards, data.compact_until or "")
        parts = ", ".join(f"{name} {count}" for name, count in records.by_split().items())
        print(f"{records.count()} records ({parts}), {records.excluded()} left out for lack of consent")

"""The dataset that training sees: the same images, kept or read one by one, by any number of workers."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from mlops import SplitParams, TrainingLoader, read_records, split_by_subject, write_dataset

from {{ cookiecutter.package_name }}.data import digits
from {{ cookiecutter.package_name }}.model.dataset import read_dataset
from {{ cookiecutter.package_name }}.model.transforms import AUGMENTATIONS, Preprocess


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_images_are_the_same_kept_or_not_and_with_workers(
    augment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with read_records(digits, 0.1) as records:
        split_by_subject(records, SplitParams(salt="7", val=0.2, test=0.2))
        write_dataset(records, 2)
    seen = []
    for cache, workers in (("memory", 0), ("none", 0), ("none", 1)):
        dataset = read_dataset(Path("data/dataset"), Preprocess(8, None), augment, cache)
        loader = TrainingLoader(dataset.train, 64, 0, Fabric(accelerator="cpu", devices=1), workers=workers)
        seen.append(torch.cat([batch.images.flatten(1) for batch in loader.epoch(1)]))
    assert dataset.channels == 1 and len(seen[0]) == len(dataset.train)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])

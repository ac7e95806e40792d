"""Gray or colour: what the images are, and what a model makes of images of the other kind."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dvclive import Live
from jinja2 import Template
from lightning_fabric import Fabric
from mlops import TrainingRun
from PIL import Image
from ruamel.yaml import YAML
from team import interface
from team.model.dataset import read_dataset
from team.model.networks import build
from team.model.predictor import ModelConfig, Predictor, save
from team.model.training import TrainParams
from team.model.transforms import Preprocess
from team.stages import train as stage

from ..mlops import small_datasets
from ..mlops.conftest import SKELETON
from ..mlops.small_datasets import record
from .test_images import saved

GRAY, RED = Image.new("L", (8, 8), 0x80), Image.new("RGB", (8, 8), (200, 0, 0))


def png(image: Image.Image) -> bytes:
    return saved(image, "PNG")


def write(folder: Path, **splits: list[Image.Image]) -> Path:
    """Write a dataset of two labels in turn; the splits that aren't given are gray."""
    parts = {"train": [GRAY] * 4, "val": [GRAY] * 4, "test": [GRAY] * 4} | splits
    images = {f"{split}-{n}": png(image) for split, part in parts.items() for n, image in enumerate(part)}
    rows = [record(name, label="ab"[int(name[-1]) % 2], content=name, split=name.split("-")[0]) for name in images]
    small_datasets.write(rows, folder / "dataset", read=images.__getitem__)
    return folder / "dataset"


def test_preprocess_of_gray_images_is_the_same_however_they_are_stored() -> None:
    shades = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 13), np.uint8))
    for channels in (1, 3):
        planes = [Preprocess(8, channels)(png(shades.convert(mode))) for mode in ("L", "LA", "RGB", "RGBA")]
        assert all(np.array_equal(image, planes[0]) for image in planes)
        assert np.array_equal(planes[0], planes[0][:1].repeat(channels, 0))


@pytest.mark.parametrize("place", range(3))
def test_read_dataset_with_one_image_in_colour_is_three_channels_of_all(place: int, tmp_path: Path) -> None:
    images = [GRAY, GRAY.convert("RGB"), GRAY]
    images[place] = RED
    dataset = read_dataset(write(tmp_path, train=images), Preprocess(8, None))
    assert dataset.channels == 3
    assert dataset.train[place][0][:, 0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(("image", "channels"), [(GRAY, 1), (RED, 3)], ids=["gray", "colour"])
@pytest.mark.parametrize("cache", ["auto", "none"])
def test_read_dataset_takes_all_splits_as_train_is(
    image: Image.Image, channels: int, cache: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, train=[GRAY, image], val=[RED] * 2)
    dataset = read_dataset(folder, Preprocess(8, None), cache=cache)
    assert dataset.channels == dataset.train.preprocess.channels == channels
    assert [len(part[0][0]) for part in (dataset.train, dataset.val, dataset.test)] == [channels] * 3


def config_of(channels: int) -> ModelConfig:
    figures = (0.5,) * channels
    return ModelConfig(arch="small_cnn", classes=("a", "b"), image_px=8, channels=channels, mean=figures, std=figures)


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_takes_gray_and_colour_whatever_the_model_learned_from(channels: int) -> None:
    model = Predictor(build("small_cnn", 2, channels), config_of(channels))
    images = [GRAY, GRAY.convert("RGB"), RED, RED.convert("L")]
    gray, same, red, shade = model.probabilities([png(image) for image in images])
    assert np.array_equal(gray, same)
    assert np.array_equal(red, shade) == (channels == 1)
    assert len(model.predict([interface.example(model)])) == 1


@pytest.mark.parametrize("parent", [1, 3])
@pytest.mark.parametrize("image", [GRAY, RED], ids=["gray", "colour"])
def test_fine_tuning_has_the_channels_of_the_model_that_it_starts_from(
    parent: int, image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "parent", build("small_cnn", 2, parent), config_of(parent))

    @contextlib.contextmanager
    def training_run(fabric: Fabric, parents: list[Any]) -> Iterator[TrainingRun]:
        with Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None) as live:
            yield TrainingRun(live=live)

    monkeypatch.setattr(stage, "DATASET_DIR", write(tmp_path, train=[GRAY, image] * 4))
    monkeypatch.setattr(stage, "load_version", lambda uri: SimpleNamespace(model_dir=tmp_path / "parent"))
    monkeypatch.setattr(stage, "training_run", training_run)
    text = Template((SKELETON / "params.yaml").read_text(encoding="utf-8")).render(cookiecutter={"dataset": "digits"})
    values = YAML(typ="safe").load(text)["train"]
    stage._main(TrainParams(**values | {"init_from": "models:/m/1", "epochs": 1}), Fabric(accelerator="cpu", devices=1))
    assert Predictor.load(stage.MODEL_DIR).config.channels == parent
    assert ("colour, 3" if parent == 3 else "gray, 1") in capsys.readouterr().out.partition("as in models:/m/1")[0]

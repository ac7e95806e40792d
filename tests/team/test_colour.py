"""Gray or colour: what the images are, and what a model makes of images of the other kind."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from dvclive import Live
from mlops import TrainingRun
from PIL import Image
from team import interface
from team.model.dataset import Dataset, Images, read_dataset
from team.model.networks import build
from team.model.predictor import ModelConfig, Predictor, save
from team.model.training import TrainParams
from team.model.transforms import decode
from team.stages import train as stage

GRAY, RED = Image.new("L", (8, 8), 0x80), Image.new("RGB", (8, 8), (200, 0, 0))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_decode_of_gray_images_is_one_channel_however_they_are_stored() -> None:
    shades = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 13), np.uint8))
    stored = [png(shades.convert(mode)) for mode in ("L", "LA", "RGB", "RGBA")]
    pixels = decode(stored, None, 8)
    assert torch.equal(pixels, decode(stored, 1, 8))
    assert torch.equal(pixels, pixels[:1].expand(4, 1, 8, 8))


@pytest.mark.parametrize("place", range(3))
def test_decode_of_one_image_in_colour_is_three_channels_of_all(place: int) -> None:
    images = [png(GRAY), png(GRAY.convert("RGB"))]
    images.insert(place, png(RED))
    pixels = decode(images, None, 8)
    assert torch.equal(pixels, decode(images, 3, 8))
    assert pixels[place, :, 0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(("train", "channels"), [(GRAY, 1), (RED, 3)], ids=["gray", "colour"])
def test_read_dataset_takes_all_splits_as_train_is(
    train: Image.Image, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {"train": [png(GRAY), png(train)], "val": [png(RED)], "test": [png(GRAY)]}

    def read_split(directory: Path) -> pa.Table:
        content = images[directory.name]
        return pa.table({"image": content, "label": ["a", "b"][: len(content)]})

    monkeypatch.setattr("team.model.dataset.read_split", read_split)
    dataset = read_dataset(Path(), None, 8)
    assert dataset.channels == channels
    assert [len(part.pixels[0]) for part in (dataset.train, dataset.val, dataset.test)] == [channels] * 3


def config_of(channels: int) -> ModelConfig:
    figures = (0.5,) * channels
    return ModelConfig(
        arch="small_cnn", classes=("gray", "red"), image_px=8, channels=channels, mean=figures, std=figures
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_takes_gray_and_colour_whatever_the_model_learned_from(channels: int) -> None:
    model = Predictor(build("small_cnn", 2, channels, None), config_of(channels))
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
    save(tmp_path / "parent", build("small_cnn", 2, parent, None), config_of(parent))

    def decode_these(directory: Path, channels: int | None, image_px: int) -> Dataset:
        part = Images(decode([png(GRAY), png(image)] * 4, channels, image_px), torch.tensor([0, 1] * 4))
        return Dataset(("gray", "red"), part.pixels.shape[1], part, part, part)

    @contextlib.contextmanager
    def training_run(parents: list[Any]) -> Iterator[TrainingRun]:
        with Live("reports/train", save_dvc_exp=False, dvcyaml=None, report=None) as live:
            yield TrainingRun(live=live)

    monkeypatch.setattr(stage, "load_version", lambda uri: SimpleNamespace(model_dir=tmp_path / "parent"))
    monkeypatch.setattr(stage, "read_dataset", decode_these)
    monkeypatch.setattr(stage, "training_run", training_run)
    values: dict[str, Any] = {"arch": "small_cnn", "weights": None, "init_from": "models:/m/1", "image_px": 8}
    values |= {"epochs": 1, "batch_size": 4, "max_lr": 1e-3, "weight_decay": 0, "seed": 0, "threads": 1, "processes": 1}
    stage._main(TrainParams(**values))
    assert Predictor.load(stage.MODEL_DIR).config.channels == parent
    assert ("colour, 3" if parent == 3 else "gray, 1") in capsys.readouterr().out.partition("as in models:/m/1")[0]

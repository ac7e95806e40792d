"""The model directory."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from {{ cookiecutter.package_name }}.model.networks import build
from {{ cookiecutter.package_name }}.model.predictor import ModelConfig, Predictor, save

CONFIG = ModelConfig(arch="small_cnn", classes=("no", "yes"), image_px=8, channels=1, mean=(0.5,), std=(0.25,))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save(tmp_path / "model", build("small_cnn", 2, None), CONFIG)
    return tmp_path / "model"


def test_load_what_was_saved_predicts_the_same(tmp_path: Path, png: Callable[..., bytes]) -> None:
    images = [png(colour=shade) for shade in (0, 128, 255)]
    before = Predictor(build("small_cnn", 2, None), CONFIG)
    save(tmp_path / "model", before.module, CONFIG)
    after = Predictor.load(tmp_path / "model")
    assert after.config == CONFIG
    assert np.array_equal(after.probabilities(images), before.probabilities(images))


def test_save_the_same_weights_gives_the_same_bytes(tmp_path: Path, directory: Path) -> None:
    save(tmp_path / "again", Predictor.load(directory).module, CONFIG)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


def test_predict_gives_the_likeliest_label_and_its_probability(directory: Path, png: Callable[..., bytes]) -> None:
    predictor = Predictor.load(directory)
    probabilities = predictor.probabilities([png(), png("RGB", 30, (9, 9, 9))])
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(1) == pytest.approx(1)
    (first, _) = predictor.predict([png(), png()])
    assert first == {"label": CONFIG.classes[probabilities[0].argmax()], "score": pytest.approx(probabilities[0].max())}


def test_predict_no_images_gives_none(directory: Path) -> None:
    assert Predictor.load(directory).predict([]) == []
    assert Predictor.load(directory).probabilities([]).shape == (0, 2)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_load_without_a_file_names_it(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Predictor.load(directory)


def _cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def _no_json(directory: Path) -> None:
    (directory / "model.json").write_text("{", encoding="utf-8")


def _other_arch(directory: Path) -> None:
    config = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    (directory / "model.json").write_text(json.dumps({**config, "arch": "resnet"}), encoding="utf-8")


def _other_classes(directory: Path) -> None:
    config = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    (directory / "model.json").write_text(json.dumps({**config, "classes": ["a", "b", "c"]}), encoding="utf-8")


def _missing_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights.popitem()
    save_file(weights, directory / "other")
    (directory / "other").replace(directory / "model.safetensors")


@pytest.mark.parametrize("damage", [_cut, _empty, _no_json, _other_arch, _other_classes, _missing_weight])
def test_load_damaged_is_an_error(directory: Path, damage: Callable[[Path], None]) -> None:
    damage(directory)
    with pytest.raises((ValueError, RuntimeError)):
        Predictor.load(directory)

"""The model directory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load
from safetensors.torch import save as dump

from {{ cookiecutter.package_name }}.model.networks import build
from {{ cookiecutter.package_name }}.model.predictor import ModelConfig, Predictor, save

from ..conftest import png

CONFIG = ModelConfig(arch="small_cnn", classes=("no", "yes"), image_px=8, channels=1, mean=(0.5,), std=(0.25,))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save(tmp_path / "model", build("small_cnn", 2, 1), CONFIG)
    return tmp_path / "model"


def test_saved_model_predicts_the_same_and_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    images = [png(colour=shade) for shade in (0, 128, 255)]
    before = Predictor(build("small_cnn", 2, 1), CONFIG)
    save(tmp_path / "model", before.module, CONFIG)
    after = Predictor.load(tmp_path / "model")
    assert after.config == CONFIG
    assert np.array_equal(after.probabilities(images), before.probabilities(images))
    save(tmp_path / "again", after.module, CONFIG)
    names = ("model", "again")
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in names)
    assert first == second


def test_predict_gives_the_likeliest_label_and_its_probability(directory: Path) -> None:
    predictor = Predictor.load(directory)
    probabilities = predictor.probabilities([png(), png("RGB", 30, (9, 9, 9))])
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(1) == pytest.approx(1)
    (first, _) = predictor.predict([png(), png()])
    scores = dict(zip(CONFIG.classes, probabilities[0].tolist(), strict=True))
    assert first == {"label": max(scores, key=scores.__getitem__), "score": max(scores.values()), "scores": scores}
    assert predictor.predict([]) == []
    assert predictor.probabilities([]).shape == (0, 2)


def test_an_image_has_the_same_bits_whatever_is_predicted_with_it(directory: Path) -> None:
    predictor, images = Predictor.load(directory), [png(colour=shade) for shade in range(64)]
    together = predictor.probabilities(images)
    for count in (1, 2, 3):
        assert np.array_equal(predictor.probabilities(images[-count:]), together[-count:])


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_load_without_a_file_names_it(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Predictor.load(directory)


def without_a_weight(data: bytes) -> bytes:
    weights = load(data)
    weights.pop(max(name for name in weights if name.endswith(".weight")))
    return dump(weights)


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "weights cut short": ("model.safetensors", lambda data: data[:-100]),
    "weights empty": ("model.safetensors", lambda data: b""),
    "weights lacking": ("model.safetensors", without_a_weight),
    "no JSON": ("model.json", lambda data: b"{"),
    "other network": ("model.json", lambda data: data.replace(b"small_cnn", b"resnet")),
    "more labels": ("model.json", lambda data: data.replace(b'"yes"', b'"yes", "maybe"')),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_load_damaged_is_an_error(directory: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (directory / name).write_bytes(damage((directory / name).read_bytes()))
    with pytest.raises((ValueError, RuntimeError)):
        Predictor.load(directory)

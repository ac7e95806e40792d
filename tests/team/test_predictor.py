"""A model's answers: the same bits for any number of images and threads, also from the directories of before."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from team.images import ImageError, encode_png
from team.model.networks import build
from team.model.predictor import ModelConfig, Predictor, save

OLD = {"arch": "small_cnn", "classes": ["no", "yes"], "image_px": 8, "channels": 1, "mean": [0.5], "std": [0.25]}


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def images(count: int, px: int) -> list[bytes]:
    random = np.random.default_rng(0)
    return [encode_png(random.integers(0, 256, (px, px, 3), dtype=np.uint8)) for _ in range(count)]


def predictor_of(arch: str, px: int, **options: Any) -> Predictor:
    torch.manual_seed(0)
    half, classes = (0.5, 0.5, 0.5), ("a", "b", "c")
    config = ModelConfig(arch=arch, model=options, classes=classes, image_px=px, channels=3, mean=half, std=half)
    return Predictor(build(arch, 3, 3, **options), config)


@pytest.mark.parametrize(
    ("arch", "px", "counts"),
    [
        ("small_cnn", 32, (2, 3, 64, 96)),
        ("small_resnet", 32, (2, 3, 64, 96)),
        ("mobilenet_v3_small", 64, (2, 3, 64, 96)),
        pytest.param("resnet18", 64, (2, 3, 24), marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 64, (2, 3, 24), marks=pytest.mark.slow),
        pytest.param("vit_b_16", 224, (2, 3), marks=pytest.mark.slow),
    ],
)
def test_bits_depend_on_neither_the_number_of_images_nor_the_threads(
    arch: str, px: int, counts: tuple[int, ...]
) -> None:
    predictor, contents = predictor_of(arch, px), images(max(counts), px)
    torch.set_num_threads(1)
    single = np.concatenate([predictor.probabilities([content]) for content in contents])
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        for count in counts:
            assert np.array_equal(predictor.probabilities(contents[:count]), single[:count]), (threads, count)
        assert torch.get_num_threads() == threads
    assert [row["scores"] for row in predictor.predict(contents[:2])] == [
        dict(zip(predictor.config.classes, row.tolist(), strict=True)) for row in single[:2]
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_image_is_named_and_the_threads_stay(threads: int) -> None:
    torch.set_num_threads(threads)
    good = images(1, 8)
    with pytest.raises(ImageError, match="image 3 of 5 can't be read: it is damaged"):
        predictor_of("small_cnn", 8).probabilities([*good, *good, b"", *good, b""])
    assert torch.get_num_threads() == threads
    assert predictor_of("small_cnn", 8).probabilities([]).shape == (0, 3)


def test_loading_a_model_leaves_the_random_numbers_of_a_training(tmp_path: Path) -> None:
    made = predictor_of("small_resnet", 32)
    save(tmp_path / "model", made.module, made.config)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Predictor.load(tmp_path / "model")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("options", [{}, {"options": {}}, {"options": {"width": 8}}], ids=str)
def test_a_directory_of_before_is_loaded(options: dict[str, Any], tmp_path: Path) -> None:
    arch = "small_resnet" if options.get("options") else "small_cnn"
    module = build(arch, 2, 1, **options.get("options", {}))
    old = {**OLD, **options, "arch": arch}
    config = ModelConfig.model_validate_json(json.dumps(old))
    save(tmp_path / "model", module, config)
    written = json.loads((tmp_path / "model/model.json").read_text(encoding="utf-8"))
    assert written == {**OLD, "arch": arch} | ({"model": {"width": 8}} if options.get("options") else {})
    (tmp_path / "model/model.json").write_text(json.dumps(old), encoding="utf-8")
    predictor = Predictor.load(tmp_path / "model")
    assert (predictor.config, predictor.config.resize, predictor.config.model) == (
        config,
        "squeeze",
        options.get("options", {}),
    )
    assert predictor.probabilities(images(2, 8)).shape == (2, 2)


def test_weights_are_the_same_bytes_however_they_lie_in_memory(tmp_path: Path) -> None:
    made = predictor_of("mobilenet_v3_small", 32)
    save(tmp_path / "one", made.module, made.config)
    made.module.to(memory_format=torch.channels_last)
    save(tmp_path / "two", made.module, made.config)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "two")

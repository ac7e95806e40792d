"""What training sees: the pixels of `open_image` by whatever way, kept or not, and small datasets as they were."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mlops import ProjectError, SplitParams, TrainingLoader, read_records, split_by_subject, write_dataset
from PIL import Image
from team.data import digits
from team.images import ImageError, open_image, plain_jpeg_mode, size_of
from team.model import dataset as module
from team.model.dataset import ImageDataset, decode, read_dataset
from team.model.transforms import AUGMENTATIONS, Normalise, Preprocess

from ..mlops import small_datasets
from ..mlops.conftest import SKELETON
from ..mlops.small_datasets import record
from .test_images import CMYK, GREY, REFUSED, RIGHT, SHAPES, SRGB, cmyk_profile, saved, swapped_profile

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (47, 33, 3), np.uint8))
PROCESS: Any = SimpleNamespace(device=torch.device("cpu"), global_rank=0, world_size=1)


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
JPEGS = {
    **{f"subsampled {value}": saved(NOISE, "JPEG", subsampling=value) for value in (0, 1, 2)},
    **{f"quality {value}": saved(NOISE, "JPEG", quality=value) for value in (1, 50, 100)},
    **{
        f"{width} x {height}": saved(NOISE.resize((width, height)), "JPEG")
        for width, height in ((1, 1), (1, 9), (17, 2), (64, 64))
    },
    "progressive": saved(NOISE, "JPEG", progressive=True),
    "progressive with restarts": saved(NOISE, "JPEG", progressive=True, restart_marker_blocks=1),
    "with restarts": saved(NOISE, "JPEG", restart_marker_rows=1),
    "optimised": saved(NOISE, "JPEG", optimize=True),
    "stored as RGB": saved(NOISE, "JPEG", keep_rgb=True),
    "gray": saved(NOISE.convert("L"), "JPEG"),
    "gray, progressive": saved(NOISE.convert("L"), "JPEG", progressive=True),
    "CMYK": saved(NOISE.convert("CMYK"), "JPEG"),
    "upright": saved(NOISE, "JPEG", exif=oriented(1)),
    "turned": saved(NOISE, "JPEG", exif=oriented(6)),
    "turned by a number that is none": saved(NOISE, "JPEG", exif=oriented(9)),
    "turned by XMP": saved(NOISE, "JPEG", xmp=XMP),
    "with a broken EXIF": saved(NOISE, "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff"),
    "of another profile": saved(NOISE, "JPEG", icc_profile=swapped_profile()),
    "of a profile that is sRGB's": saved(NOISE, "JPEG", icc_profile=SRGB),
    "of a damaged profile": saved(NOISE, "JPEG", icc_profile=b"no profile"),
    "CMYK of a profile": saved(CMYK, "JPEG", icc_profile=cmyk_profile()),
    "with a comment, and more behind its end": saved(NOISE, "JPEG", comment=b"hello") + bytes(100),
}


def by_pillow(content: bytes, channels: int) -> np.ndarray:
    image = np.asarray(open_image(content).convert({1: "L", 3: "RGB"}[channels]))
    return image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("content", (JPEGS | RIGHT | SHAPES).values(), ids=(JPEGS | RIGHT | SHAPES).keys())
def test_decode_gives_the_bits_of_open_image(content: bytes, channels: int) -> None:
    pixels = decode(content, channels)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels, by_pillow(content, channels))


def test_decode_takes_the_faster_way_for_plain_jpegs_alone() -> None:
    slow = {name for name, content in JPEGS.items() if not plain_jpeg_mode(content)}
    turned = {"turned", "turned by XMP", "turned by a number that is none"}
    assert slow == turned | {"CMYK", "CMYK of a profile", "of another profile"} | (slow & {"with a broken EXIF"})
    assert {name for name, content in RIGHT.items() if plain_jpeg_mode(content)} == {
        *("JPEG L", "JPEG RGB", "JPEG with a profile that is sRGB's", "JPEG with a damaged profile"),
        "JPEG L with a profile of colours",
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_decode_of_broken_jpegs_is_refused_or_equal_alike(capfd: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)  # noqa: S311 (not for secrets)
    verdicts: list[str] = []
    for _ in range(600):
        broken = bytearray(draw.choice(list(JPEGS.values())))
        for _ in range(draw.randrange(1, 4)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        content = bytes(broken[: draw.choice([len(broken), len(broken), draw.randrange(len(broken))])])
        verdicts.append(outcome(by_pillow, content))
        assert outcome(decode, content) == verdicts[-1]
    assert 100 < sum("damaged" in verdict for verdict in verdicts) < 500
    capfd.readouterr()  # what libjpeg says of them


def outcome(function: Callable[[bytes, int], Any], content: bytes) -> str:
    try:
        pixels = np.asarray(function(content, 3))
    except ImageError as error:
        return str(error)
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_decode_refuses_what_open_image_does(content: bytes) -> None:
    with pytest.raises(ImageError, match="has 32-bit"):
        decode(content, 3)


@pytest.mark.parametrize(
    "result", [torch.zeros(3, 67, 45), ImportError(), RuntimeError()], ids=["other", "gone", "lame"]
)
def test_decode_is_pillows_where_torchvision_has_other_bits_or_none(
    result: torch.Tensor | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode_by_torchvision(content: bytes) -> torch.Tensor:
        if isinstance(result, Exception):
            raise result
        return result

    content = JPEGS["quality 50"]
    monkeypatch.setattr(module, "_decode_by_torchvision", decode_by_torchvision)
    module._decoders_agree.cache_clear()
    assert np.array_equal(decode(content, 3), by_pillow(content, 3))
    module._decoders_agree.cache_clear()


def test_size_of_is_that_of_the_file() -> None:
    assert size_of(JPEGS["17 x 2"]) == (17, 2)
    with pytest.raises(ImageError, match="is damaged"):
        size_of(b"")


@pytest.mark.parametrize("size", [(47, 33), (33, 47), (40, 40), (300, 7), (16, 16)], ids=str)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_preprocess_preset_and_crop_are_torchvisions(size: tuple[int, int], method: str) -> None:
    from torchvision.transforms import v2

    image = NOISE.resize(size)
    for resize, resize_px in (("preset", 20), ("preset", 16), ("crop", 16)):
        made = Preprocess(16, 3, resize, resize_px, method)(saved(image, "PNG"))
        steps = [v2.Resize(resize_px, v2.InterpolationMode(method)), v2.CenterCrop(16), v2.PILToTensor()]
        expected = v2.Compose(steps)(image)
        assert np.abs(made.astype(int) - expected.numpy()).max() <= 1


def test_preprocess_of_a_long_image_makes_no_huge_one_between() -> None:
    import tracemalloc

    content = saved(Image.new("L", (60_000, 2), 7), "PNG")
    tracemalloc.start()
    assert (Preprocess(64, 1, "crop")(content) == 7).all()
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_preprocess_preset_without_its_size_is_refused() -> None:
    for resize_px in (None, 20):
        with pytest.raises(ValueError, match="resize_px is"):
            Preprocess(32, 3, "preset", resize_px)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_give_images_of_the_size(name: str, channels: int) -> None:
    if make := AUGMENTATIONS[name]:
        for size in ((8, 8), (47, 33), (1, 30)):
            image = torch.randint(0, 256, (channels, *size), dtype=torch.uint8)
            results = [make(16)(image) for _ in range(20)]
            assert {(result.shape, result.dtype) for result in results} == {((channels, 16, 16), torch.uint8)}


def test_augmentation_light_mirrors_nothing() -> None:
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    image[:, :, :16] = 255
    make = AUGMENTATIONS["light"]
    assert make
    assert all((made := make(32)(image))[0, :, :8].float().mean() > made[0, :, -8:].float().mean() for _ in range(50))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A dataset of JPEGs of several sizes; its folder."""
    images = [NOISE.resize((24 + 3 * number, 20 + number)) for number in range(12)]
    contents = {f"{number:02}": saved(image, "JPEG") for number, image in enumerate(images)}
    rows = [
        record(f"{split}-{name}", label="ab"[int(name) % 2], content=name, split=split)
        for split in ("train", "val", "test")
        for name in contents
    ]
    small_datasets.write(rows, tmp_path / "dataset", 2, contents.__getitem__)
    return tmp_path / "dataset"


def digest(dataset: ImageDataset, workers: int) -> str:
    whole = hashlib.sha256()
    loader = TrainingLoader(dataset, 5, 3, PROCESS, workers=workers)
    for batch in (batch for epoch in range(2) for batch in loader.epoch(epoch)):
        whole.update(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes())
    return whole.hexdigest()


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_keeping_images_changes_no_bit(photos: Path, augment: str) -> None:
    cached, uncached = (read_dataset(photos, Preprocess(16, None), augment, cache) for cache in ("memory", "none"))
    assert cached.train.in_memory and cached.val.in_memory and not uncached.train.in_memory
    assert cached.train.random == (augment != "none") and not cached.val.random
    assert len({digest(dataset.train, workers) for dataset in (cached, uncached) for workers in (0, 2)}) == 1
    assert digest(cached.val, 0) == digest(uncached.val, 0) == digest(uncached.test, 0)
    assert Normalise.of(cached.train.measured()) == Normalise.of(uncached.train.measured())
    for index in range(12):
        assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in [(cached.val[index], uncached.val[index])])


@pytest.mark.parametrize("augment", ["none", "light"])
def test_cache_auto_keeps_splits_while_there_is_room(
    photos: Path, augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = 12 * 3 * 16 * 16
    whole = sum(3 * (24 + 3 * number) * (20 + number) for number in range(12))
    train = evaluated if augment == "none" else whole
    expected = {0: (), train - 1: (), train: ("train",), train + evaluated: ("train", "val")}
    if train - 1 >= evaluated:
        expected[train - 1] = ("val",)
    for limit, names in expected.items():
        monkeypatch.setattr(module, "KEEP_BYTES", limit)
        dataset = read_dataset(photos, Preprocess(16, 3), augment)
        assert [name for name in ("train", "val") if getattr(dataset, name).in_memory] == list(names), limit
        assert not dataset.test.in_memory, "it is read once, when the saved model is measured"


def test_measured_of_many_images_is_an_even_part_of_them(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED", 4)
    dataset = read_dataset(photos, Preprocess(16, 3), cache="none").train
    assert all(
        np.array_equal(image, dataset[index][0]) for image, index in zip(dataset.measured(), (0, 3, 6, 9), strict=True)
    )


def test_damaged_image_is_named_by_split_and_record(tmp_path: Path) -> None:
    whole = saved(NOISE, "JPEG")
    rows = [
        record(f"{split}-{number}", label="ab"[number % 2], content=str(number), split=split)
        for split in ("train", "val", "test")
        for number in range(4)
    ]
    small_datasets.write(rows, tmp_path / "d", read=lambda number: whole[:200] if number == "3" else whole)
    for cache, augment in (("memory", "none"), ("memory", "light"), ("auto", "light"), ("none", "none")):
        with pytest.raises(ProjectError, match=r"the content of record 'train-3' is damaged[\s\S]*dvc repro"):
            dataset = read_dataset(tmp_path / "d", Preprocess(8, 3), augment, cache)
            list(TrainingLoader(dataset.train, 4, 0, PROCESS, workers=1).epoch(0))


def test_digits_are_what_they_were_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels and normalisation of the default project, by their hash in the first version of this template."""
    monkeypatch.chdir(tmp_path)
    with read_records(digits) as records:
        split_by_subject(records, SplitParams(salt="7", val=0.2, test=0.2))
        write_dataset(records, 8)
    dataset = read_dataset(Path("data/dataset"), Preprocess(8, None))
    pixels, labels = dataset.train.batch(range(len(dataset.train)))
    assert dataset.channels == 1 and dataset.train.in_memory and dataset.classes == tuple("0123456789")
    assert hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16] == "f1ad83413574c1fd"
    assert Normalise.of(dataset.train.measured()) == Normalise((0.303495,), (0.374454,))


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("team.model.dataset, team.model.networks, team.model.predictor", "torchvision"),
        ("team.model.transforms", "torch"),
    ],
    ids=["torchvision", "torch"],
)
def test_what_the_digits_or_a_server_need_not_is_not_imported(modules: str, unwanted: str) -> None:
    code = f"import sys; from tests.mlops import conftest; import {modules}; assert {unwanted!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=SKELETON.parent, check=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_gray_is_gray_however_it_is_stored(tmp_path: Path, mode: str) -> None:
    content = saved(GREY.convert(mode), "PNG")
    rows = [record(f"{split}-{n}", label="ab"[n], split=split) for split in ("train", "val", "test") for n in (0, 1)]
    small_datasets.write(rows, tmp_path / mode, read=lambda _: content)
    assert read_dataset(tmp_path / mode, Preprocess(8, None)).channels == 1


def test_preprocess_image_of_that_size_keeps_its_pixels() -> None:
    content = saved(NOISE.resize((47, 47)), "PNG")
    assert np.array_equal(Preprocess(47, 3)(content), by_pillow(content, 3))


def test_normalise_of_one_colour_stays_finite() -> None:
    pixels = torch.full((4, 1, 8, 8), 7, dtype=torch.uint8)
    assert Normalise.of(pixels.numpy())(pixels).isfinite().all()

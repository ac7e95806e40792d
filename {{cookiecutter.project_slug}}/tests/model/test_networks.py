"""The networks by name."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

from {{ cookiecutter.package_name }}.model.networks import CHANNELS, Arch, build

from ..conftest import OWN


@pytest.mark.parametrize(
    ("arch", "image_px"), [*((arch, OWN["train"]["image_px"]) for arch in get_args(Arch)), ("small_cnn", 33)]
)
def test_build_each_network_gives_a_logit_per_class(arch: Arch, image_px: int) -> None:
    for channels in {CHANNELS.get(arch, 1), 3}:
        module = build(arch, 3, channels, None).eval()
        assert module(torch.zeros(2, channels, image_px, image_px)).shape == (2, 3)


def test_build_mobilenet_from_scratch_has_statistics_that_follow_the_data() -> None:
    norms = [layer for layer in build("mobilenet_v3_small", 3, 3, None).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.momentum for layer in norms} == {0.1}


def test_build_imagenet_weights_replaces_only_the_last_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    original = mobilenet_v3_small()
    checkpoint = tmp_path / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"  # as if downloaded before
    checkpoint.parent.mkdir(parents=True)
    torch.save(original.state_dict(), checkpoint)
    built = build("mobilenet_v3_small", 3, 3, "imagenet")
    assert torch.equal(built.state_dict()["features.0.0.weight"], original.state_dict()["features.0.0.weight"])
    assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_build_imagenet_weights_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ConnectionError, match="the ImageNet weights can't be downloaded"):
        build("mobilenet_v3_small", 3, 3, "imagenet")

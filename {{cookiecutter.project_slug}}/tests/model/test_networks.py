"""Your networks, and the one of your parameters."""

import pytest
import torch

from {{ cookiecutter.package_name }}.model.networks import NETWORKS, build, channels_of
from {{ cookiecutter.package_name }}.model.predictor import ModelConfig, check_rebuilds

from ..conftest import OWN


@pytest.mark.parametrize("arch", NETWORKS)
def test_each_network_gives_a_logit_per_class_of_gray_and_colour(arch: str) -> None:
    for channels in {channels_of(arch) or 1, 3}:
        assert build(arch, 3, channels).eval()(torch.zeros(2, channels, 32, 32)).shape == (2, 3)


def test_the_network_of_params_takes_its_images_and_can_be_loaded_after_a_training() -> None:
    train = OWN["train"]
    channels, model = channels_of(train["arch"]) or 1, train["model"] or {}
    module = build(train["arch"], 3, channels, **model)
    half = (0.5,) * channels
    facts = {"image_px": train["image_px"], "channels": channels, "mean": half, "std": half}
    check_rebuilds(module, ModelConfig(arch=train["arch"], model=model, classes=("a", "b", "c"), **facts))

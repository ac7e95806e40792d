"""Networks of torchvision and of one's own: built, started from pretrained weights, trained, kept, given back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from team.images import encode_png
from team.model import networks
from team.model.networks import NetworkError, build, channels_of, head_parameters, loss_of
from team.model.predictor import ModelConfig, Predictor, check_rebuilds, save
from team.model.weights import Weights, load_weights
from torch import nn
from torch.nn import functional
from torchvision import models

FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {  # side of an image, hyper-parameters
    "resnet18": (32, {}),
    "mobilenet_v3_small": (32, {"dropout": 0.1}),
    "efficientnet_b0": (32, {}),
    "convnext_tiny": (32, {}),
    "vit_b_16": (32, {"image_size": 32, "dropout": 0.1}),
    "swin_t": (32, {}),
    "regnet_y_400mf": (32, {}),
    "densenet121": (32, {}),
    "squeezenet1_0": (32, {}),
    "googlenet": (32, {}),
    "inception_v3": (80, {}),
    "mnasnet0_5": (32, {}),
}


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def config_of(arch: str, classes: int, px: int, channels: int = 3, **options: Any) -> ModelConfig:
    names, half = tuple(f"label {number:02}" for number in range(classes)), (0.5,) * channels
    return ModelConfig(arch=arch, model=options, classes=names, image_px=px, channels=channels, mean=half, std=half)


def images(count: int, px: int = 32) -> list[bytes]:
    random = np.random.default_rng(0)
    return [encode_png(random.integers(0, 256, (px, px, 3), dtype=np.uint8)) for _ in range(count)]


def published(arch: str, options: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Write weights of 1,000 classes as torchvision publishes them."""
    if arch in networks.DEFAULTS:
        options = {**options, "init_weights": False}
    torch.manual_seed(1)
    state: dict[str, torch.Tensor] = models.get_model(arch, weights=None, **options).state_dict()
    if arch == "densenet121":  # the names of its published file
        for name in list(state):
            for part in ("norm1", "norm2", "conv1", "conv2"):
                if f"denselayer1.{part}." in name:
                    state[name.replace(part, f"{part[:-1]}.{part[-1]}")] = state.pop(name)
    if arch == "resnet18":  # old files lack what BatchNorm counts
        for name in [name for name in state if name.endswith("num_batches_tracked")]:
            del state[name]
    torch.save(state, path)
    return state


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "px", "options"), [(arch, *rest) for arch, rest in FAMILIES.items()], ids=FAMILIES)
def test_twelve_families_are_trained_from_published_weights_saved_loaded_and_predict(
    arch: str, px: int, options: dict[str, Any], tmp_path: Path
) -> None:
    state = published(arch, options, tmp_path / "weights.pth")
    module = build(arch, 7, 3, **options)
    head = head_parameters(module, arch, 7, 3, **options)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    load_weights(module, Weights(tmp_path / "weights.pth", "", arch), head)
    loaded = module.state_dict()
    assert 1 <= len(head) <= 2
    assert all(torch.equal(loaded[name], before[name]) for name in head), "the new last layer is random"
    body = [name for name in state if name in loaded and name not in head]
    assert len(body) > 20 and all(torch.equal(loaded[name], state[name]) for name in body)
    config = config_of(arch, 7, px, **options)
    check_rebuilds(module, config)
    for _ in range(30 if arch == "mnasnet0_5" else 0):  # random weights overflow until BatchNorm has seen some
        module.train()(torch.rand(4, 3, px, px))
    optimizer = torch.optim.SGD(module.train().parameters(), lr=1e-6)
    loss = loss_of(module(torch.rand(4, 3, px, px)), torch.tensor([0, 6, 1, 2]), functional.cross_entropy)
    loss.backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []
    optimizer.step()
    save(tmp_path / "model", module, config)
    predictor = Predictor.load(tmp_path / "model")
    saved = predictor.module.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in module.state_dict().items())
    contents = images(3)
    together = predictor.probabilities(contents)
    assert together.shape == (3, 7) and together.sum(1) == pytest.approx(1)
    assert np.array_equal(together[2:], Predictor.load(tmp_path / "model").probabilities(contents[2:]))


def test_every_classifier_of_torchvision_can_be_named() -> None:
    names = models.list_models(module=models)
    assert len(names) >= 80 and all(networks.torchvision_builder(name).__name__ == name for name in names)
    assert {channels_of(name) for name in names} == {3} and channels_of("small_cnn") is None
    with pytest.raises(NetworkError, match="no network 'resnet'"):
        channels_of("resnet")


@pytest.mark.parametrize("classes", [3, 1000])
def test_the_last_layer_is_new_also_with_as_many_classes_as_the_weights(classes: int, tmp_path: Path) -> None:
    state = published("squeezenet1_0", {}, tmp_path / "weights.pth")
    module = build("squeezenet1_0", classes, 3)
    before = module.state_dict()["classifier.1.weight"].clone()
    load_weights(
        module, Weights(tmp_path / "weights.pth", "", ""), head_parameters(module, "squeezenet1_0", classes, 3)
    )
    assert torch.equal(module.state_dict()["classifier.1.weight"], before)
    assert torch.equal(module.state_dict()["features.0.weight"], state["features.0.weight"])


def test_networks_that_give_several_outputs_learn_from_each() -> None:
    module = build("googlenet", 3, 3, aux_logits=True).train()
    output = module(torch.rand(2, 3, 64, 64))
    labels = torch.tensor([0, 2])
    losses = [functional.cross_entropy(part, labels) for part in output]
    assert loss_of(output, labels, functional.cross_entropy) == losses[0] + 0.3 * losses[1] + 0.3 * losses[2]


def test_batch_norm_follows_the_data_at_the_same_pace_in_every_network() -> None:
    for arch in ("mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0"):
        layers = [layer for layer in build(arch, 3, 3).modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {layer.momentum for layer in layers} == {0.1}, arch


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown network": ("resnet", {}, r"no network 'resnet'; near are .*resnet18.*\|.*model.weights lists all"),
    "nothing near": ("?", {}, r"no network '\?' \|"),
    "quantized": ("quantized_resnet18", {}, "no network"),
    "unknown of one's own": (
        "small_resnet",
        {"wide": 8},
        r"argument 'wide' \|.*train.model; small_resnet takes width: ",
    ),
    "none taken": ("small_cnn", {"wide": 8}, "small_cnn takes nothing"),
    "forgotten": ("wanting", {}, r"missing a required argument: 'width' \|.*wanting takes width: int"),
    "unknown of torchvision": ("resnet18", {"wide": 8}, r"argument 'wide' \|.*pydoc torchvision.models.resnet"),
    "ignored by torchvision": ("mobilenet_v3_small", {"dropuot": 0.5}, "no argument dropuot"),
    "out of range": ("mobilenet_v3_small", {"dropout": 5}, "between 0 and 1"),
    "classes": ("resnet18", {"num_classes": 5}, "num_classes"),
    "classes of one's own": ("small_resnet", {"classes": 5}, r"multiple values for argument 'classes' \|.*takes width"),
    "text of one's own": (
        "small_resnet",
        {"width": "wide"},
        r"width is 'wide', and by default 32 \|.*takes width: int",
    ),
    "out of range of one's own": ("small_resnet", {"dropout": 2}, r"between 0 and 1, but got 2 \|.*takes width"),
}


@pytest.mark.parametrize(("arch", "options", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_build_of_what_does_not_exist_says_what_does(
    arch: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wanting(classes: int, channels: int, width: int) -> nn.Module:
        return nn.Linear(width, classes)

    monkeypatch.setitem(networks.NETWORKS, "wanting", wanting)
    with pytest.raises(NetworkError) as error:
        build(arch, 3, 3, **options)
    assert re.search(message, f"{error.value} | {error.value.fix}")


class Lost(nn.Module):
    """Networks that a model directory can't hold."""

    def __init__(self, classes: int, channels: int, kind: str = "") -> None:  # noqa: D107
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(channels * 64, 5 if kind == "classes" else classes)
        self.scale = torch.rand(()) if kind == "attribute" else 1.0
        if kind == "tied":
            self.again = self.layer
        if kind == "random":
            self.extra = nn.Linear(int(torch.randint(1, 1000, ())), 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # noqa: D102
        if self.kind == "square" and pixels.shape[-1] != 16:
            raise ValueError("16 pixels, please")
        output: torch.Tensor = self.layer(pixels.flatten(1)) * self.scale
        return output


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("classes", r"saved and loaded: it gives \(1, 5\), not \(1, 2\)"),
        ("attribute", "it gives other numbers afterwards: keep them in parameters and buffers"),
        ("tied", "saved and loaded: .*shar"),
        ("random", "saved and loaded: model.safetensors: .*size mismatch"),
        ("square", "can't take an image of 8 x 8 pixels: 16 pixels, please"),
    ],
)
def test_a_network_that_a_model_directory_cannot_hold_is_refused_before_it_is_trained(
    kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(networks.NETWORKS, "lost", Lost)
    torch.manual_seed(0)
    module = build("lost", 2, 1, kind=kind)
    before = torch.get_rng_state()
    with pytest.raises(NetworkError, match=f"(?s){message}"):
        check_rebuilds(module, config_of("lost", 2, 8, 1, kind=kind))
    assert torch.equal(torch.get_rng_state(), before), "a check draws no random numbers of the training's"
    check_rebuilds(build("lost", 2, 1), config_of("lost", 2, 8, 1))


def test_hyper_parameters_are_kept_with_the_model(tmp_path: Path) -> None:
    options = {"width": 12, "depth": 2, "dropout": 0.25}
    module, config = build("small_resnet", 2, 1, **options), config_of("small_resnet", 2, 20, 1, **options)
    check_rebuilds(module, config)
    assert module.training
    save(tmp_path / "model", module, config)
    loaded = Predictor.load(tmp_path / "model")
    assert loaded.config == config
    assert isinstance(loaded.module, networks.SmallResNet) and len(loaded.module.blocks) == 2
    assert loaded.probabilities(images(2)).shape == (2, 2)


@pytest.mark.parametrize("px", [8, 33, 96])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("arch", networks.NETWORKS)
def test_own_networks_take_gray_and_colour_of_any_size(arch: str, channels: int, px: int) -> None:
    assert build(arch, 3, channels)(torch.rand(2, channels, px, px)).shape == (2, 3)

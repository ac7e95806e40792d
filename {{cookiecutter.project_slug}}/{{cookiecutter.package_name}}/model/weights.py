"""Pretrained weights: torchvision's, downloaded once, or a file under DVC. As a command, it lists torchvision's.

python -m <package>.model.weights mobilenet_v3_small
"""

import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from mlops import ProjectError, require_dep, sha256
from safetensors.torch import load_file
from torch import nn

from .networks import NETWORKS, NetworkError, channels_of, load_state, torchvision_builder

SHA256 = re.compile(r"-([0-9a-f]{8,})\.")  # how it begins, in the names of torchvision's files


@dataclass(frozen=True)
class Preset:
    """How the images were made that weights were trained with."""

    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]
    resize_px: int  # the shorter side, then of it …
    crop_px: int  # … the square in the middle
    interpolation: str


@dataclass(frozen=True)
class Weights:
    """A file of pretrained weights."""

    file: Path
    sha256: str
    name: str  # torchvision's, such as MobileNet_V3_Small_Weights.IMAGENET1K_V1, or that of the file
    url: str = ""
    preset: Preset | None = None  # None if nothing says it

    @property
    def facts(self) -> dict[str, str]:
        """Return what the run records of them."""
        facts = {"pretrained": self.name, "pretrained_url": self.url, "pretrained_sha256": self.sha256}
        return {name: value for name, value in facts.items() if value}


def find_weights(arch: str, name: str | None, file: str | None) -> Weights | None:
    """Return what `train.weights` and `train.weights_file` say, after a download if need be; None if they are empty.

    Raises:
        ProjectError: There is no such network or no such weights, they can't be had, or the file is damaged or no dep.
    """
    try:
        channels_of(arch)
    except NetworkError as error:
        raise ProjectError(str(error), error.fix) from error
    if file:
        require_dep(file)
    if not name:
        return Weights(Path(file), sha256(Path(file)), file) if file else None
    name, members = "IMAGENET1K_V1" if name == "imagenet" else name, list_weights(arch)
    if name not in members:
        fix = f"set train.weights to one of {', '.join(members)}" if members else "leave train.weights empty"
        raise ProjectError(f"there are no weights {name!r} of {arch}", fix)
    url, images = members[name].url, members[name].transforms()
    path = Path(file) if file else _download(url)
    digest = sha256(path)
    if path.name == Path(url).name and not digest.startswith(SHA256.findall(url)[-1]):
        fix = _restore(file) if file else f"delete {path}, then: dvc repro train, which downloads it again"
        raise ProjectError(f"{path} is damaged: its SHA-256 is {digest}", fix)
    sides = images.resize_size[0], images.crop_size[0]
    preset = Preset(tuple(images.mean), tuple(images.std), *sides, images.interpolation.value)
    return Weights(path, digest, str(members[name]), url, preset)


def load_weights(module: nn.Module, weights: Weights, head: Collection[str]) -> None:
    """Give a network pretrained weights, all but those of `head`, which `networks.head_parameters` names.

    Raises:
        ProjectError: The file is damaged, or its weights are another network's.
    """
    try:
        if weights.file.suffix == ".safetensors":
            state = load_file(weights.file)
        else:
            state = dict(torch.load(weights.file, map_location="cpu", weights_only=True))
        # Source: torchvision.models.densenet._load_state_dict: its files have the layers' names of before.
        state = {re.sub(r"(denselayer\d+\.\w+)\.([12]\.)", r"\1\2", name): state[name] for name in state}
    except Exception as error:  # whatever a damaged file makes torch and safetensors raise
        problem = f"{weights.file} holds no weights: it is damaged, of another format, or holds code"
        raise ProjectError(problem, _restore(weights.file.as_posix())) from error
    own = module.state_dict()
    given = {name: state[name] for name in own.keys() - head if name in state and state[name].shape == own[name].shape}
    lacking = [name for name in own if not (name in given or name in head or name.endswith("num_batches_tracked"))]
    for name in lacking + [name for name in state if name not in own and not name.lower().startswith("aux")]:
        shapes = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (state, own)]
        problem = f"{weights.name} are the weights of another network: {name} is {shapes[0]}, not {shapes[1]}"
        raise ProjectError(problem, "set params.yaml:train.arch and train.model to theirs, or take other weights")
    load_state(module, {**own, **given})


def list_weights(arch: str) -> dict[str, Any]:
    """Return torchvision's weights of a network, members of an enum, by name; none of a network of `NETWORKS`."""
    from torchvision.models import get_model_weights

    return {} if arch in NETWORKS else dict(get_model_weights(torchvision_builder(arch)).__members__)


def _restore(file: str) -> str:
    return f"git checkout {file}.dvc, then: dvc pull --force {file}; or name another in params.yaml:train.weights_file"


def _download(url: str) -> Path:
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), SHA256.findall(url)[-1])
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another SHA-256
            fix = f"connect to the internet, or keep a file: dvc import-url {url} data/weights/ (docs/training.md)"
            raise ProjectError(f"the weights {url} can't be downloaded: {error}", fix) from error
    return path


if __name__ == "__main__":
    from torchvision import models

    for network in sys.argv[1:] or [*NETWORKS, *models.list_models(module=models)]:
        print(network, *(f"  {name}  {member.url}" for name, member in list_weights(network).items()), sep="\n")

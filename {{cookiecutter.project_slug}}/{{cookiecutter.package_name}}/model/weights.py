"""Pretrained weights: torchvision's, downloaded once, or a file under DVC. Also a command, which lists and gets them.

python -m <package>.model.weights                                    # the networks
python -m <package>.model.weights mobilenet_v3_small                 # the weights of one
python -m <package>.model.weights mobilenet_v3_small imagenet        # get them as a file, for DVC to track
"""

import hashlib
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import click
import torch
from mlops import ProjectError, require_dep
from safetensors.torch import load_file
from torch import nn

from .networks import NETWORKS, NetworkError, load_state, torchvision_builder, torchvision_names

FOLDER = Path("data/weights")


@dataclass(frozen=True)
class Preset:
    """How the images were made that weights were trained with: what `transforms.Preprocess` and `Normalise` take."""

    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]
    crop_px: int  # side of the square in the middle, after …
    resize_px: int  # … the shorter side became this
    interpolation: str


@dataclass(frozen=True)
class Weights:
    """A file of pretrained weights."""

    name: str  # torchvision's, MobileNet_V3_Small_Weights.IMAGENET1K_V1, or the path of another file
    url: str  # where torchvision's are from, else ""
    file: Path
    sha256: str
    preset: Preset | None  # None: unknown

    @property
    def facts(self) -> dict[str, str]:
        """Return what the run records of them."""
        facts = {"pretrained": self.name, "pretrained_url": self.url, "pretrained_sha256": self.sha256}
        return {name: value for name, value in facts.items() if value}


def find_weights(arch: str, name: str | None, file: str | None) -> Weights | None:
    """Return the weights that `train.weights` and `train.weights_file` say; None if neither says any.

    Raises:
        ProjectError: There are no such weights, they can't be downloaded, or the file is damaged or no dep.
    """
    member = _member(arch, name) if name else None
    if file:
        path = Path(file)
        require_dep(path.as_posix())
    elif member:
        path = _download(arch, member, Path(torch.hub.get_dir(), "checkpoints"))
    else:
        return None
    try:
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        fix = f"dvc pull {file}, or correct params.yaml:train.weights_file; docs/training.md has the way to such a file"
        raise ProjectError(f"the weights can't be read: {error}", fix) from error
    if member is None:
        return Weights(path.as_posix(), "", path, sha256, None)
    if path.name == Path(member.url).name and not sha256.startswith(_start_of_sha256(member)):
        raise ProjectError(f"{path} is damaged: its SHA-256 is {sha256}", "delete it, and run this again")
    images = member.transforms()
    sides = images.crop_size[0], images.resize_size[0]
    preset = Preset(tuple(images.mean), tuple(images.std), *sides, images.interpolation.value)
    return Weights(str(member), member.url, path, sha256, preset)


def load_weights(module: nn.Module, weights: Weights, head: Collection[str]) -> None:
    """Give a network pretrained weights, all but those of `head`, which `networks.head_parameters` names.

    Raises:
        ProjectError: They are damaged, or those of another network.
    """
    try:
        if weights.file.suffix == ".safetensors":
            state = load_file(weights.file)
        else:
            state = dict(torch.load(weights.file, map_location="cpu", weights_only=True))
        # Source: torchvision.models.densenet._load_state_dict: its files have the layers' names of before.
        state = {re.sub(r"(denselayer\d+\.\w+)\.([12]\.)", r"\1\2", name): state[name] for name in state}
    except Exception as error:  # whatever a damaged file makes torch and safetensors raise
        fix = "restore it: dvc pull --force, or delete it for another download"
        raise ProjectError(f"{weights.file} holds no weights: {error}", fix) from error
    own = module.state_dict()
    body = {name: tensor for name, tensor in own.items() if name not in head}
    given = {name: state[name] for name in body if name in state and state[name].shape == body[name].shape}
    lacking = [name for name in body if name not in given and not name.endswith("num_batches_tracked")]
    foreign = [name for name in state if name not in own and not name.lower().startswith("aux")]
    for name in lacking + foreign:
        shapes = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (state, own)]
        problem = f"{weights.name} are the weights of another network: {name} is {shapes[0]}, not {shapes[1]}"
        raise ProjectError(problem, "let params.yaml:train.arch and train.model say what the weights are of")
    load_state(module, {**own, **given})


def _members(arch: str) -> dict[str, Any]:
    """Return torchvision's weights of a network, by name."""
    from torchvision.models import get_model_weights

    if arch in NETWORKS:
        raise ProjectError(f"torchvision has no weights of {arch}", "leave params.yaml:train.weights empty")
    try:
        torchvision_builder(arch)
    except NetworkError as error:
        raise ProjectError(str(error), error.fix) from error
    return dict(get_model_weights(arch).__members__)


def _member(arch: str, name: str) -> Any:
    members = _members(arch)
    name = "IMAGENET1K_V1" if name == "imagenet" else name
    if name not in members:
        fix = f"params.yaml:train.weights is empty or one of {', '.join(members)}"
        raise ProjectError(f"torchvision has no weights {name!r} of {arch}", fix)
    return members[name]


def _start_of_sha256(member: Any) -> str:
    (start,) = re.findall(r"-([0-9a-f]{8,})\.", member.url)
    return str(start)


def _download(arch: str, member: Any, folder: Path) -> Path:
    path = folder / Path(member.url).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(member.url, str(path), _start_of_sha256(member))
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another SHA-256
            fix = "connect to the internet, or leave params.yaml:train.weights empty; for jobs without internet, where "
            fix += f"there is one: python -m {__package__}.weights {arch} {member.name}"
            raise ProjectError(f"{member} can't be downloaded from {member.url}: {error}", fix) from error
    return path


@click.command()
@click.argument("network", default="")
@click.argument("name", default="", metavar="[WEIGHTS]")
def main(network: str, name: str) -> None:
    """List the networks, or the weights of a NETWORK, or get WEIGHTS as a file in data/weights."""
    try:
        if name:
            _get(network, name)
        elif network:
            for member in _members(network).values():
                size, accuracy = member.meta["_file_size"], member.meta["_metrics"]["ImageNet-1K"]["acc@1"]
                click.echo(f"{member.name}  {size:.0f} MB  top-1 accuracy {accuracy:.1f} %  {member.url}")
        else:
            click.echo("\n".join([*NETWORKS, *torchvision_names()]))
    except ProjectError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


def _get(arch: str, name: str) -> None:
    """Write weights to a file, and say what to type so that a training has it, wherever it runs."""
    member = _member(arch, name)
    _download(arch, member, FOLDER)
    weights = find_weights(arch, name, str(FOLDER / Path(member.url).name))
    if weights:
        click.echo(
            f"{weights.file}: {weights.name}, SHA-256 {weights.sha256}\n"
            f"  dvc add {weights.file.as_posix()}\n"
            f"  params.yaml:train.weights: {member.name}\n"
            f"  params.yaml:train.weights_file: {weights.file.as_posix()}\n"
            f"  dvc.yaml:stages.train.deps: - {weights.file.as_posix()}"
        )


if __name__ == "__main__":
    main()

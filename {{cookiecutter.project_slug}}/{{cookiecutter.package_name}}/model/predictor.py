"""A trained model as a directory: `model.safetensors` (weights) and `model.json` (how to use them). No pickle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import ProjectError
from ..files import replacing, write_json
from .networks import Arch, build, logits
from .transforms import Normalise, decode

MODEL_DATA = "data/model"  # where this directory is inside an MLflow model


class Card(BaseModel):
    """What `model.json` says: the network, its labels in the order of its outputs, and how its images are made.

    Args:
        arch: Name of the network.
        classes: Labels.
        image_px: Width and height of an image, pixels.
        channels: 1 for gray, 3 for RGB.
        mean: Of each channel, where a pixel is 0 to 1.
        std: Standard deviation of each channel, on the same scale.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    arch: Arch
    classes: tuple[str, ...]
    image_px: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def save(directory: Path, module: nn.Module, card: Card) -> None:
    """Write a model directory, whole or not at all; the same weights give the same bytes."""
    with replacing(directory) as new:
        new.mkdir()
        save_file(module.state_dict(), new / "model.safetensors")
        write_json(new / "model.json", card.model_dump(mode="json"))


class Predictor:
    """A model that answers: encoded images in, labels out."""

    def __init__(self, module: nn.Module, card: Card) -> None:
        self.module = module.eval()
        self.card = card
        self.normalise = Normalise(card.mean, card.std)

    @classmethod
    def load(cls, directory: Path) -> "Predictor":
        """Read a model directory.

        Raises:
            ProjectError: A file is missing or damaged, or the weights aren't this network's.
        """
        try:
            card = Card.model_validate_json((directory / "model.json").read_bytes())
            with torch.device("meta"):  # the network's shapes, with no memory behind them
                module = build(card.arch, len(card.classes), weights=None)
            module.load_state_dict(load_file(directory / "model.safetensors"), assign=True)
        except FileNotFoundError as error:
            raise ProjectError(f"the model directory {directory} lacks a file: {error}", _fix(directory)) from error
        except (ValidationError, SafetensorError, RuntimeError) as error:
            raise ProjectError(f"the model in {directory} is damaged: {error}", _fix(directory)) from error
        return cls(module, card)

    def probabilities(self, images: Sequence[bytes]) -> np.ndarray:
        """Return the probability of each label, (N, classes) float32; a row adds up to 1.

        Raises:
            ProjectError: One of them can't be read as an image.
        """
        pixels = decode(images, self.card.channels, self.card.image_px)
        return logits(self.module, pixels, self.normalise).softmax(1).numpy()

    def predict(self, images: Sequence[bytes]) -> list[dict[str, str | float]]:
        """Return the likeliest label of each image and its probability: `{"label": "7", "score": 0.98}`."""
        return [
            {"label": self.card.classes[int(row.argmax())], "score": float(row.max())}
            for row in self.probabilities(images)
        ]


def _fix(directory: Path) -> str:
    return f"restore it: dvc pull --force {directory.as_posix()}; or train again: dvc repro --force train"

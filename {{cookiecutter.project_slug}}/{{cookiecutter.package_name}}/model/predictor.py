"""A trained model as a directory: `model.safetensors` (weights) and `model.json` (how to use them). No pickle.

This module travels with a registered model.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import nn

from .networks import Arch, build, logits
from .transforms import Normalise, Preprocess


class ModelConfig(BaseModel):
    """What `model.json` says: the network, its labels, and how its images are made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    arch: Arch
    options: dict[str, Any] = {}  # more arguments of the network's function
    classes: tuple[str, ...]  # labels, in the order of the network's outputs
    image_px: int  # width and height of an image, pixels
    channels: int  # 1 for gray, 3 for RGB
    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]  # standard deviation, on the same scale


def save(directory: Path, module: nn.Module, config: ModelConfig) -> None:
    """Write a model directory; the same weights give the same bytes."""
    directory.mkdir(parents=True)
    save_file(module.state_dict(), directory / "model.safetensors")
    content = config.model_dump(mode="json", exclude_defaults=True)
    (directory / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


class Predictor:
    """A model that answers: encoded images in, labels out."""

    def __init__(self, module: nn.Module, config: ModelConfig) -> None:
        self.module = module.eval()
        self.config = config
        self.normalise = Normalise(config.mean, config.std)

    @classmethod
    def load(cls, directory: Path) -> "Predictor":
        """Read a model directory.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: `model.json` is damaged.
            RuntimeError: The weights are damaged, or are another network's.
        """
        config = ModelConfig.model_validate_json((directory / "model.json").read_bytes())
        with torch.device("meta"):  # the network's shapes, with no memory behind them
            module = build(config.arch, len(config.classes), config.channels, None, **config.options)
        try:
            module.load_state_dict(load_file(directory / "model.safetensors"), assign=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # SafetensorError is no class of Python's own hierarchy
            raise RuntimeError(f"model.safetensors: {error}") from error
        return cls(module, config)

    def probabilities(self, images: Sequence[bytes]) -> np.ndarray:
        """Return the probability of each label, (N, classes) float32; a row adds up to 1.

        Raises:
            ImageError: One of them can't be read as an image.
        """
        preprocess = Preprocess(self.config.image_px, self.config.channels)
        pixels = torch.from_numpy(np.stack([preprocess(image) for image in images]))
        return logits(self.module, pixels, self.normalise).softmax(1).numpy()

    def predict(self, images: Sequence[bytes]) -> list[dict[str, str | float]]:
        """Return the likeliest label of each image and its probability: `{"label": "7", "score": 0.98}`."""
        return [
            {"label": self.config.classes[int(row.argmax())], "score": float(row.max())}
            for row in self.probabilities(images)
        ]

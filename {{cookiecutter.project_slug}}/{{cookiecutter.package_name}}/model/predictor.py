"""A trained model as a directory: `model.safetensors` (weights) and `model.json` (how to use them). No pickle.

This module travels with a registered model.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import nn

from ..images import ImageError
from .networks import NetworkError, build, load_state, logits
from .transforms import Normalise, Preprocess


class ModelConfig(BaseModel):
    """What `model.json` says: the network, its labels, and how its images are made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    arch: str
    # Hyper-parameters of the network; models of earlier versions of this project say `options`.
    model: dict[str, Any] = Field(default={}, validation_alias=AliasChoices("model", "options"))
    classes: tuple[str, ...]  # labels, in the order of the network's outputs
    image_px: int  # width and height of an image, pixels
    channels: int  # 1 for gray, 3 for RGB
    resize: Literal["squeeze", "crop", "preset"] = "squeeze"  # this and the next two: see `transforms.Preprocess`
    resize_px: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]  # standard deviation, on the same scale


def save(directory: Path, module: nn.Module, config: ModelConfig) -> None:
    """Write a model directory; the same weights give the same bytes, wherever and however they lie in memory."""
    directory.mkdir(parents=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    (directory / "model.safetensors").write_bytes(serialize(state))  # its own writing hides that a disk is full
    content = config.model_dump(mode="json", exclude_defaults=True)
    (directory / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


class Predictor:
    """A model that answers: encoded images in, labels out."""

    def __init__(self, module: nn.Module, config: ModelConfig) -> None:
        self.module = module.eval()
        self.config = config
        self.preprocess = Preprocess(
            config.image_px, config.channels, config.resize, config.resize_px, config.interpolation
        )
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
        with torch.random.fork_rng(devices=[]):  # a training that loads a model draws the same numbers afterwards
            module = build(config.arch, len(config.classes), config.channels, **config.model)
        try:
            load_state(module, load_file(directory / "model.safetensors"))
        except FileNotFoundError:
            raise
        except Exception as error:  # SafetensorError is no class of Python's own hierarchy
            raise RuntimeError(f"model.safetensors: {error}") from error
        return cls(module, config)

    def probabilities(self, contents: Sequence[bytes]) -> np.ndarray:
        """Return the probability of each label, (N, classes) float32; a row adds up to 1.

        An image has the same bits whatever comes with it: each is a run of its own, on one thread; as many run
        side by side as there are cores.

        Raises:
            ImageError: One of them can't be read as an image.
        """
        rows = np.empty((len(contents), len(self.config.classes)), dtype=np.float32)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for number, row in enumerate([pool.submit(self._run, content) for content in contents]):
                    rows[number] = row.result()
        except ImageError as error:
            raise ImageError(f"image {number + 1} of {len(rows)} can't be read: it {error}") from error
        finally:
            torch.set_num_threads(threads)
        return rows

    def _run(self, content: bytes) -> np.ndarray:
        pixels = torch.from_numpy(np.array(self.preprocess(content)))  # (channels, px, px) uint8
        with torch.inference_mode():
            row: np.ndarray = logits(self.module(self.normalise(pixels[None]))).softmax(1)[0].numpy()
        return row

    def predict(self, contents: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return the likeliest label of each image, its probability, and those of all labels.

        An example: `{"label": "7", "score": 0.98, "scores": {"1": 0.02, "7": 0.98}}`.
        """
        rows = [dict(zip(self.config.classes, row.tolist(), strict=True)) for row in self.probabilities(contents)]
        return [{"label": (label := max(row, key=row.__getitem__)), "score": row[label], "scores": row} for row in rows]


def check_rebuilds(module: nn.Module, config: ModelConfig) -> None:
    """Check, before a training, that what `save` writes is the network: loaded, it gives what `module` gives.

    Raises:
        NetworkError: It is not, or the network can't take such images.
    """
    image = torch.linspace(-1, 1, config.channels * config.image_px**2).view(1, config.channels, config.image_px, -1)
    step = f"take an image of {config.image_px} x {config.image_px} pixels"
    fix = "change params.yaml:train.image_px, or params.yaml:train.model"
    try:
        with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
            output = logits(module.eval()(image))
            step, fix = (
                "be saved and loaded",
                "let model/networks.py make it of classes, channels and train.model alone",
            )
            save(Path(folder, "model"), module, config)
            loaded = logits(Predictor.load(Path(folder, "model")).module(image))
            if output.shape != (1, len(config.classes)):
                raise ValueError(f"it gives {tuple(output.shape)}, not (1, {len(config.classes)})")
            if not torch.allclose(output, loaded, rtol=1e-3, atol=1e-3, equal_nan=True):
                raise ValueError("it gives other numbers afterwards: keep them in parameters and buffers")
    except (ValueError, RuntimeError, AssertionError) as error:
        raise NetworkError(f"{config.arch} can't {step}: {error}", fix) from error
    finally:
        module.train()

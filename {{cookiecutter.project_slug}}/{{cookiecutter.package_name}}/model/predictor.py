"""A trained model as a directory: `model.safetensors` (weights) and `model.json` (how to use them). No pickle.

This module travels with a registered model.
"""

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
    resize: str = "squeeze"  # this and the next two: as in `transforms.Preprocess`
    resize_px: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...]  # of each channel, where a pixel is 0 to 1
    std: tuple[float, ...]  # standard deviation, on the same scale


def save(directory: Path, module: nn.Module, config: ModelConfig) -> None:
    """Write a model directory; the same weights give the same bytes, wherever and however they lie in memory."""
    directory.mkdir(parents=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, directory / "model.safetensors")
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

        An image has the same bits whatever comes with it: each is a run of its own, on one thread. As many images are
        computed at the same time as torch has threads.

        Raises:
            ImageError: One of them can't be read as an image.
        """
        rows = np.empty((len(contents), len(self.config.classes)), dtype=np.float32)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
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
    """Check, before a training, that `save` keeps all that makes the network: loaded, it gives what `module` gives.

    Raises:
        NetworkError: It does not, or the network can't take images of this size.
    """
    image = torch.linspace(-1, 1, config.channels * config.image_px**2).view(1, config.channels, config.image_px, -1)
    output = _logits(module, image, config)
    if output.shape != (1, len(config.classes)):
        problem = f"{config.arch} gives {tuple(output.shape)} for an image, not (1, {len(config.classes)})"
        raise NetworkError(problem, "model/networks.py: let its last layer have `classes` outputs")
    with tempfile.TemporaryDirectory() as folder:
        try:
            save(Path(folder, "model"), module, config)
            loaded = _logits(Predictor.load(Path(folder, "model")).module, image, config)
        except (ValueError, RuntimeError) as error:
            fix = "model/networks.py: let its function make it of classes, channels and params.yaml:train.model alone"
            raise NetworkError(f"{config.arch} could not be loaded after the training: {error}", fix) from error
    if not torch.allclose(output, loaded, rtol=1e-4, atol=1e-4, equal_nan=True):
        problem = f"{config.arch} gives other numbers when it is saved and loaded"
        raise NetworkError(problem, "model/networks.py: keep what it computes with in parameters and buffers")


def _logits(module: nn.Module, image: Tensor, config: ModelConfig) -> Tensor:
    training = module.training
    try:
        with torch.inference_mode():
            return logits(module.eval()(image))
    except (RuntimeError, ValueError, AssertionError) as error:
        problem = f"{config.arch} can't take an image of {config.image_px} x {config.image_px} pixels: {error}"
        raise NetworkError(problem, "change params.yaml:train.image_px, or what train.model says of it") from error
    finally:
        module.train(training)

"""What `mlops` calls of this package, besides `stages/<name>.py:main`. `mlops/contract.py` says what each must do.

This module, and all that it imports, travels with a registered model: it imports nothing of `mlops`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .images import encode_png, extension_of
from .model.metrics import METRICS as METRICS

if TYPE_CHECKING:
    from .model.predictor import Predictor

TRAVELS = ("__init__.py", "interface.py", "images.py", "model")
WEIGHTS = "model.safetensors"
REQUIREMENTS = ("mlflow", "numpy", "pillow", "pydantic", "safetensors", "torch", "torchvision", "tqdm")


def load(directory: Path) -> "Predictor":
    """Return the model of a directory that `train` wrote."""
    from .model.predictor import Predictor  # it imports torch, which `decode` does not need

    return Predictor.load(directory)


def predict(model: "Predictor", contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the likeliest label of each image, its probability (`score`), and those of all labels (`scores`)."""
    return model.predict(contents)


decode = extension_of


def example(model: "Predictor") -> bytes:
    """Return an image that the model takes: a black one."""
    import numpy as np

    return encode_png(np.zeros((model.config.image_px,) * 2, dtype=np.uint8))

"""What `mlops` calls of this package, besides `stages/<name>.py:main`. `mlops/contract.py` says what each must do.

This module, and all that it imports, travels with a registered model: it imports nothing of `mlops`.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .images import encode_png, extension_of

if TYPE_CHECKING:
    import pandas

    from .model.predictor import Predictor

TRAVELS = ("__init__.py", "interface.py", "images.py", "model")
WEIGHTS = "model.safetensors"
REQUIREMENTS = ("mlflow", "numpy", "pillow", "pydantic", "safetensors", "torch", "torchvision", "tqdm")


def load(directory: Path) -> "Predictor":
    """Return the model of a directory that `train` wrote."""
    from .model.predictor import Predictor  # it imports torch, which `decode` does not need

    return Predictor.load(directory)


def predict(model: "Predictor", contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the likeliest label of each image, and its probability: `{"label": "7", "score": 0.98}`."""
    return model.predict(contents)


decode = extension_of


def example(model: "Predictor") -> bytes:
    """Return an image that the model takes: a black one."""
    import numpy as np

    return encode_png(np.zeros((model.config.image_px,) * 2, dtype=np.uint8))


def compare(actual: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return the metrics by which `registry promote` compares two models; more is better."""
    from .model.evaluation import scores  # a prediction needs none of it

    return scores(actual, predicted)


class ImageModel:
    """What MLflow calls: a column `image` of encoded images (or their base64) in, `label` and `score` out."""

    def __init__(self, predictor: "Predictor") -> None:
        self.predictor = predictor

    def predict(self, data: "pandas.DataFrame") -> "pandas.DataFrame":
        """Predict one row for each row of `data`."""
        import pandas

        images = [base64.b64decode(image) if isinstance(image, str) else image for image in data["image"]]
        return pandas.DataFrame(self.predictor.predict(images), columns=["label", "score"], index=data.index)


def _load_pyfunc(data_path: str) -> ImageModel:
    return ImageModel(load(Path(data_path)))

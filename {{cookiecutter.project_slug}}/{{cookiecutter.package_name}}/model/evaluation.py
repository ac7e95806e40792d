"""What a network makes of a split: the probabilities from which `metrics.py` measures it."""

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from .networks import logits


def evaluate(
    module: nn.Module, pixels: Tensor, labels: Tensor, normalise: Callable[[Tensor], Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Run a network over images, (N, channels, px, px) uint8. Leaves it in evaluation mode.

    Returns:
        The actual labels, (N,) int64, positions in the classes; the probabilities, (N, classes) float32.
    """
    return labels.numpy(), logits(module, pixels, normalise).softmax(1).numpy()

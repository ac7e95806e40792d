"""What a network makes of a split: the probabilities from which `metrics.py` measures it."""

import numpy as np
import torch
from lightning_fabric import Fabric
from mlops import evaluation_batches
from torch import Tensor, nn

from .dataset import ImageDataset
from .networks import logits
from .transforms import Normalise


def evaluate(
    module: nn.Module, images: ImageDataset, normalise: Normalise, fabric: Fabric
) -> tuple[np.ndarray, np.ndarray]:
    """Run a network over a split, each process over its part. Leaves it in evaluation mode.

    All processes use the running statistics of the first, which are those that are kept.

    Returns:
        The actual labels, (N,) int64, positions in the classes; the probabilities, (N, classes) float32.
    """
    module.eval()
    if fabric.world_size > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)
    with torch.inference_mode(), fabric.autocast():
        batches = evaluation_batches(images, fabric)
        outputs = [logits(module(normalise(batch))).float().softmax(1).cpu() for batch, _ in batches]
    if fabric.world_size > 1:
        parts: list[list[Tensor]] = [[]] * fabric.world_size
        torch.distributed.all_gather_object(parts, outputs)
        outputs = [output for part in parts for output in part]
    return images.labels.numpy(), torch.cat(outputs).numpy()

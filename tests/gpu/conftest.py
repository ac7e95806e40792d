"""Where the tests of GPUs run: on the first CUDA device, or nowhere.

`TRAIN_DEVICE=cpu make test-gpu` runs what they do without a GPU. That checks the tests, and shows nothing of a GPU.
"""

import os

import pytest
import torch

DEVICE = os.environ.get("TRAIN_DEVICE", "cuda")


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    """The device; without it, the tests end here, and none of them passes."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.exit(f"torch {torch.__version__} sees no GPU on this machine, so nothing was tested", returncode=1)
    return torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)


@pytest.fixture(scope="session")
def gpus() -> int:
    """How many processes have a GPU of their own; on the CPU there is room for two."""
    return torch.cuda.device_count() if DEVICE == "cuda" else 2

"""Hashes that say which bits a machine computes, and which bits a training gave.

Two machines with one `cpu_capability` may round differently: oneDNN and MKL choose their own instructions. A training
gives the same weights where the numeric fingerprint is the same, and the hashes of the weights name the first epoch
after which two trainings differ.
"""

import contextlib
import copy
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

MAX_VALUES = 2**20  # of the images of the step: 64 of 3 x 64 x 64 pixels, or 6 of 224 x 224


def numeric_fingerprint(
    module: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    fabric: "Fabric | None" = None,
    loss: Callable[[Any, Tensor], Tensor] = functional.cross_entropy,
) -> str:
    """Hash the gradients of one fixed step: the bits that this machine gives with these settings.

    Images and weights are fixed too, so it depends on the network, the shape, the device, the precision, the threads
    and the processes, and not on the seed or on what the network has learned. It works on a copy: the network, its
    mode and the random numbers that follow stay as they are. Every process of a training calls it.

    Args:
        module: The network, on its device, not wrapped by Fabric.
        shape: Of the batch of one process, (N, channels, px, px). Of a large one, fewer images are computed.
        classes: How many there are.
        fabric: Has the precision, and the processes that train together; None for fp32 in one.
        loss: Makes a scalar of what the network gives and the (N,) positions of the labels.

    Returns:
        16 hexadecimal digits; "" where the step gives no finite number, which would hide how machines differ.
    """
    device = next(module.parameters()).device
    count = max(2, min(shape[0], MAX_VALUES // math.prod(shape[1:])))
    with _random_numbers_restored(device):
        torch.manual_seed(0)  # of dropout
        network = copy.deepcopy(module).train().requires_grad_(True)
        random = torch.Generator().manual_seed(0)  # its numbers are integers / 2**24: exact everywhere
        _fix_weights(network, random)
        images = torch.rand((count, *shape[1:]), generator=random).mul_(2).sub_(1).to(device)
        with fabric.autocast() if fabric else contextlib.nullcontext():
            value = loss(network(images), torch.arange(count, device=device) % classes)
        value.backward()
        gradients = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
        results = {"loss": value.detach(), "gradients": torch.cat(gradients)}
        if not all(result.isfinite().all() for result in results.values()):
            log.warning("the run has no numeric fingerprint: its step gives loss %s", value.item())
            return ""
        if fabric and fabric.world_size > 1:  # the sum over the processes, and the bits of each of them
            results["mean"] = cast(Tensor, fabric.all_reduce(results["gradients"].clone(), reduce_op="mean"))
            own = torch.frombuffer(bytearray.fromhex(weights_hash(results)), dtype=torch.uint8)
            results = {"processes": cast(Tensor, fabric.all_gather(own.to(device)))}
    return weights_hash(results)[:16]


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a `state_dict`, in hexadecimal: of its names, in order, with dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def _fix_weights(network: nn.Module, random: torch.Generator) -> None:
    """Give weights of layers numbers that keep the scale of what passes, norms 1 and biases 0; others stay."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(6 / max(1, parameter[0].numel()))
            parameter.copy_(torch.rand(parameter.shape, generator=random).mul_(2 * bound).sub_(bound))
        elif parameter.ndim == 1 and name.endswith(("weight", "bias")):
            parameter.fill_(float(name.endswith("weight")))


@contextlib.contextmanager
def _random_numbers_restored(device: torch.device) -> Iterator[None]:
    """Restore the random state of torch, on the CPU and on `device`, after the block."""
    accelerator = None if device.type == "cpu" else getattr(torch, device.type)
    states = torch.get_rng_state(), accelerator.get_rng_state() if accelerator else None
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        if accelerator:
            accelerator.set_rng_state(states[1])

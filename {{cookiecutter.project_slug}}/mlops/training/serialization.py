"""Nested dicts and lists with tensors in them, as the bytes of one safetensors file. No pickle; damage is noticed."""

import hashlib
import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor


def pack(value: Any) -> bytes:
    """Return `value` as a safetensors file: the tensors, and in its metadata JSON that says where each belongs.

    Args:
        value: Tensors, bytes, texts, numbers (to the last bit), None, in dicts and lists; a tuple becomes a list.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_planted(value, tensors))
    return bytes(save(tensors, {"tree": tree, "sha256": _digest(tree, tensors)}))


def unpack(data: bytes) -> Any:
    """Return what `pack` was given.

    Raises:
        ValueError: A byte is missing or was changed.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + length])["__metadata__"]
        tensors = load(data)
    except Exception as error:  # of JSON, safetensors or torch, by where the damage is
        raise ValueError(f"no whole file of tensors: {error}") from error
    if told.get("sha256") != _digest(told.get("tree", ""), tensors):
        raise ValueError("its SHA-256 is another one")
    return _harvested(json.loads(told["tree"]), tensors)


def _planted(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name := str(len(tensors))] = value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, bytes):
        return {"bytes": _planted(torch.from_numpy(np.frombuffer(bytearray(value), np.uint8)), tensors)["tensor"]}
    if isinstance(value, dict):  # as pairs, since keys need not be texts: an optimizer numbers its weights
        return {"pairs": [[key, _planted(one, tensors)] for key, one in value.items()]}
    return [_planted(one, tensors) for one in value] if isinstance(value, list | tuple) else value


def _harvested(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]].clone()  # into memory of its own, aligned as torch does it
        if "bytes" in value:
            return tensors[value["bytes"]].numpy().tobytes()
        return {key: _harvested(one, tensors) for key, one in value["pairs"]}
    return [_harvested(one, tensors) for one in value] if isinstance(value, list) else value


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(tree.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

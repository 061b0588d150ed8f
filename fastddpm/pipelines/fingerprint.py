"""What tells one saved model from another."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor


def fingerprint(network: Any, scheduler: Any | None) -> str:
    """Of everything that is loaded: the weights' bits, the network's and the scheduler's settings."""
    found = hashlib.blake2b(digest_size=16)
    for owner in (network,) if scheduler is None else (network, scheduler):
        settings = {key: value for key, value in owner.config.items() if not key.startswith("_")}
        found.update(json.dumps([type(owner).__name__, settings], sort_keys=True, default=str).encode())
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes_of(tensor))
    return found.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

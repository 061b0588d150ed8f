"""Features of images by a network in a file, computed on all processes; those of real images are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors.torch import load_file, save
from torch import Tensor

from fastddpm.data import store as cache
from fastddpm.files import cache_root, locked, write_bytes
from fastddpm.measures.classifier import Classifier
from fastddpm.measures.features import load_features, load_judge, refuse_not_finite
from fastddpm.progress import progress_bar

BATCH = 128


class FeatureSpace:
    """Images to features, by a TorchScript file (such as Inception) or one of `fastddpm judge`.

    Args:
        path: *.safetensors is a judge, all else TorchScript.
        image_shape: (C, H, W) of all images.
    Raises: ValueError: no such network, or one that takes no such images.
    """

    def __init__(self, path: Path, image_shape: tuple[int, int, int], state: PartialState):
        self._state = state
        self.classes: Callable[[np.ndarray], Tensor] | None = None
        """(N, C, H, W) uint8 -> (N,) int64: classes that a classifier takes images for"""
        self.facts: dict[str, Any] = {}
        """facts of the network's own training, plain JSON values"""
        if path.suffix == ".safetensors":
            judge = load_judge(path).to(state.device)
            self.count = judge.features(torch.zeros(1, *image_shape, dtype=torch.uint8)).shape[1]
            self._compute: Callable[[Tensor], Tensor] = judge.features
            self.sha256, self.description, self.facts = judge.sha256(), judge.description, judge.facts
            if isinstance(judge, Classifier):
                self.classes = lambda images: judge.probabilities(torch.from_numpy(images)).argmax(1).cpu()
        else:
            network = load_features(str(path), "--features")
            self.count = network.check(image_shape, state.device)
            self.description = f"{self.count} features of a TorchScript network"
            self._compute, self.sha256 = network.to(state.device), network.sha256
        self.name = path.name

    def of(self, images: np.ndarray, title: str) -> Tensor:
        """(N, C, H, W) uint8 -> (N, D) float32, on the CPU of every process; each computes its share.

        Raises: ValueError: features that are not finite.
        """
        rank, world = self._state.process_index, self._state.num_processes
        mine = range(rank * BATCH, len(images), world * BATCH)
        found = [
            (
                first,
                self._compute(
                    torch.from_numpy(np.ascontiguousarray(images[first : first + BATCH])).to(self._state.device)
                ).cpu(),
            )
            for first in progress_bar(mine, title, unit="batch", is_shown=self._state.is_main_process)
        ]
        parts = sorted(gather_object(found) if world > 1 else found, key=lambda part: part[0])
        return refuse_not_finite(torch.cat([of for _, of in parts]), f"--features {self.name}", title)

    def of_reals(self, images: np.ndarray, title: str) -> Tensor:
        """The same, kept beside the stores of images for the next time."""
        key = cache.key_of({"images": cache.image_hash(images).hex(), "features": self.sha256})
        kept = cache_root(None) / "features" / f"{key}.safetensors"
        if kept.exists():
            return load_file(kept)["features"]
        found = self.of(images, title)
        if self._state.is_main_process:
            with locked(kept, wait=lambda: None):
                write_bytes(kept, save({"features": found.contiguous()}))
        self._state.wait_for_everyone()
        return found

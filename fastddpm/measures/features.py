"""Features of images, by a network that the user gives."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor, nn

from fastddpm.measures.classifier import Classifier
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures


class Features(nn.Module):
    """(B, C, H, W) uint8 -> (B, D) float32, by a TorchScript network; grayscale is repeated to three channels."""

    def __init__(self, network: Any, name: str, sha256: str, setting: str = "watch.features"):
        super().__init__()
        self._setting = setting
        self.network = network.eval()
        self.name, self.sha256 = name, sha256
        arguments = {argument.name for argument in network.forward.schema.arguments}
        # The Inception files that NVIDIA publishes with StyleGAN give classes unless they are asked for features.
        self._options = {"return_features": True} if "return_features" in arguments else {}

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.network(images.expand(-1, 3, -1, -1), **self._options).float()

    def check(self, image_shape: tuple[int, int, int], device: torch.device) -> int:
        """Try the network on images of a shape (C, H, W).

        Returns: how many features it makes of one.
        Raises: ValueError: it takes no such images, or gives no (B, D) features.
        """
        images = torch.zeros(2, *image_shape, dtype=torch.uint8, device=device)
        try:
            features = self.to(device)(images)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{self._setting} {self.name} fails on {(2, 3, *image_shape[1:])} uint8 images ({reason}); wanted a "
                "TorchScript file whose forward makes (B, D) features of (B, 3, H, W) uint8"
            ) from error
        if features.dim() != 2 or len(features) != 2:
            raise ValueError(
                f"{self._setting} {self.name} makes {tuple(features.shape)} of 2 images; wanted (2, D): one row an "
                f"image"
            )
        return features.shape[1]


def load_features(path: str, setting: str = "watch.features") -> Features:
    """The network in a TorchScript file; `setting`: what named it, for messages.

    Raises: ValueError: no such file, or no TorchScript.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{setting} {path} is no file; give a TorchScript file (torch.jit.save)")
    try:
        with warnings.catch_warnings():  # torch.jit is deprecated, but it is what such networks are published in
            warnings.simplefilter("ignore")
            network = torch.jit.load(file, map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{setting} {path} is no TorchScript file ({reason}); write one with torch.jit.save"
        ) from error
    with file.open("rb") as opened:
        return Features(network, file.name, hashlib.file_digest(opened, "sha256").hexdigest(), setting)


def refuse_not_finite(features: Tensor, network: str, images: str) -> Tensor:
    """Features as they are.

    Raises: ValueError: some are not finite; names the network and how many of the images.
    """
    if num_bad := int((~features.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f"{network} makes no finite numbers of {num_bad} of {len(features)} {images}; use another network, or "
            "leave these images out"
        )
    return features


_KINDS: tuple[type[Classifier] | type[UnlabelledFeatures], ...] = (Classifier, UnlabelledFeatures)


def load_judge(path: Path) -> Classifier | UnlabelledFeatures:
    """Judge from a file of `to_bytes`, in eval mode, on the CPU.

    Raises: ValueError: no such file, or another kind.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; give a .safetensors file of `fastddpm judge`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        kind = next((kind for kind in _KINDS if kind.kind in metadata), None)
        if kind is None:
            raise ValueError("its metadata name none")
        arguments = json.loads(metadata[kind.kind])
        arguments["image_shape"], weights = tuple(arguments["image_shape"]), load(path.read_bytes())
        with torch.device("meta"):  # of any size that the file tells, before memory is taken for it
            kind(**arguments).load_state_dict(weights, assign=True)
        made = kind(**arguments)
        made.load_state_dict(weights)
        assert made.description, "which its facts make"
    except Exception as error:  # safetensors, json and torch raise their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} holds no judge of ours ({reason}); make one with `fastddpm judge`") from error
    return made.eval()

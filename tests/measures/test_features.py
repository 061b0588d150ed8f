import pytest
import torch
from torch import nn

from fastddpm.measures.features import load_features


class Pooled(nn.Module):
    """(B, 3, H, W) uint8 -> (B, 12): means of quarters."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() * self.scale, 2).flatten(1)


class LikeStyleGan(nn.Module):
    """Gives classes unless it is asked for features."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        wide = images.float().mean((2, 3))
        return wide if return_features else wide[:, :1]


class Flat(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean()


class Picky(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().flatten(1) @ torch.ones(7, 2)


def saved(module, path):
    torch.jit.script(module).save(str(path))
    return str(path)


def test_grayscale_is_repeated_and_features_are_asked_for(tmp_path):
    features = load_features(saved(LikeStyleGan(), tmp_path / "features.pt"))
    features.check((1, 8, 8), torch.device("cpu"))
    assert features(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape == (5, 3)
    assert len(features.sha256) == 64


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Flat(), r"makes \(\) of 2 images; wanted \(2, D\)"),
        (Picky(), r"fails on \(2, 3, 8, 8\) uint8 images .*wanted a TorchScript file"),
    ],
)
def test_unfit_features_are_refused_at_the_start(tmp_path, module, message):
    features = load_features(saved(module, tmp_path / "features.pt"))
    with pytest.raises(ValueError, match=message):
        features.check((1, 8, 8), torch.device("cpu"))


def test_no_torchscript_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"weights.pt is no TorchScript file"):
        load_features(str(tmp_path / "weights.pt"))
    with pytest.raises(ValueError, match="watch.features /nowhere is no file"):
        load_features("/nowhere")

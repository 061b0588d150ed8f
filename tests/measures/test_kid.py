import pytest
import torch
from torch import nn

from fastddpm.measures.features import load_features
from fastddpm.measures.kid import KernelDistanceToReals


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


def images(count, seed, low=0, high=256):
    return torch.randint(low, high, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_kid_is_that_of_all_pairs_and_reals_are_looked_at_once(tmp_path):
    features = load_features(saved(Pooled(), tmp_path / "features.pt"))
    reals, samples = images(40, 0), images(40, 1, high=200)
    state = torch.get_rng_state()
    judge = KernelDistanceToReals(features, reals.split(16))
    found, again = judge.measure(samples), judge.measure(samples)
    assert found == again
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left as it was"
    assert (found.num_reals, found.num_samples, found.subset_size) == (40, 40, 20)
    x, y = (features(part).double() for part in (reals, samples))
    within = sum(((a @ a.T / 12 + 1) ** 3).fill_diagonal_(0).sum() / (40 * 39) for a in (x, y))
    exact = float(within - 2 * ((x @ y.T / 12 + 1) ** 3).mean())
    assert found.mean == pytest.approx(exact, abs=3 * found.std / 10)
    assert abs(judge.measure(images(40, 2)).mean) < exact / 5, "near 0 for the same distribution"


def test_fewer_reals_make_the_subsets_smaller(tmp_path):
    judge = KernelDistanceToReals(load_features(saved(Pooled(), tmp_path / "features.pt")), [images(6, 0)])
    found = judge.measure(images(100, 1))
    assert (found.num_reals, found.num_samples, found.subset_size) == (6, 100, 3)


def test_grayscale_is_repeated_and_features_are_asked_for(tmp_path):
    features = load_features(saved(LikeStyleGan(), tmp_path / "features.pt"))
    features.check((1, 8, 8), torch.device("cpu"))
    assert features(images(5, 0)).shape == (5, 3)
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

"""A judge of small colour pictures that no trainer knows: python -m benchmarks.colour_judge SPLITS

Features: a small convolutional network, trained from a fixed seed on SPLITS/judge, pictures that no model was trained
on, to tell each picture from all others under shifts and zooms (Chen et al. 2020, SimCLR) and to see how far a picture
is turned (Gidaris et al. 2018). Neither task needs labels. It sees no blur, noise or mixed picture while it learns, so
that the table this script prints, degraded reals against the reference, is a test of it. Its numbers compare with each
other only: it is no Inception network.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from tqdm import tqdm

from benchmarks.colour_set import read_images

NUM_FEATURES = 64  # few, for some hundred pictures: a covariance of 64 x 64 has 2,080 numbers
NUM_STEPS, BATCH_SIZE, TEMPERATURE = 800, 128, 0.2


class Features(nn.Module):
    """(N, 3, S, S) uint8 -> (N, 64) float32, for any S that is a multiple of 8."""

    num_features = NUM_FEATURES  # read by torchmetrics

    def __init__(self) -> None:
        super().__init__()

        def stage(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]

        stages = [*stage(3, 24, 1), *stage(24, 48, 2), *stage(48, 96, 2), *stage(96, 96, 1)]
        self.body = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96 * 16, NUM_FEATURES))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.float() / 127.5 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, help="made by colour_set.py; the judge is kept there as judge.safetensors")
    parser.add_argument("--out", type=Path, help="where the record goes; default: printed only")
    given = parser.parse_args()
    judge, reference = load_judge(given.splits), torch.from_numpy(read_images(given.splits / "reference"))
    reals = torch.from_numpy(read_images(given.splits / "train")[:1000])
    text = json.dumps(degradation_table(judge, reals, reference), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


def load_judge(splits: Path) -> Features:
    """The judge of some splits: trained at the first call, read from `splits`/judge.safetensors afterwards."""
    path = splits / "judge.safetensors"
    if not path.exists():
        judge = train_judge(torch.from_numpy(read_images(splits / "judge")))
        save_file(judge.state_dict(), path)
    judge = Features().eval()
    judge.load_state_dict(load_file(path))
    return judge


def train_judge(images: Tensor, num_steps: int = NUM_STEPS, batch_size: int = BATCH_SIZE) -> Features:
    """Train on (N, 3, S, S) uint8 pictures, N >= `batch_size`, from seed 0; in eval mode."""
    torch.manual_seed(0)
    judge, projection, turns = Features().train(), nn.Linear(NUM_FEATURES, NUM_FEATURES), nn.Linear(NUM_FEATURES, 4)
    optimizer = torch.optim.AdamW([*judge.parameters(), *projection.parameters(), *turns.parameters()])
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    for _ in tqdm(range(num_steps), "judge"):
        batch = images[torch.randperm(len(images))[:batch_size]]
        quarter = torch.randint(4, (len(batch),))
        first, second = judge(moved(batch)), judge(moved(batch))
        turned = torch.stack([image.rot90(int(k), (1, 2)) for image, k in zip(batch, quarter, strict=True)])
        loss = contrast(projection(first), projection(second)) + F.cross_entropy(turns(judge(turned)), quarter)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return judge.eval()


def moved(images: Tensor) -> Tensor:
    """Each picture zoomed by 0.8 to 1.25 and shifted by up to an eighth of its side, edges repeated; float32."""
    count = len(images)
    zoom = torch.exp((torch.rand(count, 1, 1) * 2 - 1) * np.log(1.25)) * torch.eye(2)  # (N, 2, 2)
    shift = (torch.rand(count, 2, 1) * 2 - 1) / 4  # in half sides
    grid = F.affine_grid(torch.cat([zoom, shift], dim=2), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent of two views of N pictures, (N, d) each: every view must find its twin.  (Chen et al. 2020, Eq. 1)"""
    count = len(first)
    views = F.normalize(torch.cat([first, second]), dim=1)
    similarity = (views @ views.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(2 * count).roll(count))


@torch.no_grad()
def distances(judge: Features, images: Tensor, reference: Tensor) -> dict[str, float]:
    """FID and KID (mean of 100 subsets of up to 200 pictures) in the judge's features; both uint8, (N, 3, S, S)."""
    subset_size = min(200, len(images), len(reference))
    metrics = {
        "fid": FrechetInceptionDistance(feature=judge),
        "kid": KernelInceptionDistance(feature=judge, subsets=100, subset_size=subset_size),
    }
    found = {}
    for name, metric in metrics.items():
        torch.manual_seed(0)  # KID draws its subsets
        metric.update(reference, real=True)
        metric.update(images, real=False)
        value = metric.compute()
        found[name] = round(float(value[0] if isinstance(value, tuple) else value), 4)
    return found


def degradations() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """name -> degrades (N, H, W, 3) uint8 pictures; of each kind, the milder first."""
    return {
        "blur, sigma 0.5": lambda x: blurred(x, 0.5),
        "blur, sigma 1": lambda x: blurred(x, 1.0),
        "blur, sigma 2": lambda x: blurred(x, 2.0),
        "noise, sigma 10 of 255": lambda x: noisy(x, 10),
        "noise, sigma 30 of 255": lambda x: noisy(x, 30),
        "noise, sigma 80 of 255": lambda x: noisy(x, 80),
        "halves of two pictures": lambda x: mixed(x, x.shape[1] // 2, x.shape[2]),
        "quarters of four pictures": lambda x: mixed(x, x.shape[1] // 2, x.shape[2] // 2),
        "sixteenths of sixteen pictures": lambda x: mixed(x, x.shape[1] // 4, x.shape[2] // 4),
        "100 pictures, each repeated": lambda x: x[np.arange(len(x)) % 100],
        "10 pictures, each repeated": lambda x: x[np.arange(len(x)) % 10],
        "grey": lambda x: np.repeat(x.mean(-1, keepdims=True).round().astype(np.uint8), 3, axis=-1),
    }


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(sigma))) for x in images])


def noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def mixed(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every tile of `height` x `width` pixels from another picture, at its own place."""
    rng, result = np.random.default_rng(0), images.copy()
    for top in range(0, images.shape[1], height):
        for left in range(0, images.shape[2], width):
            tile = (slice(None), slice(top, top + height), slice(left, left + width))
            result[tile] = images[rng.permutation(len(images))][tile]
    return result


def degradation_table(judge: Features, reals: Tensor, reference: Tensor) -> dict[str, dict[str, float]]:
    """What the judge says of reals, plain and degraded, against the reference; all (N, 3, S, S) uint8."""
    pictures = reals.permute(0, 2, 3, 1).numpy()
    table = {"reals as they are": distances(judge, reals, reference)}
    for name, degrade in degradations().items():
        degraded = torch.from_numpy(degrade(pictures).transpose(0, 3, 1, 2).copy())
        table[name] = distances(judge, degraded, reference)
    return table


if __name__ == "__main__":
    main()

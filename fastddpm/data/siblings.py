"""Near-copies among images: the same picture moved, mirrored, brighter, noisier, saved by JPEG, or hardly varied.

Two steps. Candidates are images whose low frequencies have nearly the same sizes, which neither a move nor a mirror
changes. Then one of each pair is laid on the other, and what they have in common must correlate. docs/log.md has what
that finds in real sets, what it takes for a near-copy that is none, and what it overlooks.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

CORRELATION = 0.9928
"""least correlation of what two near-copies have in common: unit vectors at a distance of 0.12"""
TINT = 16.0
"""grey levels that two images' mean colours differ by, at most"""
_RATIO, _QUANTILE, _REFERENCES = 0.45, 0.2, 1024
"""candidates are nearer than that, over the distance that a fifth of so many others are within"""
_LEAST = 10
_SIDE, _FREQUENCIES, _REACH = 32, 6, 4
_READ, _ROWS, _CANDIDATES = 1024, 512, 8


def near_copies(images: np.ndarray) -> np.ndarray:
    """Tell which images are near-copies of each other, directly or through others.

    Args:
        images: (N, C, H, W), uint8, read in parts.
    Returns: (N,), int64: of each image the first one that is a near-copy; itself where none is.
    """
    count = len(images)
    if count < _LEAST:
        return np.arange(count)
    small, tints = _shrunk(images)
    spectra = torch.cat([_spectra(part.float()) for part in small.split(_READ)])
    found = []
    for pairs in _candidates(_features(spectra)):
        pairs = pairs[((tints[pairs[:, 0]] - tints[pairs[:, 1]]).abs() < TINT).all(1)]
        found += [part[_lie_on_each_other(small, spectra, part)] for part in pairs.split(_READ)]
    rows, columns = torch.cat(found).T.numpy() if found else np.empty((2, 0), np.int64)
    group = components(count, rows, columns)
    return np.unique(group, return_index=True)[1][group]


def components(count: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Number the connected components of `count` nodes, each row linked with its column: (count,), int32."""
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _shrunk(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Blurred brightness, (N, 32, 32) uint8; and mean colours, red and blue over green, (N, 2) in grey levels."""
    blur = torch.tensor([0.25, 0.5, 0.25])
    blur = (blur[:, None] * blur)[None, None]
    small, tints = [], []
    for first in range(0, len(images), _READ):
        part = torch.from_numpy(np.array(images[first : first + _READ])).float()
        means = part.mean((2, 3))
        tints.append(means[:, ::2] - means[:, 1:2] if part.shape[1] == 3 else means.new_zeros(len(part), 2))
        gray = part.mean(1, keepdim=True)
        gray = functional.interpolate(gray, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
        gray = functional.conv2d(functional.pad(gray, (1, 1, 1, 1), mode="replicate"), blur)
        small.append(gray[:, 0].round().byte())
    return torch.cat(small), torch.cat(tints)


def _spectra(small: Tensor) -> Tensor:
    """Low frequencies, (N, 7, 13) complex64: rows from 0, columns from -6; of unit norm with the rows below 0."""
    small = small - small.mean((1, 2), keepdim=True)
    wave = torch.exp(_angles(torch.arange(_SIDE)))
    found = wave[_FREQUENCIES:] @ small.to(torch.complex64) @ wave.T
    energy = found.abs().square().sum(2)
    return found / (2 * energy.sum(1) - energy[:, 0]).sqrt().clamp_min(1e-3)[:, None, None]


def _angles(places: Tensor) -> Tensor:
    """Exponents of the waves at some places: (13, n), complex64."""
    return torch.arange(-_FREQUENCIES, _FREQUENCIES + 1.0)[:, None] * places * (-2j * torch.pi / _SIDE)


def _features(spectra: Tensor) -> Tensor:
    """Sizes of the frequencies, the same for the mirrored image: (N, 49), float32, of unit norm."""
    sizes = spectra.abs()
    features = (sizes + sizes.flip(2))[:, :, _FREQUENCIES:].flatten(1).sqrt()
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _candidates(features: Tensor) -> Iterator[Tensor]:
    """Pairs of images whose features are near for both: (P, 2), int64, those of some images at a time."""
    references = features[torch.linspace(0, len(features) - 1, min(_REFERENCES, len(features))).long()]
    usual = torch.cat([torch.cdist(part, references).quantile(_QUANTILE, dim=1) for part in features.split(_ROWS)])
    least = 1 - (_RATIO * usual) ** 2 / 2  # products of unit vectors that are so near
    for first in range(0, len(features), _ROWS):
        part = features[first : first + _ROWS]
        products = part @ features[first:].T
        rows, columns = (products >= least[first : first + _ROWS, None]).nonzero(as_tuple=True)
        if len(rows) > (1 + _CANDIDATES) * len(part):  # many are alike: the nearest of each, and itself
            columns = products.topk(min(1 + _CANDIDATES, products.shape[1]), dim=1).indices
            rows = torch.arange(len(part))[:, None].expand_as(columns)
            rows, columns = rows.flatten(), columns.flatten()
        is_near = products[rows, columns] >= torch.maximum(least[first + rows], least[first + columns])
        if len(pairs := torch.stack([first + rows, first + columns], dim=1)[is_near & (columns > rows)]):
            yield pairs


def _lie_on_each_other(small: Tensor, spectra: Tensor, pairs: Tensor) -> Tensor:
    """Tell of each pair whether a move by up to an eighth, mirrored or not, brings the second onto the first: (P,),
    bool."""
    steps = torch.arange(-_REACH, _REACH + 0.5, 0.5)
    waves = torch.exp(-_angles(steps)).T  # (17, 13)
    weights = torch.tensor([1.0] + [2.0] * _FREQUENCIES)[:, None]
    one, other = spectra[pairs[:, 0]] * weights, spectra[pairs[:, 1]].conj()
    best = [
        torch.einsum("sy,byx,tx->bst", waves[:, _FREQUENCIES:], one * turned, waves).real.flatten(1).max(1)
        for turned in (other, other.flip(2))
    ]
    is_mirrored = best[1].values > best[0].values
    place = torch.where(is_mirrored, best[1].indices, best[0].indices)
    moves = torch.stack([steps[place // len(steps)], steps[place % len(steps)]], dim=1)
    found, moved = torch.zeros(len(pairs)), torch.zeros(1, 2)
    left = (torch.maximum(best[0].values, best[1].values) > 0.8).nonzero()[:, 0]
    for _ in range(3):  # the waves wrap around: what moved in at an edge misleads them a little
        first, second = (small[column].float() for column in pairs[left].T)
        tried = torch.stack([_common(first, second, moves[left] + move, is_mirrored[left]) for move in moved])
        found[left], which = tried.max(0)
        moves[left] += moved[which]
        left = left[(found[left] > 0.95) & (found[left] < CORRELATION)]
        moved = torch.cartesian_prod(*[torch.tensor([-0.5, 0.0, 0.5])] * 2)
    return found >= CORRELATION


def _common(first: Tensor, second: Tensor, moves: Tensor, is_mirrored: Tensor) -> Tensor:
    """Correlation of the middle of some images and the same place of others, moved by (down, across): (P,)."""
    middle = torch.arange(_REACH, _SIDE - _REACH, dtype=torch.float32)
    down = (middle - moves[:, :1])[:, :, None].expand(-1, -1, len(middle))
    across = middle - moves[:, 1:]
    across = torch.where(is_mirrored[:, None], _SIDE - across, across)[:, None].expand_as(down)
    grid = (torch.stack([across, down], dim=3) + 0.5) / (_SIDE / 2) - 1
    moved = functional.grid_sample(second[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    still = first[:, _REACH:-_REACH, _REACH:-_REACH]
    still, moved = (image - image.mean((1, 2), keepdim=True) for image in (still, moved))
    norms = still.square().sum((1, 2)) * moved.square().sum((1, 2))
    return (still * moved).sum((1, 2)) / norms.sqrt().clamp_min(1e-3)

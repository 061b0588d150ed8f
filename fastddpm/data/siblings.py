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
_READ, _ROWS, _COLUMNS, _CANDIDATES = 512, 512, 2048, 8


def near_copies(images: np.ndarray) -> np.ndarray:
    """Tell which images are near-copies of each other, directly or through others.

    Args:
        images: (N, C, H, W), uint8, read in parts.
    Returns: (N,), int64: of each image the first one that is a near-copy; itself where none is.
    """
    count = len(images)
    if count < _LEAST:
        return np.arange(count)
    # arrays are made beforehand: small ones between large ones would keep freed memory
    sides = [_shrinking(side) for side in images.shape[2:]]
    small, tints = torch.empty(count, _SIDE, _SIDE, dtype=torch.uint8), torch.empty(count, 2)
    spectra = torch.empty(count, 1 + _FREQUENCIES, 1 + 2 * _FREQUENCIES, dtype=torch.complex64)
    features = torch.empty(count, (1 + _FREQUENCIES) ** 2)
    for first in range(0, count, _READ):
        part = slice(first, first + _READ)
        gray, tints[part] = _shrunk(np.array(images[part]), *sides)
        small[part], spectra[part] = gray, _spectra(gray)
        features[part] = _features(spectra[part])
    links, num_links = torch.empty(count * _CANDIDATES, 2, dtype=torch.int64), 0
    for pairs in _candidates(features):
        pairs = pairs[((tints[pairs[:, 0]] - tints[pairs[:, 1]]).abs() < TINT).all(1)]
        for part in pairs.split(_READ):
            part = part[_lie_on_each_other(small, spectra, part)]
            links[num_links : num_links + len(part)] = part
            num_links += len(part)
    rows, columns = links[:num_links].T.numpy()
    group = components(count, rows, columns)
    return np.unique(group, return_index=True)[1][group]


def components(count: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Number the connected components of `count` nodes, each row linked with its column: (count,), int32."""
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _shrunk(images: np.ndarray, down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Blurred brightness, (B, 32, 32); and mean colours, red and blue over green, (B, 2); in grey levels."""
    part = torch.from_numpy(images).float()
    means = part.mean((2, 3))
    tints = means[:, ::2] - means[:, 1:2] if part.shape[1] == 3 else means.new_zeros(len(part), 2)
    return (down @ part.mean(1) @ across.T).round(), tints


def _shrinking(side: int) -> Tensor:
    """Weights that bring one side to 32 pixels and blur it: (32, side)."""
    rows = functional.interpolate(torch.eye(side)[None, None], size=(_SIDE, side), mode="bilinear", antialias=True)
    above, below = (functional.pad(rows, pads, mode="replicate") for pads in ((0, 0, 1, 0), (0, 0, 0, 1)))
    return (above[:, :, :-1] + 2 * rows + below[:, :, 1:])[0, 0] / 4


def _spectra(small: Tensor) -> Tensor:
    """Low frequencies, (N, 7, 13) complex64: rows from 0, columns from -6; of unit norm with the rows below 0."""
    small = small - small.mean((1, 2), keepdim=True)
    wave = torch.exp(_angles(torch.arange(_SIDE)))
    waves = (wave[_FREQUENCIES:, None, :, None] * wave[None, :, None]).flatten(2).flatten(0, 1)
    real, imaginary = (small.flatten(1) @ part.T for part in (waves.real, waves.imag))
    found = torch.complex(real, imaginary).unflatten(1, (1 + _FREQUENCIES, -1))
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
    """Pairs of images whose features are near for both, up to 8 with later ones for each: (P, 2), int64, those of some
    images at a time."""
    references = features[torch.linspace(0, len(features) - 1, min(_REFERENCES, len(features))).long()]
    place = max(1, round((1 - _QUANTILE) * len(references)))
    usual = torch.cat([(part @ references.T).kthvalue(place, dim=1).values for part in features.split(_ROWS)])
    least = 1 - _RATIO**2 * (1 - usual)  # products of unit vectors that are so near
    for first in range(0, len(features), _ROWS):
        part, bar = features[first : first + _ROWS], least[first : first + _ROWS]
        best, places = part.new_zeros(len(part), _CANDIDATES), torch.zeros(len(part), _CANDIDATES, dtype=torch.int64)
        for column in range(first, len(features), _COLUMNS):
            products = part @ features[column : column + _COLUMNS].T
            if column == first:
                products.triu_(1)
            if not len(rows := (products.amax(1) >= torch.maximum(bar, best[:, -1])).nonzero()[:, 0]):
                continue
            here = torch.arange(column, column + products.shape[1]).expand(len(rows), -1)
            best[rows], which = torch.cat([best[rows], products[rows]], dim=1).topk(_CANDIDATES)
            places[rows] = torch.cat([places[rows], here], dim=1).gather(1, which)
        rows, ranks = (best >= torch.maximum(bar[:, None], least[places])).nonzero(as_tuple=True)
        if len(rows):
            yield torch.stack([first + rows, places[rows, ranks]], dim=1)


def _lie_on_each_other(small: Tensor, spectra: Tensor, pairs: Tensor) -> Tensor:
    """Tell of each pair whether a move by up to an eighth, mirrored or not, brings the second onto the first: (P,),
    bool."""
    steps = torch.arange(-_REACH, _REACH + 0.5, 0.5)
    waves = torch.exp(-_angles(steps)).T  # (17, 13)
    weights = torch.tensor([1.0] + [2.0] * _FREQUENCIES)[:, None]
    moving = (waves[:, None, _FREQUENCIES:, None] * waves[None, :, None]).flatten(2).flatten(0, 1)  # (289, 91)
    moving = torch.view_as_real(moving.conj_physical()).flatten(1).T
    one, other = spectra[pairs[:, 0]] * weights, spectra[pairs[:, 1]].conj_physical()
    best = [(torch.view_as_real(one * turned).flatten(1) @ moving).max(1) for turned in (other, other.flip(2))]
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

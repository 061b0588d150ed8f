"""Plan of the images to draw and their origins: decided by the request and the labels before anything is drawn."""

from dataclasses import dataclass

import numpy as np
import torch

from fastddpm import draws
from fastddpm.draws import Stream
from fastddpm.pipelines.cutmix import boxes_of_seeds
from fastddpm.verbs.augment.request import AugmentRequest

BATCH = 65_536
"""keyed numbers at once"""


@dataclass(frozen=True, eq=False)
class Plan:
    """N images in the order in which they are drawn: by start timestep, so that those of a micro-batch go through
    nearly the same steps; among those of a start, by source."""

    seeds: np.ndarray
    """(N,), int64; everything that is drawn for an image depends on its own seed alone"""
    sources: np.ndarray
    """(N,), int64: image of the data set it is made from, or for a sample, whose label it has"""
    partners: np.ndarray | None
    """(N,), int64: for a blend, the image whose part is pasted in"""
    boxes: np.ndarray | None
    """(N, 4), int64: for a blend, top, left, height and width of that part"""
    starts: np.ndarray | None
    """(N,), int64: start timesteps; samples have none"""

    def __len__(self) -> int:
        return len(self.seeds)


def make_plan(request: AugmentRequest, labels: np.ndarray, image_size: tuple[int, int]) -> Plan:
    """The images that a request means.

    Args:
        labels: (M,), int64, of the data set.
        image_size: (H, W).
    Raises: ValueError: one image, which has no partner for a blend; seeds that leave 63 bits.
    """
    if request.mode == "cutmix" and len(labels) < 2:
        raise ValueError("got one image; a blend takes two: give more, or another --mode")
    sources = _sources(request, labels)
    starts = None if request.mode == "samples" else request.starts
    if isinstance(starts, tuple):
        sources = np.repeat(sources, len(starts))
    request.check_seeds(len(sources))
    seeds = request.seed + np.arange(len(sources))
    if starts is None:
        return Plan(seeds, sources, None, None, None)
    if isinstance(starts, range):
        own = starts.start + _integers(seeds, len(starts), Stream.START)
    else:
        own = np.resize(starts, len(seeds))
    order = own.argsort(kind="stable")
    seeds, sources, own = seeds[order], sources[order], own[order]
    if request.mode == "variations":
        return Plan(seeds, sources, None, None, own)
    boxes = [boxes_of_seeds(torch.from_numpy(part), request.alpha, *image_size).numpy() for part in _parts(seeds)]
    further = 1 + _integers(seeds, len(labels) - 1, Stream.CHOICE)
    return Plan(seeds, sources, (sources + further) % len(labels), np.concatenate(boxes), own)


def _sources(request: AugmentRequest, labels: np.ndarray) -> np.ndarray:
    """Each image K times; balanced, those of a class in turn, each round in another order, until all classes have as
    many as the largest one times K."""
    if not request.balance:
        return np.repeat(np.arange(len(labels)), request.num_images)
    most = int(np.bincount(labels).max()) * request.num_images
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turns = draws.sample_ids(torch.arange(most), len(members), seed=request.seed).numpy()
        found.append(members[np.sort(turns)])
    return np.concatenate(found)


def _integers(seeds: np.ndarray, high: int, stream: Stream) -> np.ndarray:
    """One of 0, ..., high - 1 for each seed, keyed as all of a picture's numbers are."""
    parts = [draws.integers(torch.from_numpy(part), high, seed=draws.SAMPLING_KEY, stream=stream) for part in
             _parts(seeds)]  # fmt: skip
    return torch.cat(parts).numpy()


def _parts(seeds: np.ndarray) -> list[np.ndarray]:
    return [seeds[first : first + BATCH] for first in range(0, len(seeds), BATCH)]

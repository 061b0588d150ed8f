"""The only place that decides a random number.

Every number is Philox4x32-10(seed; stream, position, draw, element): a pure function, with no state to save, to
restore or to keep apart between processes. While training, an image's `position` is its place in the run's global
sequence, `step * batch_size + slot`; while sampling it is the image's own seed. See `kernels/philox.py` for the layout.
"""

import itertools
import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from fastddpm.kernels import philox


class Stream(IntEnum):
    """Purpose of a number; numbers of different streams are independent."""

    TRAIN_NOISE = 0
    TIMESTEP = 1
    LABEL_DROP = 2
    FLIP = 3
    SAMPLE_ORDER = 4
    SPLIT = 5
    INITIAL_NOISE = 6
    STEP_NOISE = 7
    EVALUATION = 8
    LABEL = 9
    CROP = 10
    CHOICE = 11
    BOX = 12
    LATENT = 13
    START = 14


SAMPLING_KEY = 0
"""the key of pictures: they depend on their own seeds alone, never on a run's seed"""


def normal(positions: Tensor, shape: Sequence[int], *, seed: int, stream: Stream, draw: int | Tensor = 0) -> Tensor:
    """Standard normal noise for each image.

    Args:
        positions: (B,), int64.
        shape: of one image, such as (C, H, W).
        draw: the timestep of the reverse step, while sampling, one an image or one for all; 0 while training.
    Returns: (B, *shape), float32; image i depends on `positions[i]` only, whatever else the batch holds.
    Raises: ValueError: more than 2^30 elements an image.
    """
    flat = philox.philox_normal(positions, math.prod(shape), seed=seed, stream=int(stream), draw=draw)
    return flat.reshape(-1, *shape)


def uniform(positions: Tensor, *, seed: int, stream: Stream, draw: int = 0) -> Tensor:
    """One number of [0, 1) an image: (B,), float64, a multiple of 2^-32."""
    return uniforms(positions, 1, seed=seed, stream=stream, draw=draw)[:, 0]


def uniforms(positions: Tensor, count: int, *, seed: int, stream: Stream, draw: int = 0) -> Tensor:
    """Several independent numbers of [0, 1) an image: (B, count), float64, multiples of 2^-32."""
    words = philox.philox_words(positions, count, seed=seed, stream=int(stream), draw=draw)
    return words.double() * 2.0**-32


def stratified(positions: Tensor, *, batch_size: int, seed: int, stream: Stream) -> Tensor:
    """One number of [0, 1) an image, with one image of every global batch in each of `batch_size` equal strata.

    Which stratum a slot has turns with the step, and neighbouring slots lie far apart, so that a micro-batch spans
    [0, 1) as the whole batch does. Depends on `positions` and `batch_size` alone.

    Args:
        positions: (B,), int64, `step * batch_size + slot`; any part of a batch.
        batch_size: images of a global batch.
    Returns: (B,), float64; each slot's numbers are uniform over the steps.
    """
    step, slot = positions // batch_size, positions % batch_size
    turn = uniform(step, seed=seed, stream=stream, draw=1)  # one number a step, the same for all its images
    golden = itertools.count(max(1, round(batch_size * 0.6180339887)))
    stride = next(number for number in golden if math.gcd(number, batch_size) == 1)
    stratum = (slot * stride + (turn * batch_size).long()) % batch_size
    return (stratum + uniform(positions, seed=seed, stream=stream)) / batch_size


def coins(positions: Tensor, probability: float, *, seed: int, stream: Stream, draw: int = 0) -> Tensor:
    """True with `probability`, one an image: (B,), bool."""
    words = philox.philox_words(positions, 1, seed=seed, stream=int(stream), draw=draw)
    return words[:, 0] < math.ceil(probability * 2**32)  # exactly where the number of [0, 1) is below it


def integers(positions: Tensor, high: int, *, seed: int, stream: Stream, draw: int = 0) -> Tensor:
    """One of 0, ..., high - 1 an image, each as likely to within 2^-32: (B,), int64."""
    return (uniform(positions, seed=seed, stream=stream, draw=draw) * high).long()


def sample_ids(positions: Tensor, num_images: int, *, seed: int) -> Tensor:
    """Image at each position: epoch after epoch, each in its own order, no image twice in an epoch.

    A batch may cross an epoch's end, so that every batch is whole. Costs the same for any `num_images`.

    Args:
        positions: (B,), int64.
        num_images: size of the training set.
    Returns: (B,), int64, 0 <= id < num_images.
    """
    epochs, places = positions // num_images, positions % num_images
    return shuffled(places, num_images, seed=seed, epoch=epochs, stream=Stream.SAMPLE_ORDER)


def shuffled(indices: Tensor, size: int, *, seed: int, epoch: int | Tensor, stream: Stream) -> Tensor:
    """A keyed bijection of range(size), applied to some of its members.

    An eight-round Feistel network over the pairs (left, right) below (a, b), a * b a near-square product that barely
    holds `size`; the few values that fall outside are sent through again until they are inside (Black & Rogaway 2002).

    Args:
        indices: (B,), int64, 0 <= index < size.
        size: 1 <= size <= 2^62.
        epoch: which bijection; a number, or (B,) int64.
    Returns: (B,), int64, 0 <= value < size.
    """
    width = math.isqrt(size - 1) + 1
    sides = (-(-size // width), width)
    epochs = torch.as_tensor(epoch, dtype=torch.int64, device=indices.device).expand_as(indices)
    values = _feistel(indices, sides, seed, epochs, stream)
    while len(outside := (values >= size).nonzero()[:, 0]):
        values[outside] = _feistel(values[outside], sides, seed, epochs[outside], stream)
    return values


def _feistel(values: Tensor, sides: tuple[int, int], seed: int, epochs: Tensor, stream: Stream) -> Tensor:
    halves = [values // sides[1], values % sides[1]]
    for round_ in range(8):
        moved, key = round_ % 2, halves[1 - round_ % 2]
        c0 = torch.full_like(key, round_ | int(stream) << 28)
        word = philox.philox4x32((c0, key, epochs & 0xFFFFFFFF, epochs >> 32), seed)[0]
        halves[moved] = (halves[moved] + word) % sides[moved]
    return halves[0] * sides[1] + halves[1]

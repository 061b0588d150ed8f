"""Keyed random words and normals: Philox4x32-10 (Salmon et al. 2011).

    words(key; c0, c1, c2, c3) = ten rounds of
        c0' = high(M1 c2) ^ c1 ^ k0      c1' = low(M1 c2)
        c2' = high(M0 c0) ^ c3 ^ k1      c3' = low(M0 c0)      k0 += W0, k1 += W1 between rounds

Layout 1, frozen (checkpoints record its number):
    key     seed, low and high word
    c0      block | stream << 28     block = element // 4, element = index in logical (C, H, W) order
    c1, c2  position, low and high word
    c3      draw
Word j of a block belongs to element 4 block + j. Two neighbouring words give two neighbouring normals by Box-Muller.
"""

import math

import torch
from torch import Tensor

LAYOUT_VERSION = 1
MAX_ELEMENTS = 2**30
"""elements an image that one stream has numbers for: 2^28 blocks of four"""

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def philox4x32_reference(counters: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32.

    Args:
        counters: c0, c1, c2, c3; int64 tensors that broadcast, each value a 32-bit word.
        key: 64-bit key, its low word first.
    Returns: four words, int64 tensors of the broadcast shape, 0 <= word < 2^32.
    """
    c0, c1, c2, c3 = counters
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1  # 64-bit products; int64 wraps as uint64 does, and the masks drop the sign
        c0, c1, c2, c3 = (p1 >> 32) & _MASK ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) & _MASK ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def philox_words_reference(positions: Tensor, num_words: int, *, seed: int, stream: int, draw: int | Tensor) -> Tensor:
    """Words of one stream at some positions.

    Args:
        positions: (B,), int64.
        num_words: words a position, at most 2^30.
        seed: the key, 64 bit.
        stream: what the words are for, 4 bit.
        draw: which repetition, 32 bit; a number, or one a position, (B,), int64.
    Returns: (B, num_words), int64, 0 <= word < 2^32.
    Raises: ValueError: more words than a stream has.
    """
    if num_words > MAX_ELEMENTS:
        raise ValueError(f"{num_words} random numbers an image; a stream has {MAX_ELEMENTS}: use smaller images")
    blocks = torch.arange(-(-num_words // 4), dtype=torch.int64, device=positions.device)
    c0 = (blocks | stream << 28)[None, :]
    c1, c2 = (positions & _MASK)[:, None], ((positions >> 32) & _MASK)[:, None]
    c3 = torch.as_tensor(draw, dtype=torch.int64, device=positions.device).expand_as(positions)[:, None]
    words = philox4x32_reference((c0, c1, c2, c3), seed)
    return torch.stack(words, dim=-1).flatten(1)[:, :num_words]


def normals_reference(words: Tensor) -> Tensor:
    """Standard normals from an even number of words, by Box-Muller.

        radius = sqrt(-2 log((w0 + 1/2) / 2^32))    angle = 2 pi w1 / 2^32    normals: radius cos, radius sin

    Args:
        words: (B, 2n), int64, 0 <= word < 2^32.
    Returns: (B, 2n), float32, finite: the argument of the logarithm lies in [2^-33, 1].
    """
    scaled = words.float() * 2.0**-32
    radius = torch.sqrt(-2.0 * torch.log(scaled[:, 0::2] + 2.0**-33))
    angle = scaled[:, 1::2] * (2.0 * math.pi)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1).flatten(1)


def philox_normal(positions: Tensor, num_elements: int, *, seed: int, stream: int, draw: int | Tensor) -> Tensor:
    """Standard normals of one stream at some positions: (B, num_elements), float32.

    Arguments and errors: see `philox_words_reference`.
    """
    words = philox_words_reference(positions, num_elements + num_elements % 2, seed=seed, stream=stream, draw=draw)
    return normals_reference(words)[:, :num_elements]

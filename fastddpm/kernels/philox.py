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
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fastddpm.kernels.triton_or_not import jit, launch, launched_or_not, num_chunks, tl

LAYOUT_VERSION = 1
MAX_ELEMENTS = 2**30
"""elements an image that one stream has numbers for: 2^28 blocks of four"""

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
Counters = tuple[Tensor, Tensor, Tensor, Tensor]

# -- reference ------------------------------------------------------------------------------------------------------


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
    check_num_elements(num_words)
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


def philox_normal_reference(
    positions: Tensor, num_elements: int, *, seed: int, stream: int, draw: int | Tensor
) -> Tensor:
    """Standard normals of one stream at some positions: (B, num_elements), float32.

    Arguments and errors: see `philox_words_reference`.
    """
    words = philox_words_reference(positions, num_elements + num_elements % 2, seed=seed, stream=stream, draw=draw)
    return normals_reference(words)[:, :num_elements].contiguous()


def check_num_elements(num_elements: int) -> None:
    """Raises: ValueError: more than a stream has numbers for."""
    if num_elements > MAX_ELEMENTS:
        raise ValueError(f"{num_elements} random numbers an image; a stream has {MAX_ELEMENTS}: use smaller images")


def as_int64(seed: int) -> int:
    """The same 64 bits with a sign, as an operator's argument."""
    return (seed & (1 << 64) - 1) - (seed >> 63 & 1) * (1 << 64)


# -- the same on a CPU, in eager mode: in place, with numpy, whose calls cost a quarter of torch's -------------------

_CACHED_BLOCKS = 1 << 13
"""blocks worked on at a time: 0.4 MB of state, which stays in a core's own cache"""


def philox4x32(counters: Counters, key: int) -> tuple[Tensor, ...]:
    """`philox4x32_reference`, with its arguments and result, at once and faster on a CPU; not traceable."""
    if counters[0].device.type != "cpu":
        return philox4x32_reference(counters, key)
    even, odd = _ten_rounds(tuple(counter.numpy() for counter in counters), key)
    return tuple(torch.from_numpy(words) for words in (even[0], odd[0], even[1], odd[1]))


def _ten_rounds(counters: tuple[np.ndarray, ...], key: int) -> tuple[np.ndarray, np.ndarray]:
    """(c0, c2) and (c1, c3) after ten rounds, each (2, ...) and int64."""
    shape = np.broadcast_shapes(*(counter.shape for counter in counters))
    even, odd, product = (np.empty((2, *shape), np.uint64) for _ in range(3))
    even[0], odd[0], even[1], odd[1] = counters
    per_pair = (2, *[1] * len(shape))
    multipliers = np.array([_M1, _M0], np.uint64).reshape(per_pair)
    for i in range(10):
        keys = np.array([(key + i * _W0) & _MASK, ((key >> 32) + i * _W1) & _MASK], np.uint64).reshape(per_pair)
        np.multiply(even[::-1], multipliers, out=product)
        np.right_shift(product, np.uint64(32), out=even)
        even ^= odd
        even ^= keys
        product &= np.uint64(_MASK)
        odd, product = product, odd
    return even.view(np.int64), odd.view(np.int64)


def _in_cache(
    positions: Tensor, num_blocks: int, seed: int, stream: int, draw: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows at a time: which, and their words 0 and 2, and 1 and 3, each (2, rows, num_blocks)."""
    place, repetition = positions.numpy()[:, None], draw.expand_as(positions).numpy()[:, None]
    blocks = (np.arange(num_blocks) | stream << 28)[None, :]
    size = max(1, _CACHED_BLOCKS // max(1, num_blocks))
    for first in range(0, len(positions), size):
        rows = slice(first, first + size)
        counters = (blocks, place[rows] & _MASK, place[rows] >> 32 & _MASK, repetition[rows] & _MASK)
        even, odd = _ten_rounds(counters, seed)
        yield rows, torch.from_numpy(even), torch.from_numpy(odd)


def _box_muller_(even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """`normals_reference` of words 0 and 2, and 1 and 3."""
    radius = even.float().mul_(2.0**-32).add_(2.0**-33).log_().mul_(-2.0).sqrt_()
    angle = odd.float().mul_(2.0**-32).mul_(2.0 * math.pi)
    return torch.cos(angle).mul_(radius), angle.sin_().mul_(radius)


# -- Triton ---------------------------------------------------------------------------------------------------------


@jit
def _uint32(value: tl.constexpr):
    return tl.full((), value, tl.uint32)


@jit
def block_words(blocks, position, draw, seed, stream):
    """The four words of some blocks of one image, uint32.

    Args: blocks: int32; position, draw, seed, stream: scalars of any integer type.
    """
    seed, position = seed.to(tl.int64), position.to(tl.int64)
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    c0 = blocks.to(tl.uint32) | (stream.to(tl.uint32) << 28)
    c1 = tl.zeros_like(c0) + position.to(tl.uint32)
    c2 = tl.zeros_like(c0) + (position >> 32).to(tl.uint32)
    c3 = tl.zeros_like(c0) + draw.to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, _uint32(0xD2511F53)), c0 * _uint32(0xD2511F53)
        high1, low1 = tl.umulhi(c2, _uint32(0xCD9E8D57)), c2 * _uint32(0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _uint32(0x9E3779B9), k1 + _uint32(0xBB67AE85)
    return c0, c1, c2, c3


@jit
def cos_and_sin(angle):
    """Cosine and sine of an angle from 0 to 2 pi, each to 1e-7.

    The libraries' functions are for any angle: on NVIDIA they take a stack frame in local memory and some 2,000
    instructions. Here: the nearest quarter turn is taken off, in two parts so that nothing is lost, and a polynomial
    (least maximum error over an eighth of a turn either way: 2e-9) does the rest.
    """
    quarters = (tl.fma(angle, 0.6366197723675814, 0.5)).to(tl.int32)
    r = tl.fma(quarters.to(tl.float32), -1.5703125, angle)
    r = tl.fma(quarters.to(tl.float32), -0.0004838267923332751, r)
    r2 = r * r
    sin = tl.fma(r2, tl.fma(r2, -0.00019495566084515303, 0.008331977762281895), -0.16666650772094727)
    sin = tl.fma(r * r2, sin, r)
    cos = tl.fma(r2, tl.fma(r2, 2.4438377295155078e-05, -0.0013887366512790322), 0.04166664555668831)
    cos = tl.fma(r2, tl.fma(r2, cos, -0.5), 1.0)
    is_odd = (quarters & 1) == 1
    cos, sin = tl.where(is_odd, sin, cos), tl.where(is_odd, cos, sin)
    return tl.where(((quarters + 1) & 2) == 2, -cos, cos), tl.where((quarters & 2) == 2, -sin, sin)


@jit
def box_muller(w0, w1):
    """Two normals of two words, as `normals_reference`. The argument of the logarithm is at least 2^-33."""
    uniform = tl.fma(w0.to(tl.float32), 2.0**-32, 2.0**-33)
    radius = tl.sqrt_rn(-2.0 * tl.log(uniform))  # tl.sqrt is approximate on NVIDIA
    cos, sin = cos_and_sin(w1.to(tl.float32) * 2.0**-32 * 6.283185307179586)
    return radius * cos, radius * sin


@jit
def keyed_normals(chunk, position, draw, seed, stream, BLOCK: tl.constexpr):
    """The normals of one chunk of an image's elements in logical order: (BLOCK,), float32, a block a thread."""
    blocks = chunk * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    w0, w1, w2, w3 = block_words(blocks, position, draw, seed, stream)
    n0, n1 = box_muller(w0, w1)
    n2, n3 = box_muller(w2, w3)
    return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), [BLOCK])


@jit(do_not_specialize=["seed", "stream"])
def fill_kernel(
    positions_ptr,  # (B,), int64
    draws_ptr,  # (B,), int64
    out_ptr,  # (B, num_elements), int64 or float32
    num_elements,
    seed,
    stream,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Words or normals of one stream."""
    chunks = tl.cdiv(num_elements, BLOCK)
    image, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    position, draw = tl.load(positions_ptr + image), tl.load(draws_ptr + image)
    if WORDS:
        blocks = chunk * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
        w0, w1, w2, w3 = block_words(blocks, position, draw, seed, stream)
        values = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [BLOCK]).to(tl.int64)
    else:
        values = keyed_normals(chunk, position, draw, seed, stream, BLOCK)
    element = chunk * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + image * num_elements + element, values, mask=element < num_elements)


def launch_fill(out: Tensor, positions: Tensor, draw: Tensor, seed: int, stream: int) -> None:
    """Launch `fill_kernel`: words into an int64 `out`, (B, num_elements), normals into a float32 one."""
    num_elements = out.shape[1]
    launch(
        fill_kernel, out, len(out) * num_chunks(num_elements), positions.contiguous(), draw.contiguous(), out,
        num_elements, seed, stream, WORDS=out.dtype == torch.int64,
    )  # fmt: skip


# -- operators ------------------------------------------------------------------------------------------------------


@torch.library.triton_op("fastddpm::philox", mutates_args={})
def _philox(positions: Tensor, num: int, seed: int, stream: int, draw: Tensor, as_normals: bool) -> Tensor:
    def launched() -> Tensor:
        out = positions.new_empty(len(positions), num, dtype=torch.float32 if as_normals else torch.int64)
        launch_fill(out, positions, draw.expand_as(positions), seed, stream)
        return out

    reference = philox_normal_reference if as_normals else philox_words_reference
    return launched_or_not(
        positions, launched, lambda: reference(positions, num, seed=seed, stream=stream, draw=draw).contiguous()
    )


@_philox.register_kernel("cpu")
def _on_cpu(positions: Tensor, num: int, seed: int, stream: int, draw: Tensor, as_normals: bool) -> Tensor:
    dtype = torch.float32 if as_normals else torch.int64
    found = torch.empty(len(positions), -(-num // 4), 2, 2, dtype=dtype)
    for rows, even, odd in _in_cache(positions, found.shape[1], seed, stream, draw):
        first, second = _box_muller_(even, odd) if as_normals else (even, odd)
        found[rows, :, :, 0] = first.permute(1, 2, 0)
        found[rows, :, :, 1] = second.permute(1, 2, 0)
    return found.flatten(1)[:, :num].contiguous()


def philox_words(positions: Tensor, num_words: int, *, seed: int, stream: int, draw: int | Tensor) -> Tensor:
    """The operator of `philox_words_reference`, with its arguments and result."""
    check_num_elements(num_words)
    return _philox(positions, num_words, as_int64(seed), stream, _on_the_device(draw, positions), False)


def philox_normal(positions: Tensor, num_elements: int, *, seed: int, stream: int, draw: int | Tensor) -> Tensor:
    """The operator of `philox_normal_reference`, with its arguments and result."""
    check_num_elements(num_elements)
    return _philox(positions, num_elements, as_int64(seed), stream, _on_the_device(draw, positions), True)


def _on_the_device(draw: int | Tensor, positions: Tensor) -> Tensor:
    return draw if isinstance(draw, Tensor) else positions.new_full((1,), draw)

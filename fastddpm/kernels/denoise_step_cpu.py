"""`denoise_step` on a CPU, in eager mode: one pass over memory, piece by piece and in place.

The reference makes a dozen tensors of the batch's size; here only the results are made, and a piece of everything else
stays in a core's cache. A generator's noise is drawn piece by piece too, which takes the same numbers from it. For
large batches it has a thread of its own, ahead of this one: a generator draws in one thread only, and that takes longer
than all the rest.
"""

import ctypes
import functools
import itertools
import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from fastddpm.kernels.layout import dense, is_channels_last, memory_format_of

PIECE = 1 << 15
"""elements worked on at a time: 128 KB each of five arrays; 2^14 to 2^18 differ by little, 2^13 is slower"""

GROUP = 16
"""pieces whose noise is drawn in one go by the other thread"""
WORTH_A_THREAD = 1 << 20
"""elements from which the noise has a thread of its own"""


def denoise_step_on_cpu(
    model_output: Tensor,
    sample: Tensor,
    timesteps: Tensor,
    table: Tensor,
    draw_noise_: Callable[[Tensor, slice], Any],
    clip_range: float | None,
    with_x_0: bool,
) -> tuple[Tensor, Tensor]:
    """`denoise_step_reference`, to a rounding; not traceable, and without gradients.

    Args: as there, and
        draw_noise_: fills a flat float32 tensor with the noise of a slice of the batch's elements, in the order in
            which they lie in memory; called in ascending order, of large batches from another thread.
    Returns: x_{t-1} and x_0, float32, in the memory format of `sample`; x_0 has 0 elements where it is not wanted.
    """
    own_format = memory_format_of(sample)
    x_prev = in_huge_pages(torch.empty(sample.shape, memory_format=own_format))
    x_0 = in_huge_pages(torch.empty_like(x_prev)) if with_x_0 else x_prev.new_empty(0)
    x_t, output = in_memory_order(dense(sample)), in_memory_order(model_output.contiguous(memory_format=own_format))
    out, out_x_0 = in_memory_order(x_prev), in_memory_order(x_0)
    scratch = torch.empty(0 if with_x_0 else min(PIECE, x_t.numel()))
    pieces = list(_pieces(timesteps, sample.shape[1:].numel()))
    rows = {t: table[t].tolist() for t in {t for _, t in pieces}}
    apart = x_t.numel() >= WORTH_A_THREAD and torch.get_num_threads() > 1
    for piece, t in _drawn(pieces, lambda piece: draw_noise_(out[piece], piece), apart):
        from_sample, from_output, mean_x_0, mean_sample, sigma = rows[t]
        noised = out[piece]
        clean = out_x_0[piece] if with_x_0 else scratch[: len(noised)]
        # a product of bfloat16 and a number would be rounded to bfloat16, whatever it is written to
        torch.mul(output[piece].float(), from_output, out=clean).add_(x_t[piece], alpha=from_sample)
        if clip_range is not None:
            clean.clamp_(-clip_range, clip_range)
        noised.mul_(sigma).add_(x_t[piece], alpha=mean_sample).add_(clean, alpha=mean_x_0)
    return x_prev, x_0


def _pieces(timesteps: Tensor, num_elements: int) -> Iterator[tuple[slice, int]]:
    """Slices of the batch's elements in which the timestep is one, and that timestep."""
    start = 0
    for t, images in itertools.groupby(timesteps.tolist()):
        stop = start + num_elements * len(list(images))
        yield from ((slice(first, min(first + PIECE, stop)), t) for first in range(start, stop, PIECE))
        start = stop


def _drawn(
    pieces: Sequence[tuple[slice, int]], draw: Callable[[slice], Any], in_background: bool
) -> Iterator[tuple[slice, int]]:
    """The pieces in order, each when its noise is there."""
    if not in_background:
        for piece, t in pieces:
            draw(piece)
            yield piece, t
        return
    is_inference = torch.is_inference_mode_enabled()  # which, like no_grad, does not reach other threads

    def draw_all(group: Sequence[tuple[slice, int]]) -> None:
        with torch.inference_mode(is_inference), torch.no_grad():
            for piece, _ in group:
                draw(piece)

    groups = [pieces[first : first + GROUP] for first in range(0, len(pieces), GROUP)]
    with ThreadPoolExecutor(1) as pool:
        for group, done in [(group, pool.submit(draw_all, group)) for group in groups]:
            done.result()
            yield from group


def in_memory_order(x: Tensor) -> Tensor:
    """The elements of a dense tensor as they lie in memory, flat; a view."""
    return (x.permute(0, 2, 3, 1) if is_channels_last(x) else x).reshape(-1)


HUGE = 1 << 25
"""bytes from which a fresh tensor is asked for in huge pages"""


def in_huge_pages(x: Tensor) -> Tensor:
    """`x` itself, not yet written to; where Linux has huge pages to give, in pages of 2 MB instead of 4 KB.

    Large tensors are fresh from the system every time: a quarter of a step at (64, 3, 256, 256) went into page faults
    (104 ms with small pages, 80 with huge ones). It is a hint, and where it is not taken nothing else changes.
    """
    first, advise = x.data_ptr(), _madvise()
    if advise is not None and x.nbytes >= HUGE:
        start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(start, (first + x.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
    return x


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes, advise.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return advise


def draws_alike_in_pieces(model_output: Tensor, sample: Tensor, timesteps: Tensor) -> bool:
    """True if float32 noise of the shape of `sample` may be drawn from one CPU generator piece by piece.

    `torch.randn` takes numbers sixteen at a time, in logical order; what is left at the end it draws anew.
    """
    plain = type(sample) is type(model_output) is Tensor and not torch.compiler.is_compiling()
    no_grad = not (torch.is_grad_enabled() and (sample.requires_grad or model_output.requires_grad))
    return (
        plain
        and no_grad
        and sample.device.type == model_output.device.type == "cpu"
        and not is_channels_last(sample)
        and sample.numel() % 16 == 0
        and len(set(timesteps.tolist())) == 1
    )

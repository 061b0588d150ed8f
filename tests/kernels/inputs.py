"""Arguments for the kernels' tests, and how far a result may be from its reference."""

import torch

SHAPES = [(1, 1, 1, 1), (2, 1, 7, 7), (1, 3, 8, 8), (3, 3, 5, 9), (2, 3, 20, 20)]
"""one pixel; odd and one channel; B = 1; odd, three channels, not square; more than one chunk of 1024"""
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
KEY = (2**40 + 5, 3)
"""a seed that needs both words of the key, and a stream"""


def schedule(num_timesteps=10):
    """(2, T): sqrt(abar_t) and sqrt(1 - abar_t)."""
    signal = torch.linspace(0.99, 0.1, num_timesteps)
    return torch.stack([signal, (1 - signal**2).sqrt()])


def coefficients(num_timesteps=10):
    """(T, 5); the step from t = 0 adds no noise."""
    table = torch.rand(num_timesteps, 5, generator=torch.Generator().manual_seed(1))
    table[0, 4] = 0.0
    return table


def positions_of(batch):
    """Both words of a position are needed."""
    return torch.arange(batch) * 7919 + 2**33


def timesteps_of(batch):
    """Different ones in one batch, 0 among them."""
    return torch.arange(batch) * 3 % 10


def randn(shape, dtype=torch.float32, layout=torch.contiguous_format, seed=0):
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return made.contiguous(memory_format=layout)


def pixels(shape, layout=torch.contiguous_format):
    made = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return made.contiguous(memory_format=layout)


def assert_close(got, want, *, keyed=False, roundings=4):
    """Within some roundings of float32 and one of its own dtype; normals of another backend may be 1e-5 apart.

    That a tolerance can fail is part of the check: zeros do not pass.
    """
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert got.stride() == want.stride()
    got, want, dtype = got.double(), want.double(), want.dtype
    scale = want.abs().max()
    tolerance = roundings * torch.finfo(torch.float32).eps * scale + (1e-5 if keyed else 0.0)
    if dtype != torch.float32:
        tolerance = tolerance + torch.finfo(dtype).eps * scale
    assert (got - want).abs().max() <= tolerance
    if scale > 0:
        assert scale > tolerance, "zeros would pass"

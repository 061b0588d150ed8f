"""Many images from a trained model, over all processes, into files."""

from fastddpm.sampling.job import sample
from fastddpm.sampling.series import Request
from fastddpm.sampling.variations import VariationRequest, vary

__all__ = ["Request", "VariationRequest", "sample", "vary"]

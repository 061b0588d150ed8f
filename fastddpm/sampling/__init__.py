"""Many images from a trained model, over all processes, into files."""

from fastddpm.sampling.blends import BlendRequest, cutmix
from fastddpm.sampling.samples import SampleRequest, sample
from fastddpm.sampling.variations import VariationRequest, vary

__all__ = ["BlendRequest", "SampleRequest", "VariationRequest", "cutmix", "sample", "vary"]

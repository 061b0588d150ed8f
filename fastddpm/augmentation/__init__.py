"""New labelled images from labelled images: `fastddpm augment`."""

from fastddpm.augmentation.job import augment
from fastddpm.augmentation.plan import Plan, make_plan
from fastddpm.augmentation.request import AugmentRequest, parse_starts

__all__ = ["AugmentRequest", "Plan", "augment", "make_plan", "parse_starts"]

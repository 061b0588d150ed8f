"""What augmentation gains a classifier, measured: `fastddpm evaluate augmentation`."""

from fastddpm.gain.run import evaluate_augmentation

__all__ = ["evaluate_augmentation"]

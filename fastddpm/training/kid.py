"""KID of a run: which real images its samples are compared with, and what is written down."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm.data import center_crop
from fastddpm.measures.features import Features, refuse_not_finite
from fastddpm.measures.fidelity import RESAMPLES, kid
from fastddpm.training.near_copies import some_ids
from fastddpm.training.run import Run

BATCH = 64
MAX_REALS = 5_000
"""every pair of them is looked at; the samples are far fewer, and say how sure the number is"""


class KidJudge:
    """KID of samples; the reals are the held-out images if they are as many as the samples, else training images.

    Raises: ValueError: features of reals, or in `row` of samples, are not finite.
    """

    def __init__(self, run: Run, features: Features):
        self._features = features.to(run.accelerator.device)
        enough = run.held_out is not None and len(run.held_out) >= run.config.watch.kid_num_samples
        self._reals_are = "held_out" if enough else "training"
        reals = run.held_out if enough else run.images
        assert reals is not None
        most = MAX_REALS if enough else run.config.watch.kid_num_samples
        ids = some_ids(len(reals), most, run.config.seed)
        side = run.config.train.random_crop
        batches = (center_crop(reals.gather(part)[0], side) for part in ids.split(BATCH))
        self._reals = self._seen(batches, f"{self._reals_are.replace('_', '-')} images")

    def row(self, samples: np.ndarray) -> dict[str, Any]:
        """Row of metrics.jsonl of a measurement."""
        drawn = torch.from_numpy(samples).to(self._reals.device).split(BATCH)
        found, interval = kid(self._seen(drawn, "samples"), self._reals, resamples=RESAMPLES)
        assert interval is not None
        return {
            "kid": found,
            "kid_interval": list(interval),
            "kid_num_samples": len(samples),
            "kid_num_reals": len(self._reals),
            "kid_reals": self._reals_are,
            "kid_features": self._features.name,
            "kid_features_sha256": self._features.sha256,
        }

    def _seen(self, batches: Iterable[Tensor], images: str) -> Tensor:
        """(N, D), float32: features of all images."""
        features = torch.cat([self._features(batch) for batch in batches])
        return refuse_not_finite(features, f"watch.features {self._features.name}", images)

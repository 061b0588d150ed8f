"""KID of a run: which real images its samples are compared with, and what is written down."""

from typing import Any

import numpy as np
import torch

from fastddpm.data import center_crop
from fastddpm.measures.features import Features
from fastddpm.measures.kid import BATCH, KernelDistanceToReals
from fastddpm.training.copies import some_ids
from fastddpm.training.run import Run

MAX_KID_REALS = 10_000


class KidJudge:
    """KID of samples; the reals are the held-out images if they are as many as the samples, else training images."""

    def __init__(self, run: Run, features: Features):
        self._features = features.to(run.accelerator.device)
        enough = run.held_out is not None and len(run.held_out) >= run.config.watch.kid_num_samples
        self._reals_are = "held_out" if enough else "training"
        reals = run.held_out if enough else run.images
        assert reals is not None
        most = MAX_KID_REALS if enough else run.config.watch.kid_num_samples
        ids = some_ids(len(reals), most, run.config.seed)
        batches = (center_crop(reals.gather(part)[0], run.config.train.random_crop) for part in ids.split(BATCH))
        self._distance = KernelDistanceToReals(self._features, batches)

    def row(self, samples: np.ndarray) -> dict[str, Any]:
        """What metrics.jsonl holds of a measurement."""
        found = self._distance.measure(torch.from_numpy(samples))
        return {
            "kid": found.mean,
            "kid_std_of_subsets": found.std,
            "kid_num_samples": found.num_samples,
            "kid_num_reals": found.num_reals,
            "kid_reals": self._reals_are,
            "kid_subset_size": found.subset_size,
            "kid_features": self._features.name,
            "kid_features_sha256": self._features.sha256,
        }

"""Do thresholds keep what they promise, and is a change found? Scores are made once, by known images alone; then many
splits of them into held-out and fresh ones are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from benchmarks.anomalies.defects import plant
from benchmarks.anomalies.sets import Parts, Sizes
from fastddpm import AnomalyPipeline
from fastddpm.measures.conformal import drift, num_allowed, threshold
from fastddpm.verbs.sample.open_model import open_pipeline

SPLITS, SHARES, CHANGE_AT = 1000, (0.01, 0.05, 0.1), 500
DEFECTIVE = (1.0, 0.5, 0.2)
"""shares of images with a defect after the change"""


def promise(run: Path, normal: Parts, kind: str, sizes: Sizes, splits: int = SPLITS) -> dict[str, Any]:
    """False alarms over splits, and the delay until a change at image 500 is found.

    Args:
        run: of a model of the normal images.
        normal: its test images are scored by `sizes.known` training images.
        kind: of the defects that come with the change.
    """
    pipeline: AnomalyPipeline = open_pipeline(AnomalyPipeline, str(run))
    pipeline.set_progress_bar_config(disable=True)
    known, held_out = (torch.from_numpy(of) for of in (normal.train, normal.calibration))
    known = known[torch.from_numpy(np.random.default_rng(6).permutation(len(known))[: sizes.known])]
    calibration = pipeline.calibrate(known, known_images=held_out[:0])  # the known judge, and nobody else
    fresh = np.concatenate([normal.calibration, normal.test])[:2000]
    scores = pipeline(torch.from_numpy(fresh), calibration).scores.double().numpy()
    defects = pipeline(torch.from_numpy(plant(kind, fresh[-400:], seed=0).images), calibration).scores.double().numpy()
    rng, count = np.random.default_rng(0), min(200, len(scores) // 3)
    rows: dict[str, Any] = {"images": len(scores), "held out": count, "splits": splits}
    for share in SHARES:
        rates = []
        for _ in range(splits):
            order = rng.permutation(len(scores))
            rates.append(float((scores[order[count:]] > threshold(scores[order[:count]], share)).mean()))
        low, high = (binom.ppf(q, splits, num_allowed(share, count) / (count + 1)) / splits for q in (0.025, 0.975))
        rows[f"{share:.0%}"] = {"false alarms": float(np.mean(rates)), "binomial band": [low, high]}
    for share in DEFECTIVE if len(scores) >= count + 2 * CHANGE_AT else ():
        delays, early = [], 0
        for seed in range(splits // 10):
            order = rng.permutation(len(scores))
            before, after = scores[order[count : count + CHANGE_AT]], scores[order[-CHANGE_AT:]]
            after = np.where(rng.random(len(after)) < share, rng.choice(defects, len(after)), after)
            found = drift(np.concatenate([before, after]), scores[order[:count]], seed).changed_by
            early += found is not None and found < len(before)
            delays.append(np.inf if found is None else found - len(before) + 1)
        rows[f"change, {share:.0%} defective"] = {
            "found": float(np.isfinite(delays).mean()), "too early": early, "median delay": float(np.median(delays)),
        }  # fmt: skip
    return rows

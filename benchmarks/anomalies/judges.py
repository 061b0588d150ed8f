"""Networks that make features, each trained without labels on the normal training images of a test."""

from pathlib import Path

import torch

from benchmarks.anomalies.sets import Parts, Sizes
from fastddpm.measures.features import load_judge
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures, train_unlabelled
from fastddpm.verbs.evaluate.train_judge import save_judge

BATCH_SIZE = 64


def judge_of(name: str, normal: Parts, work: Path, sizes: Sizes) -> UnlabelledFeatures:
    """The one of that name: trained at the first call, from seed 0, and kept."""
    path = work / "judges" / f"{name}.safetensors"
    if not path.exists():
        images = torch.from_numpy(normal.train)
        save_judge(train_unlabelled(images, num_steps=sizes.judge_steps, batch_size=BATCH_SIZE), path)
    judge = load_judge(path)
    assert isinstance(judge, UnlabelledFeatures)
    return judge

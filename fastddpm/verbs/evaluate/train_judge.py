"""`fastddpm judge`: a small network that makes features of images; where they have labels, a classifier."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from fastddpm import draws
from fastddpm.agreement import working
from fastddpm.data.groups import drawn_whole
from fastddpm.data.named_pictures import NamedImages, named_images
from fastddpm.draws import Stream
from fastddpm.files import write_bytes
from fastddpm.measures.classifier import Classifier, train_classifier
from fastddpm.measures.judge import Judge
from fastddpm.measures.unlabelled_judge import NUM_STEPS, UnlabelledFeatures, train_unlabelled
from fastddpm.verbs.evaluate.request import JudgeRequest

NUM_NAMED = 20
"""classes whose accuracy is printed"""


def make_judge(request: JudgeRequest) -> Path:
    """Train on some images of a source, say what came of it, and write the file.

    Returns: where it is.
    Raises: ValueError: too few images, or none left to test a classifier on.
    """
    with working(request) as state:
        chosen = find_images(request)
        made = train_judge(
            chosen.images, chosen.labels, chosen.label_names, request.num_tested, epochs=request.epochs,
            num_steps=request.num_steps, seed=request.seed, device=state.device,
            groups=None if chosen.labels is None else chosen.groups(),
        )  # fmt: skip
        made.facts["source"] = request.source
        save_judge(made, request.out)
    print(f"{request.out}: {made.description}")
    if isinstance(made, Classifier):
        print(f"{made.facts['accuracy']:.1%} of {made.facts['num_tested']:,} other images right")
        for name, of in list(made.facts["accuracy_by_class"].items())[:NUM_NAMED]:
            found = (
                f"{of['accuracy']:.1%} ({of['interval'][0]:.0%} to {of['interval'][1]:.0%})" if of["interval"] else "?"
            )
            print(f"  {name}: {found} of {of['num_tested']:,}")
    return request.out


def find_images(request: JudgeRequest) -> NamedImages:
    """The images, with labels only if a classifier is to learn them."""
    if not request.unlabelled:
        chosen = named_images(request.source, most=request.num_images + request.num_tested, seed=request.seed)
        if chosen.label_names is not None and len(chosen.label_names) > 1:
            return chosen
    return replace(
        named_images(request.source, most=request.num_images, seed=request.seed), labels=None, label_names=None
    )


def train_judge(
    images: np.ndarray,
    labels: np.ndarray | None,
    label_names: Sequence[str] | None,
    num_tested: int,
    *,
    epochs: int,
    seed: int,
    device: str | torch.device,
    num_steps: int = NUM_STEPS,
    groups: np.ndarray | None = None,
    show_progress: bool = True,
) -> Classifier | UnlabelledFeatures:
    """Train a classifier, or without labels, or where all have the same one, a network that needs none.

    Args:
        images: (N, C, H, W), uint8.
        labels: (N,), int64, below the number of `label_names`; or None.
        num_tested: images, drawn by the seed, that a classifier is tested on instead; its `facts` have the `accuracy`.
            Without labels all images are trained on.
        epochs: of a classifier.
        num_steps: without labels.
        groups: (N,), int64, equal for images that belong together: they are tested on or trained on together.
    Returns: a network in eval mode.
    Raises: ValueError: no images left to train on, and what `train_classifier` and `train_unlabelled` raise.
    """
    pixels = torch.from_numpy(images)
    if labels is None or label_names is None or len(label_names) < 2:
        return train_unlabelled(pixels, num_steps=num_steps, seed=seed, device=device, show_progress=show_progress)
    if len(images) <= num_tested:
        raise ValueError(
            f"there are {len(images)} images and num_tested is {num_tested}; none is left to train on: lower num_tested"
        )
    places = torch.arange(len(images))
    order = draws.shuffled(places, len(places), seed=seed, epoch=0, stream=Stream.SPLIT).numpy()
    tested = drawn_whole(order[::-1], places.numpy() if groups is None else groups, num_tested, None)
    if not len(tested):
        raise ValueError(f"all groups of images that belong together have more than {num_tested}; raise num_tested")
    trained = order[~np.isin(order, tested)]
    classes = torch.from_numpy(labels)
    made = train_classifier(
        pixels[trained], classes[trained], len(label_names), epochs=epochs, seed=seed, device=device,
        show_progress=show_progress,
    )  # fmt: skip
    right = made.probabilities(pixels[tested]).argmax(1).cpu().numpy() == labels[tested]
    made.facts |= {
        "num_tested": len(tested),
        "accuracy": round(float(right.mean()), 4),
        "label_names": list(label_names),
    }
    made.facts["accuracy_by_class"] = {
        name: _share(right[labels[tested] == number]) for number, name in enumerate(label_names)
    }
    return made


def _share(right: np.ndarray) -> dict[str, Any]:
    """Share of images that are told right, with Wilson's interval of 95 %; null: none was tested."""
    if not len(right):
        return {"num_tested": 0, "accuracy": None, "interval": None}
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    bounds = [round(float(bound), 4) for bound in (interval.low, interval.high)]
    return {"num_tested": len(right), "accuracy": round(float(right.mean()), 4), "interval": bounds}


def save_judge(network: Judge, path: Path) -> None:
    """Write a judge's file."""
    write_bytes(path, network.to_bytes())

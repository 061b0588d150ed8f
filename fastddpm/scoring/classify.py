"""`fastddpm classifier`: a small classifier of labelled images, for features and for which class a sample has."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from fastddpm import draws
from fastddpm.draws import Stream
from fastddpm.evaluation.classifier import train_classifier
from fastddpm.scoring.sets import choose
from fastddpm.training.environment import borrowed_process, join_processes


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest:
    """What `fastddpm classifier` is asked for."""

    source: str
    out: Path
    num_images: int = 20_000
    num_tested: int = 2_000
    epochs: int = 5
    seed: int = 0
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_images", "num_tested", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out is {self.out}; wanted a file that ends in .safetensors")


def make_classifier(request: ClassifierRequest) -> Path:
    """Train on some images of a labelled source, test on others, and write the file.

    Returns: where it is.
    Raises: ValueError: no labels, or no images left to test on.
    """
    with borrowed_process():
        state = join_processes(request.num_threads, 1)
        chosen = choose(request.source, request.num_images + request.num_tested, seed=request.seed)
        if chosen.labels is None or chosen.label_names is None:
            raise ValueError(f"{request.source} has no labels; a classifier needs a class of each image")
        count = len(chosen.images) - request.num_tested
        if count < 1:
            raise ValueError(
                f"{request.source} has {len(chosen.images)} images and num_tested is {request.num_tested}; none is "
                f"left to train on: lower --num_tested"
            )
        places = torch.arange(len(chosen.images))
        order = draws.shuffled(places, len(places), seed=request.seed, epoch=0, stream=Stream.SPLIT)
        images, labels = torch.from_numpy(chosen.images)[order], torch.from_numpy(chosen.labels)[order]
        made = train_classifier(
            images[:count], labels[:count], len(chosen.label_names), epochs=request.epochs, seed=request.seed,
            device=state.device,
        )  # fmt: skip
        accuracy = made.accuracy(images[count:], labels[count:])
        made.facts |= {"source": request.source, "num_tested": request.num_tested, "accuracy": round(accuracy, 4)}
        made.facts["label_names"] = list(chosen.label_names)
        request.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = request.out.with_name(f".{request.out.name}.tmp")
        temporary.write_bytes(made.to_bytes())
        os.replace(temporary, request.out)
        print(f"{request.out}: {accuracy:.1%} of {request.num_tested:,} other images right, {count:,} trained on")
    return request.out

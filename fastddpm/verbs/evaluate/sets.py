"""Which images are meant: of any source, of a run's split, or drawn from a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastddpm import draws
from fastddpm.config import DataConfig, load_config
from fastddpm.data import center_crop, ingest, load_splits
from fastddpm.draws import Stream

SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class Chosen:
    """Images and what is to be said of them."""

    images: np.ndarray
    """(N, C, H, W), uint8"""
    labels: np.ndarray | None
    """(N,), int64"""
    label_names: tuple[str, ...] | None
    facts: Mapping[str, Any]
    """plain JSON values: source, split, how many of how many, seed of the choice"""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width


def is_model(word: str) -> bool:
    """Whether a word names the folder of a run or of a saved pipeline."""
    folder = Path(word)
    return (folder / "model_index.json").exists() or (folder / "checkpoints").is_dir()


def choose(word: str, most: int, *, seed: int, image_shape: tuple[int, int, int] | None = None) -> Chosen:
    """Images of a source, or of a run's split.

    Args:
        word: any `data.source`; or RUN:train or RUN:held_out, as that run was trained.
        most: of more than these, as many are drawn at random by the seed; the same each time.
        image_shape: (C, H, W) that they must have; those of a source are made to fit, if it is square.
    Raises: ValueError: nothing there, or images of another shape.
    """
    run, colon, split = word.rpartition(":")
    if colon and split in SPLITS and (Path(run) / "config.yaml").exists():
        found = _of_run(Path(run), split, most, seed)
    else:
        found = _of_source(word, most, seed, image_shape)
    if image_shape is not None and found.image_shape != image_shape:
        raise ValueError(
            f"{word} has images of {found.image_shape} (channels, height, width), the others are {image_shape}; "
            f"give images of one shape"
        )
    return found


def _of_run(run: Path, split: str, most: int, seed: int) -> Chosen:
    config = load_config(run / "config.yaml")
    subset = getattr(load_splits(config.data, seed=config.seed), split)
    if not len(subset):
        raise ValueError(f"{run} has no {split} images; it was trained with data.num_held_out 0")
    places = _some(len(subset), most, seed)
    images, labels = subset.source.images[subset.indices_of(places).numpy()], subset.labels_of(places)
    cut = center_crop(torch.from_numpy(images), config.train.random_crop).numpy()
    names = subset.source.label_names
    facts = {"source": config.data.source, "run": run.name, "split": split}
    return _chosen(cut, labels, names, facts, len(subset), seed)


def _of_source(word: str, most: int, seed: int, image_shape: tuple[int, int, int] | None) -> Chosen:
    settings: dict[str, Any] = {}
    if image_shape is not None and image_shape[1] == image_shape[2]:
        settings = {"channels": image_shape[0], "image_size": image_shape[1]}
    try:
        found = ingest(DataConfig(source=word, **settings))
    except ValueError as error:
        raise ValueError(str(error).replace("data.source ", "", 1)) from error
    # copies count: a generator that draws one image again and again must not pass for one that drew it once
    which = np.concatenate([np.arange(len(found.images)), found.duplicates[:, 0]])
    places = _some(len(which), most, seed).numpy()
    labels = None
    if found.labels is not None:
        labels = torch.from_numpy(np.concatenate([found.labels, found.duplicates[:, 1]])[places])
    facts = {"source": word, "split": "all"}
    return _chosen(found.images[which[places]], labels, found.label_names, facts, len(which), seed)


def _some(count: int, most: int, seed: int) -> Tensor:
    places = torch.arange(min(count, most))
    return places if count <= most else draws.shuffled(places, count, seed=seed, epoch=0, stream=Stream.EVALUATION)


def _chosen(
    images: np.ndarray, labels: Tensor | None, names: tuple[str, ...] | None, facts: dict[str, Any], of: int, seed: int
) -> Chosen:
    counts = {"num_images": len(images), "of": of, "seed": seed if len(images) < of else None}
    return Chosen(images, None if labels is None else labels.numpy(), names, facts | counts)

"""Every classifier of a measurement, trained and tested; what was done before stays."""

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastddpm.files import write_json
from fastddpm.progress import progress_bar
from fastddpm.studies.augmentation.estimates import Accuracy, Key, Share, key_of
from fastddpm.studies.augmentation.generators import Points, drawn_of
from fastddpm.studies.augmentation.learning import Lesson, accuracy, found_classes, learn, lesson_of
from fastddpm.studies.augmentation.settings import GainConfig, Kind
from fastddpm.studies.augmentation.subsets import Labelled, Set, choose_labelled, sets_of

SEEDS_APART = 1_000
"""seeds between the classifiers of one choice of labelled images and those of the next"""


@dataclass(frozen=True, eq=False)
class Pool:
    """Images to learn from and to be tested on."""

    images: Labelled
    held_out: Labelled
    num_classes: int


def trials_of(config: GainConfig, points: Points) -> list[Key]:
    """Trials of some (t, K); those that learn from the same images stand together."""
    sets = sets_of(config.num_labelled, config.num_seeds)
    plain: list[Key] = [(of.size, of.repeat, name, None, None, None) for of in sets for name in ("reals", "classic")]
    return plain + [
        (of.size, of.repeat, name, kind, *point)
        for of in sets for kind in config.kinds for point in points[of.size] for name in ("drawn", "both")
    ]  # fmt: skip


def measure(config: GainConfig, pool: Pool, points: Points, device: torch.device) -> list[Accuracy]:
    """Train and test whoever is not in accuracies.json yet; each is written there as it comes."""
    path = Path(config.output_dir) / "accuracies.json"
    done = {key_of(row): row for row in _kept(path, Accuracy)}
    trials = trials_of(config, points)
    held_out, labels = torch.from_numpy(pool.held_out.images), torch.from_numpy(pool.held_out.labels)
    missing = [trial for trial in trials if trial not in done]
    there = len(trials) - len(missing)
    with progress_bar(title="classifiers", total=len(trials), initial=there, unit="classifier", leave=True) as bar:
        for trial, reals, drawn in _lessons(config, pool, missing):
            _, repeat, condition, *_ = trial
            network = learn(
                reals, drawn, config.classic if condition in ("classic", "both") else None, config.classifier,
                seed=config.seed + SEEDS_APART * repeat, device=device,
            )  # fmt: skip
            done[trial] = Accuracy(*trial, accuracy(network, held_out, labels, device))
            write_json(path, [asdict(row) for row in done.values()])
            bar.update()
    return [done[trial] for trial in trials]


def _lessons(config: GainConfig, pool: Pool, trials: list[Key]) -> Iterator[tuple[Key, Lesson, Lesson | None]]:
    """Images that each learns from; drawn ones are read once for neighbours that share them."""
    read: Any = functools.lru_cache(maxsize=1)(lambda of, kind, at: drawn_of(config, of, kind, at, pool.num_classes))
    for trial in trials:
        size, repeat, _, kind, *point = trial
        places = choose_labelled(pool.images.labels, size, seed=config.seed, repeat=repeat)
        reals = lesson_of(pool.images.images[places], pool.images.labels[places], pool.num_classes)
        yield trial, reals, None if kind is None else read(Set(size, repeat), kind, tuple(point))


def labels_kept(config: GainConfig, pool: Pool, points: Points, device: torch.device) -> list[Share]:
    """Share of drawn images at each t, with the main K, that a classifier takes for the label that they have (of a
    blend: its larger part). It learnt from all images and labels that are not held out: it explains the tables, it is
    no part of them.

    Returns: of each number of labelled images, kind and t; seeds are taken together.
    """
    path = Path(config.output_dir) / "labels_kept.json"
    done = _kept(path, Share)
    num, known = config.drawing.num_per_image, {(row.size, row.kind, row.start) for row in done}
    wanted = [
        (size, kind, start)
        for size in config.num_labelled for kind in config.kinds for start, k in points[size] if k == num
    ]  # fmt: skip
    missing = [key for key in wanted if key not in known]
    if missing:
        everything = lesson_of(pool.images.images, pool.images.labels, pool.num_classes)
        network = learn(everything, None, None, config.classifier, seed=config.seed, device=device)
        done += [_share_of(config, pool, network, *key, device) for key in missing]
        write_json(path, [asdict(row) for row in done])
    return [row for key in wanted for row in done if (row.size, row.kind, row.start) == key]


def _share_of(
    config: GainConfig, pool: Pool, network: nn.Module, size: int, kind: Kind, start: int, device: torch.device
) -> Share:
    right = []
    for repeat in range(config.num_seeds):
        drawn = drawn_of(config, Set(size, repeat), kind, (start, config.drawing.num_per_image), pool.num_classes)
        right.append(found_classes(network, drawn.images, device) == drawn.targets.argmax(1))
    return Share(size, kind, start, float(torch.cat(right).double().mean()))


def _kept(path: Path, kind: Any) -> list[Any]:
    return [kind(**row) for row in json.loads(path.read_text())] if path.exists() else []

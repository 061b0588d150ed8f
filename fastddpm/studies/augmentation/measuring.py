"""Every classifier of a measurement, trained and tested; what was done before stays."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from fastddpm.files import write_json
from fastddpm.studies.augmentation.drawn import Points, drawn_of
from fastddpm.studies.augmentation.estimates import Accuracy, Condition, Key, Share, key_of
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


@dataclass(frozen=True)
class Trial:
    """A classifier that is to be trained."""

    chosen: Set
    condition: Condition
    kind: Kind | None = None
    point: tuple[int, int] | None = None

    @property
    def key(self) -> Key:
        """Key of its `Accuracy`."""
        start, num = self.point or (None, None)
        return self.chosen.size, self.chosen.repeat, self.condition, self.kind, start, num


def trials_of(config: GainConfig, points: Points) -> list[Trial]:
    """Trials of some (t, K); those that learn from the same images stand together."""
    sets = sets_of(config.num_labelled, config.num_seeds)
    plain = [Trial(chosen, name) for chosen in sets for name in _PLAIN]
    drawn = [
        Trial(chosen, name, kind, point)
        for chosen in sets for kind in config.kinds for point in points[chosen.size] for name in _DRAWN
    ]  # fmt: skip
    return [*plain, *drawn]


_PLAIN: tuple[Condition, ...] = ("reals", "classic")
_DRAWN: tuple[Condition, ...] = ("drawn", "both")


def measure(config: GainConfig, pool: Pool, points: Points, device: torch.device) -> list[Accuracy]:
    """Train and test whoever is not in accuracies.json yet; each is written there as it comes."""
    path = Path(config.output_dir) / "accuracies.json"
    done = {key_of(row): row for row in _kept(path)}
    trials = trials_of(config, points)
    held_out, labels = torch.from_numpy(pool.held_out.images), torch.from_numpy(pool.held_out.labels)
    there = sum(trial.key in done for trial in trials)
    with tqdm(total=len(trials), initial=there, desc="classifiers", unit="classifier") as bar:
        for trial, reals, drawn in _lessons(config, pool, [trial for trial in trials if trial.key not in done]):
            network = learn(
                reals, drawn, config.classic if trial.condition in ("classic", "both") else None, config.classifier,
                seed=config.seed + SEEDS_APART * trial.chosen.repeat, device=device,
            )  # fmt: skip
            done[trial.key] = Accuracy(*trial.key, accuracy(network, held_out, labels, device))
            _write(path, list(done.values()))
            bar.update()
    return [done[trial.key] for trial in trials]


def _lessons(config: GainConfig, pool: Pool, trials: list[Trial]) -> Iterator[tuple[Trial, Lesson, Lesson | None]]:
    """Images that each learns from; drawn ones are read once for neighbours that share them."""
    read: tuple[object, Lesson | None] = (None, None)
    for trial in trials:
        chosen, key = trial.chosen, (trial.chosen, trial.kind, trial.point)
        if read[0] != key:
            drawn = None
            if trial.kind is not None and trial.point is not None:
                drawn = drawn_of(config, chosen, trial.kind, trial.point, pool.num_classes)
            read = (key, drawn)
        yield trial, _reals(config, pool, chosen), read[1]


def _reals(config: GainConfig, pool: Pool, chosen: Set) -> Lesson:
    places = choose_labelled(pool.images.labels, chosen.size, seed=config.seed, repeat=chosen.repeat)
    return lesson_of(pool.images.images[places], pool.images.labels[places], pool.num_classes)


def labels_kept(config: GainConfig, pool: Pool, points: Points, device: torch.device) -> list[Share]:
    """Share of drawn images at each t, with the main K, that a classifier takes for the label that they have (of a
    blend: its larger part). It learnt from all images and labels that are not held out: it explains the tables, it is
    no part of them.

    Returns: of each number of labelled images, kind and t; seeds are taken together.
    """
    path = Path(config.output_dir) / "labels_kept.json"
    done = [Share(**row) for row in json.loads(path.read_text())] if path.exists() else []
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
        write_json(path, [dataclasses.asdict(row) for row in done])
    return [row for key in wanted for row in done if (row.size, row.kind, row.start) == key]


def _share_of(
    config: GainConfig, pool: Pool, network: nn.Module, size: int, kind: Kind, start: int, device: torch.device
) -> Share:
    right = []
    for repeat in range(config.num_seeds):
        drawn = drawn_of(config, Set(size, repeat), kind, (start, config.drawing.num_per_image), pool.num_classes)
        right.append(found_classes(network, drawn.images, device) == drawn.targets.argmax(1))
    return Share(size, kind, start, float(torch.cat(right).double().mean()))


def _kept(path: Path) -> list[Accuracy]:
    return [Accuracy(**row) for row in json.loads(path.read_text())] if path.exists() else []


def _write(path: Path, rows: list[Accuracy]) -> None:
    write_json(path, [dataclasses.asdict(row) for row in rows])

"""The tests, each kept as a JSON file once it was made: one digit against the others, and planted defects."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.anomalies import runs
from benchmarks.anomalies.baselines import Scored
from benchmarks.anomalies.defects import ON_COLOUR, ON_DIGITS, plant
from benchmarks.anomalies.judges import judge_of
from benchmarks.anomalies.methods import DECIDING, Verdicts, part_of, verdicts
from benchmarks.anomalies.sets import NUM_DIGITS, Parts, Sizes, together
from fastddpm.measures.auroc import detection

NUM_SHOWN = 4
"""images with a defect of each kind that are kept for the figures"""


def one_class(parts: Sequence[Parts], work: Path, seeds: Sequence[int], sizes: Sizes) -> None:
    """Each digit as the normal one, each of the others as an anomaly, for the runs that are finished."""
    for seed in seeds:
        for digit in range(NUM_DIGITS):
            task = runs.one_class(digit, seed, sizes)
            run, path = runs.folder_of(task, work), kept(work, "one-class", task.name)
            if path.exists() or not runs.is_finished(run):
                continue
            images, truth = against_the_rest(parts, digit, seed, sizes)
            judge = judge_of(f"digit{digit}", parts[digit], work, sizes)
            said = verdicts(run, judge, parts[digit], images, images_seen=task.images_seen, seed=seed, sizes=sizes)
            methods = {
                name: detection(found.scores, truth, resamples=sizes.resamples).row()
                for name, found in said.by_method.items()
            }
            write(path, {"digit": digit, "seed": seed, "facts": said.facts, "methods": methods})


def against_the_rest(parts: Sequence[Parts], digit: int, seed: int, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Held-out images of a digit and of all others, and which are of the others."""
    rng = np.random.default_rng([3, seed, digit])
    chosen = [
        rng.permutation(part.test)[: sizes.test_normals if other == digit else sizes.test_others]
        for other, part in enumerate(parts)
    ]
    truth = [np.full(len(images), other != digit) for other, images in enumerate(chosen)]
    return torch.from_numpy(np.concatenate(chosen)), torch.from_numpy(np.concatenate(truth))


def planted(parts: Sequence[Parts], colour: Parts | None, work: Path, seeds: Sequence[int], sizes: Sizes) -> None:
    """Defects in held-out images, against untouched other ones, for the runs that are finished."""
    for seed in seeds:
        cases: list[tuple[runs.Task, Parts, str, tuple[str, ...]]] = [
            (runs.everything(seed, sizes), together(list(parts)), "digits", ON_DIGITS)
        ]
        if colour is not None:
            cases.append((runs.colour(seed, sizes), colour, "colour", ON_COLOUR))
        for task, normal, name, kinds in cases:
            run, path = runs.folder_of(task, work), kept(work, "planted", task.name)
            if path.exists() or not runs.is_finished(run):
                continue
            images, masks = with_defects(normal, kinds, seed, sizes)
            judge = judge_of(name, normal, work, sizes)
            said = verdicts(run, judge, normal, images, images_seen=task.images_seen, seed=seed, sizes=sizes)
            by_kind = {
                kind: measured(said.by_method, masks, places, sizes.resamples)
                for kind, places in of_kinds(kinds, sizes)
            }
            _keep_examples(path.with_suffix(".npz"), said, images, masks, kinds, sizes)
            write(path, {"set": name, "seed": seed, "facts": said.facts, "kinds": by_kind})


def with_defects(normal: Parts, kinds: Sequence[str], seed: int, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Untouched held-out images, then others, the same for each kind, with a defect of it; and all masks."""
    count = sizes.test_normals
    order = np.random.default_rng([4, seed]).permutation(len(normal.test))[: 2 * count]
    untouched, others = normal.test[order[:count]], normal.test[order[count:]]
    made = [plant(kind, others, seed=seed) for kind in kinds]
    nowhere = np.zeros((count, *others.shape[2:]), dtype=bool)
    images = np.concatenate([untouched, *(each.images for each in made)])
    return torch.from_numpy(images), torch.from_numpy(np.concatenate([nowhere, *(each.masks for each in made)]))


def of_kinds(kinds: Sequence[str], sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    """The places of the untouched images and of those with each kind of defect."""
    count = sizes.test_normals
    for number, kind in enumerate(kinds, start=1):
        yield kind, torch.cat([torch.arange(count), torch.arange(number * count, (number + 1) * count)])


def measured(by_method: dict[str, Scored], masks: Tensor, places: Tensor, resamples: int) -> dict[str, Any]:
    """Rows of `detection` of some of the images, by method."""
    truth = masks[places].any(dim=(1, 2))
    rows = {}
    for name, scored in by_method.items():
        found = part_of(scored, places)
        where = None if found.maps is None else masks[places]
        rows[name] = detection(found.scores, truth, found.maps, where, resamples=resamples).row()
    return rows


def _keep_examples(
    path: Path, said: Verdicts, images: Tensor, masks: Tensor, kinds: Sequence[str], sizes: Sizes
) -> None:
    """The first untouched image and the first of each kind, not chosen, for the figures."""
    count, shown = sizes.test_normals, min(NUM_SHOWN, sizes.test_normals)
    places = torch.cat([torch.arange(first * count, first * count + shown) for first in range(len(kinds) + 1)])
    scored = said.by_method[DECIDING]
    assert scored.maps is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, images=images[places], masks=masks[places], maps=scored.maps[places], scores=scored.scores[places],
        normal_maps=scored.maps[:count],
    )  # fmt: skip


def kept(work: Path, test: str, name: str) -> Path:
    """Where what was measured is."""
    return work / "measured" / test / f"{name}.json"


def write(path: Path, row: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(row, indent=1) + "\n")
    temporary.replace(path)
    print(path, flush=True)


def all_kept(work: Path, test: str) -> list[dict[str, Any]]:
    """What was measured of a test, by name."""
    return [json.loads(path.read_text()) for path in sorted((work / "measured" / test).glob("*.json"))]

"""The DCGAN as a fair opponent: several ways to train it, each tried for a share of the budget, the best one trained to
the end of it, and of its two states the better one taken."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from fastddpm.files import write_json
from fastddpm.process import say
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.studies.dcgan.training import train_dcgan
from fastddpm.studies.paper.budget import Length
from fastddpm.studies.paper.drawings import draw_samples
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.verbs.sample.formats import images_in

Score = Callable[[np.ndarray], float]
"""score of samples, (N, C, H, W) uint8: lower is better"""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to train it."""

    name: str
    settings: dict[str, Any]
    """settings that differ from the config"""
    images_seen: int
    fid: float
    """after its share of the budget"""


@dataclasses.dataclass(frozen=True)
class Opponent:
    """State that stands for the DCGAN."""

    trials: list[Candidate]
    chosen: str
    """name of the trial with the lowest FID"""
    images_seen: int
    """length of the state that is compared: the trial's, or that after the whole budget"""
    images_seen_at_the_end: int
    """after the whole budget"""
    fid_at_the_end: float
    samples: np.ndarray
    """(N, C, H, W), uint8"""
    run: Path


def find_opponent(
    config: ReproductionConfig,
    runs: Mapping[str, DCGANConfig],
    found: Mapping[str, Length],
    folder: Path,
    score: Score,
    space: str,
) -> Opponent:
    """Try, choose, train to the end; every process calls it. What was done before stays.

    Args:
        runs: name -> how it is trained.
        found: name -> how many images the whole budget is.
        folder: of the samples and the record of the trials.
        space: which features scores are in; those of another one compare with nothing here.
    Raises: ValueError: the trials in the folder were scored in other features.
    """
    state, record = PartialState(), folder / "trials.json"
    state.wait_for_everyone()  # all look before anyone writes
    if record.exists():  # the best one's run has gone on since
        kept = json.loads(record.read_text())
        if kept["features"] != space:
            raise ValueError(
                f"the DCGAN's settings in {record} were compared in other features than those of now; put the judge or "
                f"--features file back, or choose another --out"
            )
        trials = [Candidate(**row) for row in kept["trials"]]
    else:
        trials = []
        for place, (name, run) in enumerate(runs.items()):
            images = max(1, round(found[name].num_images_seen * config.dcgan.trial))
            say(state, f"DCGAN {place + 1} of {len(runs)}: {name}")
            train_dcgan(_of_length(run, images))
            fid = score(draw_samples(config, Path(run.output_dir), folder / f"trial-{name}.npz"))
            trials.append(Candidate(name, dict(config.dcgan.settings[name]), images, fid))
        trials = broadcast_object_list([trials])[0]  # CPUs of two kinds may round to two best ones
        if state.is_main_process:
            write_json(record, {"features": space, "trials": [dataclasses.asdict(trial) for trial in trials]})
        state.wait_for_everyone()
    best = min(trials, key=lambda trial: trial.fid)
    run = runs[best.name]
    total = max(found[best.name].num_images_seen, best.images_seen)
    train_dcgan(_of_length(run, total))
    at_end = draw_samples(config, Path(run.output_dir), folder / "dcgan-at-the-end.npz")
    end = score(at_end)
    seen, samples = total, at_end
    if best.fid < end:
        seen, samples = best.images_seen, images_in(folder / f"trial-{best.name}.npz", [])
    return Opponent(trials, best.name, seen, total, end, samples, Path(run.output_dir))


def _of_length(run: DCGANConfig, images: int) -> DCGANConfig:
    return dataclasses.replace(run, train=dataclasses.replace(run.train, num_images_seen=images))

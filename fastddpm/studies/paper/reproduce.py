"""`fastddpm reproduce`: train both models, draw the figures, measure the claims, write the report."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from accelerate import PartialState

from fastddpm.agreement import check_alike
from fastddpm.config import RunConfig, dotted, load_config, load_config_of
from fastddpm.data import load_splits
from fastddpm.data.named_pictures import NamedImages, named_images
from fastddpm.measures.fidelity import scores
from fastddpm.measures.similarity import MIN_SIDE
from fastddpm.measures.unlabelled_judge import MIN_SIDE as LEAST_SIDE
from fastddpm.process import borrowed_process, device_name, join_processes, say, versions
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.studies.paper.budget import lengths
from fastddpm.studies.paper.claims import measure
from fastddpm.studies.paper.dcgan_trials import find_opponent
from fastddpm.studies.paper.drawings import draw, see
from fastddpm.studies.paper.page import lines_of, write
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.training import train
from fastddpm.training.folder import claimed, is_finished
from fastddpm.training.near_copies import Originals
from fastddpm.verbs.evaluate.feature_space import FeatureSpace
from fastddpm.verbs.evaluate.train_judge import save_judge, train_judge
from fastddpm.verbs.sample.formats import save_source

STAGES = ("speed of training", "the DDPM", "the judge", "the DCGAN", "pictures", "claims")


def reproduce(config: ReproductionConfig) -> Path:
    """Train, draw, measure, report; every process of a launcher calls it. Started again, it goes on where it was.

    Returns: the folder with report.html and report.json.
    Raises: ValueError: images or settings that do not fit; another reproduction in the folder.
    """
    folder = Path(config.output_dir)
    with borrowed_process():
        state = join_processes(config.num_threads, None)
        check_alike(state, config)
        with state.main_process_first():  # it reads the source in
            check(config, state)  # before anything is written
        with claimed(folder, state, config, "reproduction", HARMLESS):
            _reproduce(config, folder, state)
    return folder


def _reproduce(config: ReproductionConfig, folder: Path, state: PartialState) -> None:
    ddpm, dcgans = runs_of(config)
    run, seed = Path(ddpm.output_dir), config.seed

    _say(state, 1, f"{config.budget} for each model")
    named: dict[str, RunConfig | DCGANConfig] = {"ddpm": ddpm}
    named |= {f"dcgan-{name}": other for name, other in dcgans.items()}
    found = lengths(folder / "lengths.json", named, config.budget_seconds)
    state.wait_for_everyone()

    _say(state, 2, f"{found['ddpm'].num_images_seen:,} images")
    if not is_finished(run):
        length = dataclasses.replace(ddpm.train, num_images_seen=found["ddpm"].num_images_seen)
        train(dataclasses.replace(ddpm, train=length))

    _say(state, 3, config.features or "trained on held-out images")
    held_out = named_images(f"{run}:held_out", most=int(ddpm.data.num_held_out), seed=seed)
    reals = held_out.images[: config.measure.num_reals]
    if state.is_main_process and not (folder / "reals.npz").exists():
        save_source(folder / "reals.npz", reals)
    judge = _judge(config, held_out, folder, state)
    classifier = space = FeatureSpace(judge, held_out.image_shape, state)
    if config.features is not None:
        space = FeatureSpace(Path(config.features), held_out.image_shape, state)
    of_reals = space.of_reals(reals, "reals")

    _say(state, 4, f"{len(dcgans)} ways to train it, {config.dcgan.trial:.0%} of the budget each, then the best one")
    opponent = find_opponent(
        config, dcgans, {name: found[f"dcgan-{name}"] for name in dcgans}, folder,
        lambda images: scores(space.of(images, "samples"), of_reals, resamples=0).fid, space.sha256,
    )  # fmt: skip

    _say(state, 5, "samples, variations, blends")
    drawings = draw(config, run, folder / "reals.npz", folder, opponent.samples)

    _say(state, 6, "numbers and the report")
    seen = see(drawings, of_reals, space, classifier)
    if state.is_main_process:
        originals = Originals.of_folder(run, held_out.image_shape, state.device)
        facts = {
            "device": device_name(state.device), "num_processes": state.num_processes, "versions": versions(),
            "training": dict(originals.facts), "held_out": dict(held_out.facts),
            "features": {"name": space.name, "sha256": space.sha256, "description": space.description, **space.facts},
            "classifier": dict(classifier.facts),
        }  # fmt: skip
        measured = measure(config, drawings, seen)
        copies = originals.row(originals.judge(drawings.samples))
        write(config, facts, opponent, drawings, measured, copies)
        print("\n".join(lines_of(measured)))
        print(f"report: {folder / 'report.html'}")
    state.wait_for_everyone()


HARMLESS = ("output_dir", "num_threads", "title")


def _judge(config: ReproductionConfig, held_out: NamedImages, folder: Path, state: PartialState) -> Path:
    """The file of a network trained on the held-out images that nothing else uses: for features, if none are given, and
    for classes, if there are labels."""
    path, first = folder / "judge.safetensors", config.measure.num_reals
    count = len(held_out.images) - first
    if state.is_main_process and not path.exists():
        labels = None if held_out.labels is None else held_out.labels[first:]
        save_judge(
            train_judge(
                held_out.images[first:], labels, held_out.label_names, min(config.measure.num_judged, count // 4),
                epochs=config.measure.judge_epochs, num_steps=config.measure.judge_steps, seed=config.seed,
                device=state.device, show_progress=state.is_main_process,
            ),
            path,
        )  # fmt: skip
    state.wait_for_everyone()
    return path


def _say(state: PartialState, stage: int, what: str) -> None:
    say(state, f"[{stage}/{len(STAGES)}] {STAGES[stage - 1]}: {what}")


def runs_of(config: ReproductionConfig) -> tuple[RunConfig, dict[str, DCGANConfig]]:
    """The DDPM's training and the DCGAN's, by name of its settings; lengths are those of their files."""
    folder = Path(config.output_dir)
    shared: dict[str, Any] = {f"data.{name}": value for name, value in config.data.items()}
    shared |= {"data.source": config.source, "seed": config.seed}
    if config.num_threads is not None:
        shared["train.num_threads"] = config.num_threads
    own = {**dotted(config.ddpm.overrides), "output_dir": str(folder / "ddpm")}
    ddpm = load_config(config.ddpm.config, {**shared, **own})
    dcgans = {}
    for name, settings in config.dcgan.settings.items():
        own = {**dotted(settings), "output_dir": str(folder / f"dcgan-{name}")}
        dcgans[name] = load_config_of(DCGANConfig, config.dcgan.config, {**shared, **own})
    return ddpm, dcgans


def check(config: ReproductionConfig, state: PartialState) -> None:
    """Every process calls it; the main one warns.

    Raises: ValueError: settings, images or features that do not fit.
    """
    ddpm, _ = runs_of(config)
    splits = load_splits(ddpm.data, seed=config.seed, show_progress=state.is_main_process)
    shape = splits.train.image_shape
    has_classes = (splits.train.num_classes or 0) > 1
    least, what = (MIN_SIDE, "their structural similarity") if has_classes else (LEAST_SIDE, "a judge without labels")
    if min(shape[1:]) < least:
        raise ValueError(f"images are {shape[2]}x{shape[1]}; {what} needs at least {least}x{least}")
    if config.features is None:
        return
    measure = config.measure
    count = FeatureSpace(Path(config.features), shape, state).count
    fewest = min(measure.num_samples, measure.num_from_data, measure.num_reals)
    if fewest <= count and state.is_main_process:
        logging.getLogger(__name__).warning(
            "%d images are scored in %d features, too few for a FID: figures %d and %d will end as 'cannot tell'; "
            "raise measure.num_samples and measure.num_from_data above %d, and measure.num_reals to twice of that",
            fewest, count, config.figure_from_data, config.figure_of_dcgan, count,
        )  # fmt: skip

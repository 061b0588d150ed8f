"""`fastddpm evaluate augmentation`: choose labelled images, train generators, draw, train classifiers, write it up."""

from collections.abc import Mapping
from pathlib import Path

from accelerate import PartialState

from fastddpm.config import RunConfig
from fastddpm.data import Splits, load_splits
from fastddpm.process import borrowed_process, device_name, join_processes, versions
from fastddpm.studies.augmentation.generators import (
    Points,
    check,
    data_of,
    draw,
    file_of,
    files_of,
    run_of,
    run_of_all,
    train_generator,
)
from fastddpm.studies.augmentation.learning import build_classifier
from fastddpm.studies.augmentation.measuring import Pool, labels_kept, measure
from fastddpm.studies.augmentation.page import write
from fastddpm.studies.augmentation.settings import GainConfig, Kind
from fastddpm.studies.augmentation.subsets import Labelled, Set, choose_labelled, parts_of, save_labelled, sets_of
from fastddpm.training.folder import claimed

STAGES = ("labelled images", "generators", "drawn images", "classifiers", "report")
HARMLESS = ("output_dir", "num_threads", "title", "drawing.micro_batch_size")


def evaluate_augmentation(config: GainConfig) -> Path:
    """Measure what augmentation gains. Started again, it goes on where it was.

    Returns: the folder with gain.html and gain.json.
    Raises: ValueError: images or settings that do not fit, or several processes, before anything is trained; another
        measurement in the folder.
    """
    folder = Path(config.output_dir)
    with borrowed_process():
        state = join_processes(config.num_threads, None)
        if state.num_processes > 1:
            raise ValueError(
                f"got {state.num_processes} processes, and the classifiers are trained on one; start it without a "
                f"launcher, as `fastddpm evaluate augmentation`"
            )
        splits = _splits(config)
        images, held_out = parts_of(splits, config.num_labelled)
        check(config, splits.train.image_shape)
        pool = Pool(images, held_out, splits.train.num_classes or 0)
        with claimed(folder, state, config, "measurement", HARMLESS):
            _evaluate(config, pool, splits.train.image_shape, state)
    return folder


def _splits(config: GainConfig) -> Splits:
    """The images; what is wrong with them is said by the names that they have here."""
    try:
        return load_splits(data_of(config), seed=config.seed)
    except ValueError as error:
        text = str(error).replace("--data.num_held_out", "--num_held_out")
        raise ValueError(text.replace("--data.num_images", "--num_unlabelled")) from error


def _evaluate(config: GainConfig, pool: Pool, image_shape: tuple[int, int, int], state: PartialState) -> None:
    sets = sets_of(config.num_labelled, config.num_seeds)
    _say(1, f"{len(sets)} sets of {', '.join(f'{size:,}' for size in config.num_labelled)}")
    for chosen in sets:
        places = choose_labelled(pool.images.labels, chosen.size, seed=config.seed, repeat=chosen.repeat)
        save_labelled(file_of(config, chosen), Labelled(pool.images.images[places], pool.images.labels[places]))

    runs: dict[tuple[Set, Kind], RunConfig] = {(chosen, "own"): run_of(config, chosen) for chosen in sets}
    if (of_all := run_of_all(config)) is not None:  # draws for all of them, and is trained last
        runs |= {(chosen, "all"): of_all for chosen in sets}
    distinct = {run.output_dir: run for run in runs.values()}
    _say(2, f"{len(distinct)} trainings")
    for place, run in enumerate(distinct.values()):
        print(f"generator {place + 1} of {len(distinct)}: {Path(run.output_dir).name}", flush=True)
        train_generator(run)

    network = build_classifier(image_shape[0], pool.num_classes, config.classifier.width)
    facts = {
        "num_held_out": len(pool.held_out.labels),
        "num_pool": len(pool.images.labels),
        "classifier_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "device": device_name(state.device),
        "versions": versions(),
    }
    tables: Points = {size: [config.drawing.main] for size in config.num_labelled}
    plots: Points = {size: config.drawing.points(size) for size in config.num_labelled}
    for points, what in ((tables, "for the tables"), *([] if plots == tables else [(plots, "for the plots")])):
        _say(3, what)
        _draw(config, runs, points)
        _say(4, f"{what}, {config.classifier.num_steps} steps each")
        rows = measure(config, pool, points, state.device)
        kept = labels_kept(config, pool, points, state.device)
        _say(5, what)
        print("\n".join(write(config, facts, list(distinct.values()), points, rows, kept)), flush=True)


def _draw(config: GainConfig, runs: Mapping[tuple[Set, Kind], RunConfig], points: Points) -> None:
    files = [(of, run, start) for of, run in runs.items() for start in files_of(points[of[0].size])]
    for place, ((chosen, kind), run, start) in enumerate(files):
        print(f"file {place + 1} of {len(files)}: {chosen.name}, model {kind}, t = {start}", flush=True)
        draw(config, chosen, kind, run, start)


def _say(stage: int, what: str) -> None:
    print(f"[{stage}/{len(STAGES)}] {STAGES[stage - 1]}: {what}", flush=True)

"""The folder of a run: one job at a time, and never another run than the one that is there."""

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

from fastddpm import files, report
from fastddpm.config import RunConfig, differences, load_config_of, to_yaml
from fastddpm.config.bounded_text import read_facts
from fastddpm.config.reading import checked
from fastddpm.data import KeptPictures, Splits, contact_sheet, load_kept, summary
from fastddpm.kernels.philox import LAYOUT_VERSION
from fastddpm.process import say
from fastddpm.training import checkpoint
from fastddpm.training.metrics import MetricsLog


class RunFolder(type(Path())):  # type: ignore[misc]  # before Python 3.12 `Path` itself has no subclasses
    """The path of a run's folder; as the last line of a notebook's cell it is the run's samples."""

    def _repr_png_(self) -> bytes | None:
        picture = self / "samples.png"
        return picture.read_bytes() if picture.is_file() else None


def newest_of_all(folder: Path, accelerator: Accelerator) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a run and its manifest, the same on all ranks; None: it has none. Every rank calls
    it, the main one removes what is half-written and looks through the files.

    Raises: CorruptCheckpointError: not one is whole. ValueError: a rank does not see what the main one found, as on
        machines that share no folder.
    """
    root = folder / "checkpoints"
    if accelerator.is_main_process:
        checkpoint.clean(root)
    found = checkpoint.newest(root) if accelerator.is_main_process else None
    of_main = broadcast_object_list([None if found is None else (found[0].name, found[1])])[0]
    if of_main is None:
        return None
    name, manifest = of_main
    if not (root / name).is_dir():
        raise ValueError(
            f"rank {accelerator.process_index} finds no {name} in {root}, where rank 0 does; put --out on a "
            f"folder that all machines share"
        )
    return root / name, manifest


def check_same_run(
    config: Any, folder: Path, splits: Splits, manifest: dict[str, Any], accelerator: Accelerator
) -> None:
    """Check that a run may go on with this config, on these processes; say what is harmless.

    Raises: ValueError: other images, another layout of random numbers, or settings that matter.
    """
    now = facts_of(config, splits, accelerator)
    if manifest["noise_layout"] != now["noise_layout"]:
        raise ValueError(
            f"the layout of random numbers of the run in {folder} is another ({manifest['noise_layout']!r}, now "
            f"{now['noise_layout']!r}); {ways_on(config, folder)}"
        )
    _check_settings(config, folder, manifest, accelerator)
    if splits.kept is None and manifest["data"] != now["data"]:
        raise ValueError(
            f"{config.data.source} holds {len(splits.train.source.images)} images, and they are not those of the run "
            f"in {folder}, which kept no list of them (before version 0.2); {ways_on(config, folder)}"
        )
    is_elastic = isinstance(config, RunConfig) and config.train.determinism == "elastic"
    if manifest["world_size"] != now["world_size"] or manifest["num_threads"] != now["num_threads"]:
        means = (
            "to the same bits (train.determinism elastic)"
            if is_elastic and manifest["num_threads"] == now["num_threads"]
            else "same samples and noise, but sums round differently, and BatchNorm sees other micro-batches unless "
            "train.micro_batch_size is set"
        )
        say(
            accelerator,
            f"the run was on {manifest['world_size']} processes of {manifest['num_threads']} threads, is now on "
            f"{now['world_size']} of {now['num_threads']}: {means}",
        )
    for name in ("mixed_precision", "versions"):
        if manifest[name] != now[name]:
            say(accelerator, f"{name} was {manifest[name]}, is now {now[name]}: results will round differently")


def _check_settings(config: Any, folder: Path, manifest: dict[str, Any], accelerator: Accelerator) -> None:
    """Compare with the settings in the manifest, or in config.yaml where it has none; the place of the pictures is no
    matter, since they are compared themselves."""
    is_elastic = isinstance(config, RunConfig) and config.train.determinism == "elastic"
    kept, kind = manifest.get("config"), type(config)
    before = load_config_of(kind, folder / "config.yaml") if kept is None else checked(kind, kept)
    changed = differences(before, config)
    refused = [
        f"{name} was {old!r}, now {new!r}"
        for name, old, new, harmless in changed
        if not (harmless or name == "data.source") or (is_elastic and name == "train.micro_batch_size")
    ]
    if refused:
        raise ValueError(
            f"the run in {folder} was started with other settings: {'; '.join(refused)}; {ways_on(config, folder)}"
        )
    for name, old, new, _ in changed:
        say(accelerator, f"{name} was {old!r}, now {new!r}")


def ways_on(config: Any, folder: Path) -> str:
    """Name what to do about a run that may not go on as it is asked to."""
    weights = f" --model.init_from {folder}, which takes its weights along" if isinstance(config, RunConfig) else ""
    return f"go on as it was, or begin anew in another --out{weights and ' with'}{weights}"


def splits_of(config: Any, *, is_main_process: bool) -> Splits:
    """Pictures of a run: as the one in the folder kept them, or drawn.

    Raises: ValueError: see `load_kept`.
    """
    folder = Path(config.output_dir)
    is_new = not any((folder / "checkpoints").glob("step-*"))
    kept = None if is_new else KeptPictures.read(folder)
    data = config.data if is_new or kept is not None else replace(config.data, group="none")  # as before version 0.2
    has_classes = isinstance(config, RunConfig) and config.model.class_conditional
    ways = f"{ways_on(config, folder)}, or let it go on with these: --data.allow_change true"
    return load_kept(data, kept, ways, seed=config.seed, keeps_classes=has_classes, show_progress=is_main_process)


def resume(config: Any, folder: Path, splits: Splits, state: Any, log: MetricsLog, accelerator: Accelerator) -> None:
    """Go on with the run in the folder, if there is one, and keep the config there; every rank calls it.

    Args:
        state: reads a checkpoint's folder, and has a `step` then.
    Raises: ValueError: a run that may not go on, or is without its checkpoints.
    """
    found = newest_of_all(folder, accelerator)
    if found is None and (folder / "model_index.json").exists():
        raise ValueError(
            f"{folder} holds a finished run without its checkpoints; put them back, or choose another --out"
        )
    if found is not None:
        path, manifest = found
        if getattr(config.train, "resume", "auto") == "never":
            raise ValueError(
                f"{folder} holds a run at step {manifest['step']}; use train.resume auto, or another --out"
            )
        check_same_run(config, folder, splits, manifest, accelerator)
        state.read(path)
        say(accelerator, f"going on from step {state.step} in {folder}")
    accelerator.wait_for_everyone()
    log.cut_off_after(state.step)
    if accelerator.is_main_process:
        pictures = KeptPictures.of(splits, config.data.source)
        before = None if found is None else KeptPictures.read(folder)
        if before is None or before.facts != pictures.facts:
            pictures.write(folder)
        once = replace(config, data=replace(config.data, allow_change=False))
        files.write_text(folder / "config.yaml", to_yaml(once))


def save(config: Any, folder: Path, splits: Splits, state: Any, accelerator: Accelerator, keep: int) -> None:
    """Commit a checkpoint; every rank calls it, the main one writes."""
    if accelerator.is_main_process:
        facts = facts_of(config, splits, accelerator)
        checkpoint.commit(folder / "checkpoints", state.step, state.write, facts, keep=keep)
    accelerator.wait_for_everyone()


def facts_of(config: Any, splits: Splits, accelerator: Accelerator) -> dict[str, Any]:
    """Facts of a run for a checkpoint's manifest."""
    return {
        "config": json.loads(json.dumps(asdict(config))),
        "data": splits.fingerprint,
        "noise_layout": LAYOUT_VERSION,
        "world_size": accelerator.num_processes,
        "num_threads": torch.get_num_threads(),
        "mixed_precision": accelerator.mixed_precision,
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[Path]:
    """One run a folder, which is made; every rank calls it."""
    with files.locked(folder, accelerator):
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
        accelerator.wait_for_everyone()
        yield folder


@contextmanager
def claimed(folder: Path, state: PartialState, config: Any, what: str, harmless: Sequence[str]) -> Iterator[None]:
    """Take a folder for work that is made of several runs, and keep its config (any dataclass) there; what is there
    already must be of the same one, but for settings that are `harmless`. Every rank calls it.

    Raises: ValueError: other work is there, or runs; `what` is its name in the message.
    """
    kept = folder / "config.yaml"
    with files.locked(folder, state):
        changed = differences(load_config_of(type(config), kept), config) if kept.exists() else []
        state.wait_for_everyone()  # all have looked before anyone writes
        refused = [f"{name} was {old!r}, now {new!r}" for name, old, new, _ in changed if name not in harmless]
        if refused:
            raise ValueError(
                f"{folder} holds a {what} with other settings: {'; '.join(refused)}; go on with those, or choose "
                f"another --out"
            )
        if state.is_main_process:
            files.write_text(kept, to_yaml(config))
        state.wait_for_everyone()
        yield


def is_finished(run: Path) -> bool:
    """True for a training run that has ended, its pictures and its page included."""
    about = run / "about.json"
    return about.exists() and read_facts(about).get("state") == "finished"


def write_data_report(splits: Splits, folder: Path) -> None:
    """Write the counts (see `data.summary`) and a sheet of images, one row per class where there are few classes."""
    files.write_text(folder / "data.json", json.dumps(summary(splits), indent=1, ensure_ascii=False) + "\n")
    rows = contact_sheet(splits.train)
    report.save_labelled_rows(rows, folder / "data.png", scale=max(1, round(64 / splits.train.image_shape[2])))

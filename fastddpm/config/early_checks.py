"""Refusals before anything is loaded: settings that the model's folder, the machine or the disk rule out."""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastddpm.config.bounded_text import read_facts
from fastddpm.config.checks import check_starts, check_steps, check_steps_from
from fastddpm.config.runs import FoundRun, find_run, is_run, section
from fastddpm.files import check_is_here

FOLDER = ""
_OUTS = {
    "sample": (FOLDER, ".png", ".npz", ".parquet"),
    "vary": (FOLDER, ".png", ".npz", ".parquet"),
    "cutmix": (FOLDER, ".png", ".npz", ".parquet"),
    "augment": (FOLDER, ".parquet"),
    "judge": (".safetensors",),
    "ledger": (".jsonl",),
}
"""verb -> what it writes at `out`; others: a folder"""
_FORMATS = (
    ".png", ".npz", ".parquet", ".jpg", ".jpeg", ".gif", ".webp", ".npy", ".zip", ".tar", ".h5", ".csv", ".json",
    ".jsonl", ".pt", ".safetensors", ".html",
)  # fmt: skip
"""endings that say a format; any other ending is part of a folder's name"""
_SPLITS = (":train", ":held_out")
_GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dri", "/dev/dxg")
"""devices of NVIDIA, AMD, Intel, and of Windows' Linux"""


def check_asked(verb: str, asked: Mapping[str, Any]) -> None:
    """Look through what a verb is asked for, in a moment.

    Args:
        asked: its settings by their names.
    Raises: ValueError: what cannot be.
    """
    out, data, train = asked.get("out", asked.get("output_dir")), asked.get("data"), asked.get("train")
    for option, place in (("out", out), ("figure", asked.get("figure")), ("data.cache_dir", _of(data, "cache_dir"))):
        if place is not None:
            check_is_here(place, f"--{option}")
    if out is not None:
        check_out(Path(out), _OUTS.get(verb, (FOLDER,)))
    for option, asked_for in (
        ("precision", asked.get("precision")),
        ("train.mixed_precision", _of(train, "mixed_precision")),
    ):
        if asked_for == "fp16" and has_no_gpu():
            raise ValueError(f"{option} fp16 needs a GPU and there is none; use --{option} auto")
    for word in _words_of(asked):
        run = next((word.removesuffix(split) for split in _SPLITS if word.endswith(split)), None)
        is_of_source = word.endswith(":train") and Path(run or "").exists() and not is_run(Path(run or ""))
        if run is not None and not Path(word).exists() and not is_of_source:
            find_run(run, may_be_on_hub=False)
            if not (Path(run) / "config.yaml").is_file():
                raise ValueError(
                    f"{run} is a saved pipeline, no run: it does not say which images it was trained on; name them"
                )
    if verb == "evaluate augmentation":
        check_installed(f"fastddpm {verb}", "datasets", "tables")
    if verb in ("ledger", "push"):
        folder = Path(asked.get("folder", asked.get("run")))
        holds_images = folder.suffix.lower() == ".parquet" or (folder / "metadata.jsonl").is_file()  # pushed too
        if not holds_images and not is_run(folder):
            find_run(folder, may_be_on_hub=False)
    elif verb == "evaluate" and is_run(Path(asked["samples"])):
        check_model("sample", find_run(asked["samples"]), asked)
    elif isinstance(asked.get("model"), str):
        check_model(verb, find_run(asked["model"]), asked)
        if verb == "detect" and asked.get("normal") is None and asked.get("calibration") is None:
            _check_held_out(asked["model"])


def check_installed(asked: str, package: str, extra: str, otherwise: str = "") -> None:
    """Raises: ValueError: a package that something needs is missing; names the extra that brings it."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{asked} needs the package {package}, which is not installed; run pip install 'fastddpm[{extra}]'"
            f"{otherwise}"
        )


def _of(section: Any, name: str) -> Any:
    """A setting of a section; None: this verb has no such section, or no such setting in it."""
    return getattr(section, name, None)


def check_out(out: Path, kinds: Sequence[str]) -> None:
    """Raises: ValueError: an address, a format that is not among `kinds`, or a place that something else takes."""
    endings = ", ".join(kind for kind in kinds if kind != FOLDER)
    files = f"a file that ends in {endings}" if endings else ""
    wanted = ", or ".join(["a folder"] * (FOLDER in kinds) + [files] * (files != ""))
    check_is_here(out)
    suffix = out.suffix.lower()
    if suffix not in kinds and (suffix in _FORMATS or FOLDER not in kinds):
        raise ValueError(f"--out is {out}; wanted {wanted}")
    if suffix == ".parquet":
        check_installed(f"--out {out}", "datasets", "tables", ", or write a folder")
    is_file = suffix in kinds and suffix != FOLDER
    if out.is_dir() if is_file else out.is_file():
        raise ValueError(f"--out is {out}, a {'folder' if is_file else 'file'} that is there; wanted {wanted}")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{above} is a file, where a folder was wanted; move it away, or choose another --out")


def has_no_gpu() -> bool:
    """True if it is sure, without torch, that there is no GPU of ours; `process.runs_on_cpu` decides."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on"):
        return True
    return sys.platform == "darwin" or (sys.platform == "linux" and not any(map(os.path.exists, _GPUS)))


def _check_held_out(model: str) -> None:
    """Raises: ValueError: a model that has no images to calibrate with."""
    config = Path(model) / "config.yaml"
    held_out = section(read_facts(config), "data").get("num_held_out", 0) if config.is_file() else 0
    if held_out == 0 and Path(model).is_dir():
        raise ValueError(
            f"{model} has no held-out images; say which images are normal, and were not trained on: --normal IMAGES"
        )


def check_model(verb: str, run: FoundRun, asked: Mapping[str, Any]) -> None:
    """Raises: ValueError: what this model does not have."""
    if run.kind == "dcgan" and verb != "sample":
        raise ValueError(f"{run.word} is a DCGAN, which only draws new images: use fastddpm sample")
    for name in ("class_label", "scheduler", "num_inference_steps"):
        if run.kind == "dcgan" and asked.get(name) is not None:
            raise ValueError(f"{run.word} is a DCGAN, which has no {name}; leave it out")
    if run.num_timesteps is None:
        return
    if asked.get("class_label") is not None:
        run.class_of(asked["class_label"])
    if asked.get("guidance_scale") not in (None, 1.0) and not run.knows_any_class:
        raise ValueError(
            f'guidance_scale is {asked["guidance_scale"]}, but {run.word} has no class for "any" to be guided away '
            "from: leave it out"
        )
    _check_chain(verb, run.num_timesteps, asked)


def _check_chain(verb: str, num_train: int, asked: Mapping[str, Any]) -> None:
    solver, steps = asked.get("scheduler"), asked.get("num_inference_steps")
    starts = asked.get("start_timesteps")
    if isinstance(starts, list | tuple | range):
        check_starts("start_timesteps", (starts[0], starts[-1]) if isinstance(starts, range) else starts, num_train)
    if verb == "sample" or asked.get("mode") == "samples":
        check_steps(solver, num_train, num_train if steps is None else steps, "num_inference_steps")
    elif verb in ("vary", "cutmix"):
        for start in asked["start_timesteps"]:
            check_steps_from(solver, num_train, start, steps)


def _words_of(asked: Mapping[str, Any]) -> list[str]:
    """Words of a request that may name a run's images."""
    found: list[str] = []
    for name in ("images", "partners", "data", "normal", "known", "samples", "reals", "training", "source"):
        value = asked.get(name)
        found += [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    return found

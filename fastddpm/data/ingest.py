"""Decode, check and fit every image once; every later run maps the cache.

<cache>/<key>/images.npy    (N, C, H, W), uint8
              labels.npy    (N,), int64, where the source has labels
              ingest.json   what was found, and the sha256 of each array file
"""

import hashlib
import json
import os
import shutil
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fastddpm.config import DataConfig
from fastddpm.data.decode import BadFileError, fit, to_array
from fastddpm.data.sources import Source, find_source

VERSION = 1
_NAMED = 20


@dataclass(frozen=True)
class ImageSet:
    """Checked images of one size.

    Attributes:
        images: (N, C, H, W), uint8, mapped from the cache.
        labels: (N,), int64; None: the source has none.
        label_names: name of each label.
        fingerprint: sha256 over the content of both arrays.
    """

    images: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...] | None
    fingerprint: str


def ingest(config: DataConfig, *, show_progress: bool = True) -> ImageSet:
    """The images a config names, from the cache or into it.

    Raises: ValueError: no such source, bad files (all of them named, unless skipped), sizes that differ, no images.
    """
    source = find_source(config.source)
    folder = cache_dir(config) / _key(config, source)
    if folder.exists():
        try:
            return _map(folder)
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(f"the image cache {folder} is damaged ({error}); it is made again", stacklevel=2)
            shutil.rmtree(folder, ignore_errors=True)
    arrays, report = _decode(config, source, show_progress)
    _commit(folder, arrays, report)
    return _map(folder)


def cache_dir(config: DataConfig) -> Path:
    """Where decoded images are kept."""
    given = config.cache_dir or os.environ.get("FASTDDPM_CACHE") or "~/.cache/fastddpm"
    return Path(given).expanduser()


def _key(config: DataConfig, source: Source) -> str:
    settings = [VERSION, config.image_size, config.channels, config.on_bad_file, config.max_bad_files]
    return hashlib.sha256("\n".join([*map(str, settings), *source.identity()]).encode()).hexdigest()[:24]


def _decode(config: DataConfig, source: Source, show_progress: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    images, labels, names, bad = [], [], [], []
    modes: dict[str, int] = {}
    for name, image, label in tqdm(source.items(), "reading images", len(source), disable=not show_progress, unit=""):
        if isinstance(image, BadFileError):
            bad.append(f"{name}: {image}")
            continue
        if image.mode == "RGB" and config.channels == 1:
            image = image.convert("L")
        modes[image.mode] = modes.get(image.mode, 0) + 1
        images.append(fit(image, config.image_size) if config.image_size else image)
        labels.append(label)
        names.append(name)
    _apply_policy(config, bad, len(images))
    _check_sizes([image.size for image in images], names)
    channels = config.channels or (1 if set(modes) == {"L"} else 3)
    arrays = {"images": np.stack([to_array(image, channels) for image in images])}
    if source.label_names is not None:
        arrays["labels"] = np.array(labels, dtype=np.int64)
    report = {
        "version": VERSION,
        "source": config.source,
        "shape": list(arrays["images"].shape),
        "modes": modes,
        "label_names": source.label_names,
        "bad_files": bad,
        "left_out": source.left_out(),
    }
    return arrays, report


def _apply_policy(config: DataConfig, bad: list[str], num_good: int) -> None:
    shown = "\n  ".join(bad[:_NAMED]) + (f"\n  and {len(bad) - _NAMED} more" if len(bad) > _NAMED else "")
    if bad and config.on_bad_file == "fail":
        raise ValueError(
            f"{len(bad)} of {len(bad) + num_good} files cannot be used:\n  {shown}\n"
            f"mend or remove them, or leave them out with --data.on_bad_file skip"
        )
    if len(bad) > config.max_bad_files:
        raise ValueError(f"{len(bad)} bad files are more than data.max_bad_files ({config.max_bad_files}):\n  {shown}")
    if bad:
        warnings.warn(f"{len(bad)} files are left out:\n  {shown}", stacklevel=2)
    if not num_good:
        raise ValueError("no image is left to train on; check data.source")


def _check_sizes(sizes: list[tuple[int, int]], names: list[str]) -> None:
    kinds = dict(reversed(list(zip(sizes, names, strict=True))))
    if len(kinds) > 1:
        some = ", ".join(f"{width}x{height} ({name})" for (width, height), name in list(kinds.items())[:3])
        raise ValueError(f"the images have {len(kinds)} sizes, such as {some}; give one with --data.image_size")


def _commit(folder: Path, arrays: dict[str, np.ndarray], report: dict[str, Any]) -> None:
    temporary = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        report["sha256"] = {name: _sha256(temporary / f"{name}.npy") for name in arrays}
        (temporary / "ingest.json").write_text(json.dumps(report, indent=1) + "\n")
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        os.rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.exists():  # otherwise another process was quicker, with the same images
            raise


def _map(folder: Path) -> ImageSet:
    report = json.loads((folder / "ingest.json").read_text())
    for name, expected in report["sha256"].items():
        if _sha256(folder / f"{name}.npy") != expected:
            raise ValueError(f"{name}.npy is not what was written")
    labels = np.load(folder / "labels.npy") if "labels" in report["sha256"] else None
    names = report["label_names"]
    return ImageSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=labels,
        label_names=None if names is None else tuple(names),
        fingerprint=hashlib.sha256(json.dumps(report["sha256"], sort_keys=True).encode()).hexdigest(),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Read a source once: check, decide on channels and size, decode, store; or map what is stored."""

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import store as cache
from fastddpm.data.cut_off import MUCH, cut_off
from fastddpm.data.fit import BLACK, Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.reading import Reading
from fastddpm.data.sources import WHOLE, Contents, Source, find_source, identity_of
from fastddpm.data.sources.kinds import check_kinds
from fastddpm.data.store_filling import Part, Tally
from fastddpm.files import cache_root, naming, write_text
from fastddpm.process import counted
from fastddpm.progress import progress_bar

VERSION = 6
"""version of the store; goes up when the same source would be stored otherwise"""

CUT_OFF = "cut_off.npy"
"""file in a store: see `cut_off`"""
_NUM_NAMED = 20
_SETTINGS = (
    "subset", "image_column", "label_column", "streaming", "layout", "group", "center_crop", "image_size", "fit",
    "channels", "background", "color_management", "draft", "value_range", "window",
)  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageSet(cache.Entry):
    """The same, with classes; the label of images whose class has none to train on is the number of classes."""

    label_names: tuple[str, ...] | None
    """the name of each class with an image in the first split, numbers by their size; there are names exactly if there
    are labels"""
    fingerprint: str
    """SHA-256, hexadecimal, of images, labels, copies and names"""
    splits: Mapping[str, range]
    """images that belong to each split"""


def ingest(config: DataConfig, *, show_progress: bool = True) -> ImageSet:
    """Map the images of `config.source`, after reading and storing them if that was not done before.

    Args:
        config: `num_images` and `num_held_out` play no part here, but for a stream: it ends when it has given as many.
        show_progress: False: no progress bar and no lines about files left out, as on all processes but one.
    Raises: ValueError: no such source, no usable image, images of several sizes without `image_size`, or bad files
        that `on_bad_file` and `max_bad_files` do not allow; each of those is named with its reason.
    """
    settings = {name: getattr(config, name) for name in _SETTINGS} | {
        "splits": [config.train_split, config.held_out_split]
    }
    if config.streaming:
        settings["limit"] = _limit(config)
    key = cache.key_of({"version": VERSION, "source": identity_of(config.source)} | settings)
    entry = _open_or_make(cache_root(config.cache_dir) / key, config, show_progress)
    _judge_bad_files(entry, config, show_progress)
    if (why := entry.facts["no_labels"]) and show_progress:
        _log.warning("labels are left alone: %s", why)
    names, labels, duplicates = _classes(entry)
    splits = {name: range(*bounds) for name, bounds in entry.facts["splits"].items()}
    fingerprint, changed = _fingerprint(entry.facts, names), {"labels": labels, "duplicates": duplicates}
    return ImageSet(**{**vars(entry), **changed}, label_names=names, fingerprint=fingerprint, splits=splits)


def _limit(config: DataConfig) -> int | None:
    return None if config.num_images is None else config.num_images + int(config.num_held_out)


def _open_or_make(folder: Path, config: DataConfig, show_progress: bool) -> cache.Entry:
    with suppress(cache.MissingEntry):  # damaged or not there: another process may be making it
        return cache.read_entry(folder)
    with cache.locked(folder):
        try:
            return cache.read_entry(folder)
        except cache.DamagedEntry as damage:
            _log.warning("the stored images in %s are damaged (%s): reading them in again", folder, damage)
        except cache.MissingEntry:
            pass
        _make(folder, config, show_progress)
        return cache.read_entry(folder)


def _classes(entry: cache.Entry) -> tuple[tuple[str, ...] | None, np.ndarray | None, np.ndarray]:
    """Names, labels and duplicates, as `ImageSet` has them."""
    stored, labels, duplicates = entry.facts["label_names"], entry.labels, entry.duplicates
    if stored is None or labels is None:
        return None, labels, duplicates
    first, end = next(iter(entry.facts["splits"].values()))
    here = np.concatenate([labels[first:end], duplicates[duplicates[:, 2] == 0, 1]])
    numbers = np.flatnonzero(np.bincount(here)).tolist()
    if all(map(str.isdecimal, stored)):
        numbers.sort(key=lambda number: (len(of := stored[number].lstrip("0")), of))
    names = tuple(stored[number] for number in numbers)
    if names != tuple(stored):
        new = np.full(len(stored), len(names))
        new[numbers] = np.arange(len(names))
        labels, duplicates = new[labels], np.column_stack([duplicates[:, 0], new[duplicates[:, 1]], duplicates[:, 2]])
    return names, labels, duplicates


def _fingerprint(manifest: Mapping[str, Any], label_names: tuple[str, ...] | None) -> str:
    hashes = {name: facts["sha256"] for name, facts in manifest["files"].items() if name not in (CUT_OFF, cache.NAMES)}
    names = None if label_names is None else list(label_names)
    content = {"files": hashes, "label_names": names, "splits": manifest["splits"]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _judge_bad_files(entry: cache.Entry, config: DataConfig, show_progress: bool) -> None:
    """Apply the policy; the store keeps the reasons, so that a second run says the same without decoding again."""
    bad, num_left = entry.facts["bad_files"], len(entry.images) + len(entry.duplicates)
    if bad and config.on_bad_file == "fail":
        raise ValueError(
            f"{_listed(config.source, bad, entry.folder)}\n"
            f"mend or remove them, or use --data.on_bad_file skip to go on with the other {num_left}"
        )
    if len(bad) > config.max_bad_files:
        raise ValueError(
            f"{_listed(config.source, bad, entry.folder)}\n"
            f"more than data.max_bad_files ({config.max_bad_files}): mend or remove them, or raise that limit"
        )
    if bad and show_progress:
        listed = _listed(config.source, bad, entry.folder)
        _log.warning("skipped %d of %d files; %s", len(bad), len(bad) + num_left, listed)


def _listed(source: str, bad: Mapping[str, str], folder: Path) -> str:
    """Bad files with their reasons: the first here, and where there are many, all in a file beside the store."""
    lines = [f"  {name} {reason}" for name, reason in bad.items()]
    title = f"{counted(len(bad), 'bad file')} in {source}:"
    if len(bad) <= _NUM_NAMED:
        return "\n".join([title, *lines])
    whole = folder.with_suffix(".bad_files.txt")
    try:
        write_text(whole, "\n".join([title, *lines]) + "\n")
    except OSError:  # a store that may only be read
        return "\n".join([title, *lines])
    return "\n".join([title, *lines[:_NUM_NAMED], f"  ... and {len(bad) - _NUM_NAMED} more, all of them in {whole}"])


# ------------------------------------------------------------------------------------------ reading in


def _make(folder: Path, config: DataConfig, show_progress: bool) -> None:
    source = find_source(config)
    if source.other_files and show_progress:
        some = ", ".join(source.other_files[:_NUM_NAMED])
        _log.warning("left out %s of other kinds, or not listed: %s", counted(len(source.other_files), "file"), some)
    contents = source.load()
    check_kinds(config.source, sum(of.count or 0 for of in contents.splits.values()), source.other_files)
    wanted = _wanted_splits(contents, config)
    facts = {"pillow": PIL.__version__, "stamps": source.stamps, "splits": wanted}
    with naming(folder):
        part = Part(folder.with_suffix(".part"), facts)
        try:
            image_shape = _read_all(part, source, contents, config, show_progress)
            part.finish()
        except ValueError:  # nothing of it can be used; a killed process, or a full disk, leaves it to go on with
            part.close()
            shutil.rmtree(part.folder, ignore_errors=True)
            raise
        finally:
            part.close()
    cache.commit(part.folder, folder, _facts(source, contents, part, image_shape, config))


def _wanted_splits(contents: Contents, config: DataConfig) -> list[str]:
    """The splits to read in: the one to train on, then the one that is held out, if it is another."""
    found = list(contents.splits)
    train = config.train_split or (found[0] if len(found) == 1 else "train")
    wanted = [train] if config.held_out_split in (None, train) else [train, str(config.held_out_split)]
    for name in wanted:
        if name not in found:
            has = f"has the splits {', '.join(found)}" if found != [WHOLE] else "has no named splits"
            raise ValueError(
                f"{config.source} {has}, wanted {name!r}; "
                + ("leave train_split and held_out_split out" if found == [WHOLE] else "set --data.train_split")
            )
    return wanted


def _read_all(
    part: Part, source: Source, contents: Contents, config: DataConfig, show_progress: bool
) -> tuple[int, int, int]:
    """Returns (C, H, W) of every stored image."""
    pictures = {name: contents.splits[name] for name in part.read}
    bar = progress_bar(unit="image", is_shown=show_progress, smoothing=0.05)  # gone before an error is said
    with bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit in `decode` is lower than Pillow's
        reading = Reading(part, pictures, bar, _limit(config) if config.streaming else None)
        if config.image_size is None or config.channels is None:
            reading.check(Meaning.of(config))
            _check_any_left(part.checked, config, part.folder)
        image_shape = part.image_shape or _image_shape(part, config)
        _check_space(part, pictures, image_shape, "--data.cache_dir" if config.cache_dir else "FASTDDPM_CACHE")
        fit = _fit(config, image_shape)
        reading.read(fit, image_shape)
        _check_any_left(part.read, config, part.folder)
        if _num_cut(Tally.sum(part.read.values()), fit) and not config.streaming:
            everything = (picture for of in pictures.values() for picture in of.start_at(0))
            part.put(CUT_OFF, cut_off(everything, fit, image_shape[1:]))
    return image_shape


def _fit(config: DataConfig, image_shape: tuple[int, int, int]) -> Fit:
    meaning = Meaning.of(config)
    return Fit(image_shape[0], config.size, config.fit, config.center_crop, config.background, meaning=meaning)


def _num_cut(seen: Tally, fit: Fit) -> int:
    return sum(count for size, count in seen.sizes.items() if fit.place(_sides(size)).lost > MUCH)


def _check_any_left(tallies: Mapping[str, Tally], config: DataConfig, folder: Path) -> None:
    for split, tally in tallies.items():
        if not tally.num_good:
            of = "" if split == WHOLE else f" of split {split}"
            listed = _listed(config.source, {name: reason for _, name, reason in tally.bad}, folder)
            raise ValueError(f"{listed}\nnone of the {tally.count} files{of} can be used; mend them or give others")


def _image_shape(part: Part, config: DataConfig) -> tuple[int, int, int]:
    seen = Tally.sum(part.checked.values())
    channels = config.channels or (3 if seen.num_colour else 1)
    if config.size is not None:
        return channels, *config.size
    if config.center_crop is not None:
        return channels, config.center_crop, config.center_crop
    if len(seen.sizes) > 1:
        some = ", ".join(f"{size} ({count})" for size, count in seen.sizes.most_common(5))
        more = ", ..." if len(seen.sizes) > 5 else ""
        smallest = min(min(_sides(size)) for size in seen.sizes)
        bad = {name: reason for _, name, reason in seen.bad}
        raise ValueError(
            (f"{_listed(config.source, bad, part.folder)}\nand " if bad else "")
            + f"{config.source} holds images of {len(seen.sizes)} sizes: {some}{more}; "
            f"fit them to one with --data.image_size, such as {smallest}"
        )
    width, height = _sides(next(iter(seen.sizes)))
    return channels, height, width


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _check_space(part: Part, pictures: Mapping[str, Any], image_shape: tuple[int, int, int], cache: str) -> None:
    """Raises: ValueError: the disk has no room for what is still to be stored."""
    left = sum((pictures[name].count or 0) - tally.count for name, tally in part.read.items())
    needed, free = max(0, left) * int(np.prod(image_shape)), shutil.disk_usage(part.folder).free
    if needed > free:
        raise ValueError(
            f"{part.folder.parent} has {free / 2**30:.2f} GiB free, {left:,} images of "
            f"{image_shape[2]}x{image_shape[1]} need {needed / 2**30:.2f} GiB; "
            f"free some, put {cache} elsewhere, or lower --data.image_size"
        )


def _facts(
    source: Source, contents: Contents, part: Part, image_shape: tuple[int, int, int], config: DataConfig
) -> dict[str, Any]:
    seen, first, bounds = Tally.sum(part.read.values()), 0, {}
    for name, count in part.num_images.items():
        bounds[name] = (first, first + count)
        first += count
    fit = _fit(config, image_shape)
    return {
        "version": VERSION,
        "pillow": PIL.__version__,
        "source": config.source,
        "settings": {name: getattr(config, name) for name in _SETTINGS},
        "stamps": source.stamps,
        "splits": bounds,
        "other_splits": [name for name in contents.splits if name not in bounds],
        "image_shape": image_shape,
        "num_images": first,
        "num_duplicates": seen.num_good - first,
        "num_label_conflicts": part.num_label_conflicts,
        "is_gray_in_colour": config.channels is None and seen.num_gray == seen.num_good,
        "images_of_label": part.images_of_label,
        "modes": dict(seen.modes.most_common()),
        "profiles": dict(seen.profiles.most_common(_NUM_NAMED)),
        "sizes": dict(seen.sizes.most_common(_NUM_NAMED)),
        "num_sizes": len(seen.sizes),
        "num_upscaled_over_2x": sum(n for size, n in seen.sizes.items() if min(fit.place(_sides(size)).scale) < 0.5),
        "num_cut_over_quarter": _num_cut(seen, fit),
        "padding": list(fit.background or BLACK) if fit.way == "pad" else None,
        "label_names": (contents.label_names or list(map(str, part.images_of_label))) if part.images_of_label else None,
        "layout": contents.layout,
        "has_defects": contents.has_defects,
        "no_labels": next((why for name in bounds if (why := contents.splits[name].no_labels)), part.no_labels),
        "bad_files": {name: reason for _, name, reason in seen.bad},
        "other_files": source.other_files,
    }

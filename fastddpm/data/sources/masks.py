"""Masks told from pictures, and the pictures that they are of, by the names of folders and files."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from fastddpm.data.sources.base import printable

_SPLITS = {"train": "training|train", "valid": "validation|valid|val|development|devel|dev|evaluation|eval",
           "test": "testing|test"}  # fmt: skip
_ANY_SPLIT = "|".join(_SPLITS.values())
_FILLING = r"[\W\d_]*(?:images?|imgs?|jpegimages|pictures?|photos?|datasets?|data|sets?|splits?)"
_SPLIT = {of: re.compile(rf"(?:{_FILLING}[\W_]+)?(?:{words})(?:{_FILLING})*(?:[\W_]*\d{{4}})?")
          for of, words in _SPLITS.items()}  # fmt: skip
_MASKS = re.compile(
    rf"(?:(?P<before>{_ANY_SPLIT})[\W_]*)?(?:{_FILLING}[\W_]*)?"
    r"(?:(?P<surely>masks?|ground[\W_]*truths?)|gts?|segmentations?(?:class|object)?|annotations?|labels?)"
    rf"(?:{_FILLING})*(?:[\W_]*(?P<after>{_ANY_SPLIT}))?"
)
_STEM = re.compile(r"(.+?)[-_ ](?:masks?|gt|ground[-_ ]?truth|label|seg(?:mentation)?)(?:[-_ ]?\d+)?", re.IGNORECASE)
_NORMAL = re.compile(r"(?:good|ok|normal)(?:[\W_]*test)?")


class PathParts(NamedTuple):
    """A file by its path."""

    folders: tuple[str, ...]
    stem: str

    @classmethod
    def all(cls, paths: Iterable[str]) -> list["PathParts"]:
        """Files of paths with slashes."""
        named = [path.rpartition("/") for path in paths]
        parts = {head: tuple(part for part in head.split("/") if part not in ("", ".")) for head, _, _ in named}
        return [cls(parts[head], name.rpartition(".")[0] or name) for head, _, name in named]


@lru_cache
def split_of(folder: str) -> str | None:
    """The split that a folder's name means: train, valid or test; None: none."""
    return next((of for of, pattern in _SPLIT.items() if pattern.fullmatch(folder.lower())), None)


@lru_cache
def is_normal(kind: str | None) -> bool:
    """True for the name of what has no defect."""
    return kind is not None and _NORMAL.fullmatch(kind.lower()) is not None


def find_masks(files: Sequence[PathParts], *, by_folder: bool) -> dict[int, list[int]]:
    """Tell masks from pictures: by their names beside pictures, or by the folder that they lie in.

    Args:
        by_folder: False: folders are classes, however they are named.
    Returns: the pictures of each mask.
    Raises: ValueError: a folder is named as one of masks, and most of its files have no picture.
    """
    found = _in_folders(files) if by_folder else {}
    shorter = {at: m[1] for at, of in enumerate(files) if at not in found and (m := _STEM.fullmatch(of.stem))}
    place_of = {file: at for at, file in enumerate(files) if at not in found} if shorter else {}
    beside = {at: place_of.get(PathParts(files[at].folders, stem)) for at, stem in shorter.items()}
    return found | {at: [picture] for at, picture in beside.items() if picture is not None}


def _in_folders(files: Sequence[PathParts]) -> dict[int, list[int]]:
    root_of = _roots({file.folders for file in files})
    masks = {index: root_of[file.folders] for index, file in enumerate(files) if file.folders in root_of}
    pictures = PicturesByName({index: file for index, file in enumerate(files) if index not in masks} if masks else {})
    found: dict[int, list[int]] = {}
    for root in sorted(set(masks.values())):
        whose = {index: pictures.of_mask(files[index], root) for index, of in masks.items() if of == root}
        alone = sum(not of for of in whose.values())
        match = _MASKS.fullmatch(root[-1].lower())
        if 2 * alone <= len(whose):
            found |= whose
        elif match and match["surely"]:
            raise ValueError(
                f"{printable('/'.join(root))} reads as masks, of which {alone} of {len(whose)} are of no picture here, "
                "or as a class: --data.layout classes says that it is one; or put the pictures beside it, or move it "
                "away"
            )
    return found


def _roots(folders: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The folder of masks that each is, or lies in, if any; "mask" beside "no_mask" is a class."""
    beside, found = defaultdict(set), {}
    for folder in folders:
        for at, name in enumerate(folder):
            beside[folder[:at]].add(name.lower())
    for folder in folders:
        for at, name in enumerate(folder):
            are_classes = any("mask" in other and not _MASKS.fullmatch(other) for other in beside[folder[:at]])
            if _MASKS.fullmatch(name.lower()) and not are_classes:
                found[folder] = folder[: at + 1]
                break
    return found


class PicturesByName:
    """Pictures, found by the paths of their masks.

    Args:
        files: by number.
    """

    def __init__(self, files: Mapping[int, PathParts]):
        plain = {folder: _plain(folder) for folder in {file.folders for file in files.values()}}
        self._named = defaultdict(list)
        for index, file in files.items():
            split, names = plain[file.folders]
            for last in (names[-1] if names else "", None):
                self._named[file.stem.lower(), last].append((index, split, names))

    def of_mask(self, mask: PathParts, root: Sequence[str] = ()) -> list[int]:
        """Pictures whose paths are the same as far as both go, from the file up, splits and the masks' folder aside; of
        several those with all folders the same, those that are not trained on, those of defects.

        Args:
            root: the folder of masks.
        """
        match = _MASKS.fullmatch(root[-1].lower()) if root else None
        split, folders = _plain((*root[:-1], *mask.folders[len(root) :]))
        split = split or split_of((match and (match["before"] or match["after"])) or "")
        shorter = _STEM.fullmatch(mask.stem)
        tries = [(mask.stem, folders)] + ([(shorter[1], folders)] if shorter else [])
        tries += [(folders[-1], folders[:-1])] if folders else []  # several masks in a folder named as the picture
        for stem, within in tries:
            keys = [(stem.lower(), within[-1]), (stem.lower(), "")] if within else [(stem.lower(), None)]
            found = [of for key in keys for of in self._named.get(key, ()) if split in (None, of[1])]
            found = [of for of in found if all(a == b for a, b in zip(within[::-1], of[2][::-1], strict=False))]
            fits = [(of[2] == within, of[1] != "train", not of[2] or not is_normal(of[2][-1])) for of in found]
            if found:
                return [of[0] for of, fit in zip(found, fits, strict=True) if fit == max(fits)]
        return []


def _plain(folders: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The split that folders name, and the others in small letters, without those that mean nothing."""
    split = next((of for folder in folders if (of := split_of(folder))), None)
    names = [name.lower() for name in folders if split_of(name) is None]
    return split, tuple(name for name in names if not re.fullmatch(_FILLING, name))

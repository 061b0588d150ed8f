"""How much memory reading in takes, of what is large when it is decoded or unpacked."""

import gzip
import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

MOST = 1.5 * 2**30
READ = """
import resource, sys
from fastddpm.config import DataConfig
from fastddpm.data import ingest
try:
    images = ingest(DataConfig(source=sys.argv[1], cache_dir=sys.argv[2], image_size=32), show_progress=False)
    print(len(images.images), "images")
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def png(mode, side):
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_pictures(folder, mode, side, count):
    folder.mkdir()
    (folder / "0000.png").write_bytes(png(mode, side))
    for number in range(1, count):
        (folder / f"{number:04}.png").hardlink_to(folder / "0000.png")
    return folder


def transparent(folder):
    return write_pictures(folder / "pictures", "RGBA", 1500, 1000)


def large(folder):
    return write_pictures(folder / "pictures", "L", 8000, 60)


def packed_idx(folder):
    file = folder / "train-images-idx3-ubyte.gz"
    with gzip.open(file, "wb", compresslevel=1) as packed:
        packed.write(b"".join(number.to_bytes(4, "big") for number in (0x803, 2**20, 32, 32)))
        for _ in range(2**6):
            packed.write(bytes(2**24))
    return file


def with_a_large_array(folder):
    file = folder / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape in (("x_train", (100, 32, 32)), ("x_test", (100, 32, 32)), ("large", (2**31,))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                head = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, head)
                for first in range(0, int(np.prod(shape)), 2**24):
                    member.write(bytes(min(2**24, int(np.prod(shape)) - first)))
    return file


def zipped(folder):
    members = {"a.npz": with_a_large_array, "b.gz": packed_idx, "clear": transparent, "large": large}
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name, make in members.items():
            (folder / f"of_{name}").mkdir()
            made = make(folder / f"of_{name}")
            for path in sorted(made.iterdir()) if made.is_dir() else [made]:
                archive.write(path, f"{name}/{path.name}")
    return folder / "all.zip"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize(
    ("make", "told"),
    [(transparent, "0000.png"), (large, "1 images"), (packed_idx, "1 images"), (with_a_large_array, "1 images"),
     (zipped, "clear/0000.png")],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_memory_is_bounded_whatever_comes(make, told, tmp_path):
    source = make(tmp_path)
    words = [sys.executable, "-c", READ, str(source), str(tmp_path / "cache")]
    *said, peak = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"{make.__name__}: {int(peak) / 2**30:.2f} GiB; {said[:2]}")
    assert told in "\n".join(said)
    assert int(peak) < MOST

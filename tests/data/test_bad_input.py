"""Faults in the images, by their numbers: each is named with its reason before training begins, and nothing is lost."""

import gc
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from fastddpm.config import DataConfig
from fastddpm.data import ingest
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.reading import Reading
from fastddpm.data.sources import WHOLE, find_source
from fastddpm.data.store_filling import Part
from fastddpm.process import counted

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
GRAY = PIXELS[..., 0]


def encoded(image, kind="png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(mode, alpha):
    image = Image.fromarray(PIXELS).convert(mode)
    image.putalpha(alpha)
    return image


def bad_crc() -> bytes:
    content = bytearray(encoded(Image.fromarray(PIXELS)))
    content[content.index(b"IDAT") + 8] ^= 1
    return bytes(content)


def bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def floats(*values):
    pixels = np.full((9, 7), 0.5, dtype=np.float32)
    pixels.flat[: len(values)] = values
    return encoded(Image.fromarray(pixels), "tiff")


def frames():
    first, second = Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())
    return encoded(first, "gif", save_all=True, append_images=[second])


WHOLE_PNG = encoded(Image.fromarray(PIXELS))
WHOLE_JPEG = encoded(Image.fromarray(PIXELS), "jpeg", quality=100)
WHOLE_TIFF = encoded(Image.fromarray(PIXELS), "tiff")

BAD = {
    "F20": {
        "cut.png": (WHOLE_PNG[:-40], "cannot be decoded"),
        "cut.jpg": (WHOLE_JPEG[:-60], "cannot be decoded"),
        "empty.png": (b"", "is empty (0 bytes)"),
        "page.jpg": (b"<html><body>404 not found</body></html>", "is no image in a format that Pillow reads"),
        "bits.png": (bad_crc(), "cannot be decoded: broken PNG file"),
    },
    "F22": {
        "nan.tif": (floats(np.nan), "has more than 8 bits a channel (32 bits, decimals (float)): say"),
        "large.tif": (floats(1e9), "has more than 8 bits a channel (32 bits, decimals (float))"),
    },
    "F23": {
        "la.png": (encoded(with_alpha("L", 9)), "has transparent pixels: give the colour to lay it on"),
        "rgba.png": (encoded(with_alpha("RGB", 9)), "has transparent pixels"),
        "cmyk.jpg": (encoded(Image.fromarray(PIXELS).convert("CMYK"), "jpeg"), "has the mode CMYK: convert it"),
        "i16.png": (encoded(Image.fromarray(GRAY.astype(np.uint16) * 200)), "more than 8 bits a channel"),
        "i32.tif": (encoded(Image.fromarray(GRAY.astype(np.int32)), "tiff"), "more than 8 bits a channel"),
        "moves.gif": (frames(), "is animated or has several pages (2): save the one you want"),
    },
    "F25": {"bomb.png": (bomb(), "has more pixels than the limit of 67,108,864: make it smaller first")},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        Image.fromarray(np.roll(PIXELS, index, axis=0)).save(tmp_path / "in" / f"good{index}.png")
    return tmp_path / "in"


def read(folder, **options):
    cache_dir = str(folder.parent / "cache")
    return ingest(DataConfig(source=str(folder), cache_dir=cache_dir, **options), show_progress=False)


def failure(folder, **options) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        read(folder, **options)
    return str(error.value)


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("options", [{}, {"image_size": 6, "channels": 3}], ids=["two passes", "one pass"])
def test_f20_f22_f23_f25_bad_files_are_all_named_and_skipped_only_on_demand(folder, fault, options):
    for name, (content, _) in BAD[fault].items():
        (folder / name).write_bytes(content)
    text = failure(folder, **options)
    assert f"{counted(len(BAD[fault]), 'bad file')} in {folder}:" in text
    for name, (_, reason) in BAD[fault].items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert reason in line
    assert "use --data.on_bad_file skip to go on with the other 3" in text
    images = read(folder, on_bad_file="skip", **options)
    assert len(images.images) == 3
    assert set(images.facts["bad_files"]) == set(BAD[fault])
    cap = len(BAD[fault]) - 1
    assert f"more than data.max_bad_files ({cap})" in failure(folder, on_bad_file="skip", max_bad_files=cap, **options)


class Watching(tqdm):
    """A bar that counts the opened pictures that are still in memory whenever it moves."""

    num_alive = 0

    def update(self, n=1):
        self.num_alive = num_pictures()
        return super().update(n)


def num_pictures() -> int:
    """Those that are opened or decoded, and in memory."""
    return sum(issubclass(type(thing), Image.Image) for thing in gc.get_objects())


def test_refused_pictures_leave_memory_at_once(tmp_path):
    """Without the garbage collector, which is late: a picture of any fault is gone when its thread is done with it."""
    (tmp_path / "in").mkdir()
    contents = {name: content for fault in BAD.values() for name, (content, _) in fault.items()}
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "part").mkdir()
    part = Part(tmp_path / "part", {"splits": [WHOLE]})
    pictures = find_source(DataConfig(source=str(tmp_path / "in"))).load().splits
    gc.collect()
    gc.disable()
    try:
        with Watching(disable=True) as bar:
            before = num_pictures()
            reading = Reading(part, pictures, bar)
            reading.check(Meaning())
            checked = bar.num_alive - before
            reading.read(Fit(channels=3), (3, 9, 7))
            read = bar.num_alive - before
    finally:
        gc.enable()
        part.close()
    assert {bad.name for bad in part.read[WHOLE].bad} == set(contents)
    assert (checked, read) == (0, 0)


@pytest.mark.parametrize(
    ("mode", "image", "expected"),
    [
        ("L", Image.fromarray(GRAY), np.stack([GRAY] * 3)),
        ("1", Image.fromarray(GRAY > 127), np.stack([np.where(GRAY > 127, 255, 0)] * 3)),
        ("RGB", Image.fromarray(PIXELS), PIXELS.transpose(2, 0, 1)),
        ("RGBA", with_alpha("RGB", 255), PIXELS.transpose(2, 0, 1)),
        ("LA", with_alpha("L", 255), np.stack([np.asarray(Image.fromarray(PIXELS).convert("L"))] * 3)),
        ("P", Image.fromarray(PIXELS).quantize(8), None),
    ],
)
def test_f23_modes_with_a_rule_follow_it(folder, mode, image, expected):
    for good in folder.iterdir():
        good.unlink()
    image.save(folder / "one.png")
    images = read(folder, channels=3)
    wanted = np.asarray(image.convert("RGB")).transpose(2, 0, 1) if expected is None else expected
    np.testing.assert_array_equal(images.images[0], wanted)
    assert images.facts["modes"] == {mode: 1}


def test_f23_a_picture_with_previews_in_it_is_its_first(folder):
    first, second = Image.new("RGB", (7, 9), (10, 200, 30)), Image.new("RGB", (4, 4))
    (folder / "phone.jpg").write_bytes(encoded(first, "mpo", save_all=True, append_images=[second], quality=100))
    images = read(folder).images
    assert images.shape == (4, 3, 9, 7)
    assert abs(images[3].transpose(1, 2, 0) - np.array([10, 200, 30])).max() <= 3  # through JPEG


def test_f23_sixteen_bits_a_pixel_are_eight_a_channel_at_most(folder):
    pixels = np.array([[0xF800, 0x07E0, 0x001F, 0xFFFF]], dtype="<u2").tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    start = 14 + len(head) + len(masks)
    file = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + masks + pixels
    for good in folder.iterdir():
        good.unlink()
    (folder / "565.bmp").write_bytes(file)
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
    np.testing.assert_array_equal(read(folder).images[0].transpose(1, 2, 0), [colours])


def test_f23_rotation_is_applied_and_a_single_pixel_is_an_image(folder):
    for good in folder.iterdir():
        good.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its right side
    Image.fromarray(PIXELS).save(folder / "turned.png", exif=exif)
    images = read(folder)
    np.testing.assert_array_equal(images.images[0], np.rot90(PIXELS, -1).transpose(2, 0, 1))
    Image.fromarray(PIXELS[:1, :1]).save(folder / "point.png")
    assert "holds images of 2 sizes: 9x7 (1), 1x1 (1)" in failure(folder).replace(
        "1x1 (1), 9x7 (1)", "9x7 (1), 1x1 (1)"
    )
    fitted = read(folder, image_size=4)
    assert fitted.images.shape == (2, 3, 4, 4)
    assert fitted.facts["num_upscaled_over_2x"] == 1


def test_f22_arrays_of_other_numbers_are_refused_by_name(tmp_path):
    for name, values in (("nan", [np.nan, 1.0]), ("large", [1e9, 0.0])):
        np.save(tmp_path / f"{name}.npy", np.array(values * 8).reshape(1, 4, 4))
        text = failure(tmp_path / f"{name}.npy")
        assert f"{name}.npy is float64 (" in text
        assert "wanted uint8 from 0 to 255" in text


def test_bad_files_are_named_beside_other_troubles(folder):
    Image.fromarray(PIXELS[:4]).save(folder / "small.png")
    (folder / "empty.png").touch()
    text = failure(folder)
    assert "  empty.png is empty (0 bytes)" in text
    assert f"and {folder} holds images of 2 sizes: 7x9 (3), 7x4 (1); fit them" in text


def test_a_folder_of_many_faults_is_named_whole_in_one_run(folder, monkeypatch):
    """Faults of headers and of pixels together: neither hides the other."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image = Image.fromarray(PIXELS)
    wide = encoded(image, "avif").partition(b"colrnclx")
    bad = {
        "cut.jpg": (WHOLE_JPEG[:-60], "cannot be decoded"),
        "cut.png": (WHOLE_PNG[:-40], "cannot be decoded"),
        "empty.png": (b"", "is empty (0 bytes)"),
        "deep.tif": (encoded(Image.fromarray(GRAY.astype(np.uint16) * 200), "tiff"), "more than 8 bits a channel"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(60), "which takes pip install 'fastddpm[heic]'"),
        "print.jpg": (encoded(image.convert("CMYK"), "jpeg"), "has the mode CMYK: convert it"),
        "text.png": (b"a shopping list", "is no image in a format that Pillow reads"),
        "bomb.png": (bomb(), "has more pixels than the limit"),
        "moves.gif": (frames(), "is animated or has several pages (2)"),
        "clear.png": (encoded(with_alpha("RGB", 9)), "has transparent pixels"),
        "hdr.avif": (wide[0] + wide[1] + struct.pack(">HH", 9, 16) + wide[2][4:], "is HDR (PQ, nclx 9/16)"),
        "bits.png": (bad_crc(), "cannot be decoded"),
        "scan.dcm": (bytes(128) + b"DICM" + b"junk" * 20, "DICOM"),
        "odd.tif": (WHOLE_TIFF[:40], "is no image in a format that Pillow reads"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    for options in ({}, {"image_size": 6, "channels": 3}, {"image_size": 6}):
        text = failure(folder, **options)
        assert f"{len(bad) + 1} bad files in {folder}:" in text
        for name, (_, reason) in bad.items():
            assert any(line.startswith(f"  {name} ") and reason in line for line in text.splitlines()), (name, text)
        assert "  gone.png is not there: a link that leads nowhere" in text

"""One picture: what becomes of each of Pillow's modes, and what is refused for which reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fastddpm.data import decode as rules
from fastddpm.data.decode import inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import MAX_PIXELS, BadImage, open_bytes

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
GRAY = PIXELS[..., 0]


def decode(open_image, channels, image_size, **options):
    """Pixels alone."""
    return rules.decode(open_image, Fit(channels, image_size and (image_size, image_size), **options))[0]


def opener(image: Image.Image | bytes, kind: str = "png", **options):
    """A function that opens the encoded picture anew."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        image = buffer.getvalue()
    return lambda: open_bytes(image)


def with_alpha(alpha: int, mode: str) -> Image.Image:
    image = Image.fromarray(PIXELS).convert(mode)
    image.putalpha(alpha)
    return image


def reason(open_image, channels: int = 3) -> str:
    try:
        inspect(open_image, Meaning())
        decode(open_image, channels, None)
    except BadImage as error:
        return str(error)
    return "not refused"


def test_rgb_keeps_its_pixels():
    header = inspect(opener(Image.fromarray(PIXELS)), Meaning())
    assert (header.mode, header.is_colour, header.size) == ("RGB", True, (7, 9))
    np.testing.assert_array_equal(decode(opener(Image.fromarray(PIXELS)), 3, None), PIXELS.transpose(2, 0, 1))


def test_grayscale_is_kept_and_repeated_for_three_channels():
    open_image = opener(Image.fromarray(GRAY))
    assert not inspect(open_image, Meaning()).is_colour
    np.testing.assert_array_equal(decode(open_image, 1, None), GRAY[None])
    np.testing.assert_array_equal(decode(open_image, 3, None), np.stack([GRAY] * 3))


def test_one_bit_becomes_black_and_white():
    open_image = opener(Image.fromarray(GRAY > 127))
    assert inspect(open_image, Meaning()).mode == "1"
    np.testing.assert_array_equal(decode(open_image, 1, None)[0], np.where(GRAY > 127, 255, 0))


def test_colour_becomes_luma_when_one_channel_is_asked_for():
    luma = PIXELS @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    np.testing.assert_allclose(decode(opener(Image.fromarray(PIXELS)), 1, None)[0], luma, atol=1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_opaque_alpha_is_dropped_and_transparency_refused(mode):
    expected = np.asarray(Image.fromarray(PIXELS).convert(mode).convert("RGB")).transpose(2, 0, 1)
    open_image = opener(with_alpha(255, mode))
    assert inspect(open_image, Meaning()).is_colour == (mode == "RGB")
    np.testing.assert_array_equal(decode(open_image, 3, None), expected)
    assert reason(opener(with_alpha(254, mode))).startswith(
        "has transparent pixels: give the colour to lay it on, such as --data.background"
    )


def test_palette_gives_its_colours_and_a_transparent_entry_is_refused():
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(
        decode(opener(palette), 3, None), np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )
    used = palette.getpixel((0, 0))
    assert "transparent" in reason(opener(palette, transparency=used))


def test_a_transparent_colour_of_an_rgb_png_is_refused():
    image = Image.fromarray(PIXELS)
    assert "transparent" in reason(opener(image, transparency=tuple(int(v) for v in PIXELS[0, 0])))


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.fromarray(PIXELS).convert("CMYK"), "jpeg", "has the mode CMYK: convert"),
        (Image.fromarray(PIXELS).convert("LAB"), "tiff", "has the mode LAB: convert"),
        (Image.fromarray(GRAY.astype(np.uint16) * 200), "png", "more than 8 bits a channel (Pillow's mode I;16)"),
        (Image.fromarray(GRAY.astype(np.int32)), "tiff", "more than 8 bits a channel (32 bits, signed numbers)"),
        (Image.fromarray(GRAY.astype(np.float32)), "tiff", "more than 8 bits a channel (32 bits, decimals (float))"),
    ],
)
def test_modes_without_one_meaning_in_8_bits_are_refused(image, kind, expected):
    assert expected in reason(opener(image, kind))


def png(width: int, height: int, bits: int, colour_type: int, data: bytes) -> bytes:
    """A PNG that Pillow itself does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_a_16_bit_colour_png_is_refused_though_pillow_calls_it_rgb():
    open_image = opener(png(2, 1, 16, 2, b"\0" + bytes(range(12))))
    assert open_image().mode == "RGB"
    assert "more than 8 bits a channel" in reason(open_image)


def test_more_pixels_than_the_limit_are_refused_without_decoding():
    assert f"the limit is {MAX_PIXELS:,}" in reason(opener(png(9000, 9000, 8, 0, b"")))


def test_animations_are_refused():
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    assert "is animated or has several pages (2)" in reason(
        opener(frames[0], "gif", save_all=True, append_images=frames[1:])
    )


@pytest.mark.parametrize("kind", ["jpeg", "tiff", "png", "webp"])
def test_exif_rotation_is_applied(kind):
    dark_left = np.zeros((8, 16), dtype=np.uint8)
    dark_left[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees: left becomes top
    open_image = opener(Image.fromarray(dark_left), kind, exif=exif)
    assert inspect(open_image, Meaning()).size == (8, 16)
    pixels = decode(open_image, 1, None)[0]
    assert pixels.shape == (16, 8)
    assert pixels[:7].max() < 50 < 200 < pixels[9:].min()


def test_a_rotation_that_a_png_tells_behind_its_pixels_is_applied():
    square = Image.fromarray(PIXELS[:7])
    exif = Image.Exif()
    exif[0x0112] = 6
    told = exif.tobytes()[6:]  # without JPEG's mark
    chunk = struct.pack(">I", len(told)) + b"eXIf" + told + struct.pack(">I", zlib.crc32(b"eXIf" + told))
    whole = opener(square)().fp.getvalue()
    seen = decode(opener(whole[:-12] + chunk + whole[-12:]), 3, None)  # before IEND
    np.testing.assert_array_equal(seen, np.rot90(PIXELS[:7], -1).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_truncated_file_is_refused(kind):
    open_image = opener(Image.fromarray(np.tile(PIXELS, (8, 8, 1))), kind)
    whole = open_image().fp.getvalue()
    assert "cannot be decoded" in reason(opener(whole[: len(whole) // 2]))


def test_a_flipped_byte_in_a_png_is_refused():
    whole = bytearray(opener(Image.fromarray(PIXELS))().fp.getvalue())
    whole[whole.index(b"IDAT") + 40] ^= 1
    assert "cannot be decoded" in reason(opener(bytes(whole)))


def test_text_is_no_image():
    assert reason(opener(b"no picture")) == "is no image in a format that Pillow reads"


@pytest.mark.parametrize(("shape", "band"), [((12, 36), np.s_[:, 12:24]), ((36, 12), np.s_[12:24])])
def test_fit_keeps_the_middle_square(shape, band):
    pixels = np.full(shape, 10, dtype=np.uint8)
    pixels[band] = 200
    fitted = decode(opener(Image.fromarray(pixels)), 1, 6)
    assert fitted.shape == (1, 6, 6)
    assert fitted[:, 2:4, 2:4].min() == 200
    assert fitted.min() > 150  # nothing of the ends but what the filter reaches


def test_fit_to_its_own_size_changes_nothing():
    square = PIXELS[:7]
    np.testing.assert_array_equal(decode(opener(Image.fromarray(square)), 3, 7), square.transpose(2, 0, 1))


def test_fit_averages_when_it_makes_smaller():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    fitted = decode(opener(Image.fromarray(stripes)), 1, 8).astype(int)
    assert abs(fitted - 127).max() <= 8  # nearest or bilinear without antialiasing would keep stripes


def test_the_header_is_that_of_the_picture_and_not_of_what_it_becomes():
    header = rules.decode(opener(Image.fromarray(PIXELS)), Fit(1, (4, 4)))[1]
    assert header == inspect(opener(Image.fromarray(PIXELS)), Meaning())
    assert (header.mode, header.size) == ("RGB", (7, 9))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_laid_on_the_background(mode):
    gray = Image.fromarray(GRAY)
    if mode == "P":
        image = Image.fromarray(PIXELS).quantize(16)
        open_image = opener(image, transparency=image.getpixel((0, 0)))
    else:
        image = (gray if mode == "LA" else Image.fromarray(PIXELS)).copy()
        image.putalpha(Image.fromarray(np.where(np.arange(9)[:, None] + np.zeros(7) < 4, 0, 255).astype(np.uint8)))
        open_image = opener(image)
    fitted = decode(open_image, 3, None, background=(255, 255, 255))
    assert fitted[:, 0, 0].tolist() == [255, 255, 255]
    if mode != "P":
        np.testing.assert_array_equal(fitted[:, 4:], np.asarray(image.convert("RGB")).transpose(2, 0, 1)[:, 4:])
    if mode == "RGBA":  # half transparent: half way
        half = decode(opener(with_alpha(128, "RGB")), 3, None, background=(0, 0, 200)).astype(int)
        wanted = PIXELS.transpose(2, 0, 1) * (128 / 255) + np.array([0, 0, 200])[:, None, None] * 127 / 255
        np.testing.assert_allclose(half, wanted, atol=1)


def test_the_middle_is_cut_out_before_scaling():
    pixels = np.random.default_rng(3).integers(0, 256, (11, 9), dtype=np.uint8)
    cut = decode(opener(Image.fromarray(pixels)), 1, None, center_crop=5)
    np.testing.assert_array_equal(cut[0], pixels[3:8, 2:7])
    blocks = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 10, np.ones((2, 2), dtype=np.uint8))
    framed = np.pad(blocks, 3, constant_values=255)
    assert decode(opener(Image.fromarray(framed)), 1, 4, center_crop=8).max() <= 160  # nothing of the frame
    with pytest.raises(BadImage, match=r"is 9x11, smaller than data.center_crop \(10\): lower that"):
        decode(opener(Image.fromarray(pixels)), 1, 4, center_crop=10)

"""Embedded colour profiles: by Pillow's ImageCms, the same in every format and everywhere."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from fastddpm.config import DataConfig, load_config
from fastddpm.data import BadImage, ingest, load_splits, summary, summary_lines
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.named_pictures import Fitting
from fastddpm.data.opening import open_bytes
from fastddpm.data.sources import Picture

PIXELS = np.add.outer(np.arange(24) * 3, np.arange(32) * 5)[..., None].repeat(3, 2).astype(np.uint8)
PIXELS[..., 1] = PIXELS[::-1, :, 0]
PIXELS[8:16, 8:20] = (230, 30, 60)
GRAY = PIXELS[..., 0]
WIDE = ((0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""primaries of Display P3, adapted to D50"""
SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
LOSSLESS = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "TIFF": {}, "WEBP": {"lossless": True},
            "AVIF": {"quality": 100, "subsampling": "4:4:4"}}  # fmt: skip


def icc(space: str, gamma: float, primaries=SRGB, name="Test") -> bytes:
    """A small profile of a power curve."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white = fixed(0.9642, 1, 0.8249)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = name.encode() + b"\0"
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
            b"wtpt": b"XYZ " + bytes(4) + white, b"cprt": b"text" + bytes(4) + b"none\0"}  # fmt: skip
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        for letter, primary in zip(b"rgb", primaries, strict=True):
            tags[bytes([letter]) + b"XYZ"], tags[bytes([letter]) + b"TRC"] = b"XYZ " + bytes(4) + fixed(*primary), curve
    return assembled(space, tags, b"mntr", b"XYZ ")


def of_a_print() -> bytes:
    """A profile of four inks that mix as paints would: a table of the 16 full mixtures, in Lab."""
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    mixed = Image.fromarray((255 * (1 - inks[:, :3]) * (1 - inks[:, 3:])).astype(np.uint8)[None])
    corners = np.array(np.asarray(lab.apply(mixed))[0])
    corners[:, 1:] += 128  # Pillow's a and b are signed
    same = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
    text = b"Print\0"
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
            b"A2B0": lut + same * 4 + corners.tobytes() + same * 3}  # fmt: skip
    return assembled("CMYK", tags, b"prtr", b"Lab ")


def assembled(space: str, tags: dict[bytes, bytes], kind: bytes, through: bytes) -> bytes:
    """A profile from its tags."""
    white = struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))
    body, table, start = b"", struct.pack(">I", len(tags)), 132 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02400000, kind, space.ljust(4).encode(), through)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + table + body


PROFILES = {
    "wide": ("RGB", icc("RGB", 2.2, WIDE)), "linear": ("RGB", icc("RGB", 1.0)),
    "linear gray": ("L", icc("GRAY", 1.0)), "gray 1.8": ("L", icc("GRAY", 1.8)),
}  # fmt: skip


def packed(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return lambda: open_bytes(file.getvalue())


def by_image_cms(open_image, profile):
    """What ImageCms itself makes of the decoded pixels: (3, H, W)."""
    with open_image() as image:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        seen = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(seen).transpose(2, 0, 1).astype(int)


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("name", PROFILES)
def test_pixels_are_within_a_level_of_image_cms(name, kind):
    mode, profile = PROFILES[name]
    if kind in ("WEBP", "AVIF") and mode == "L":
        mode, profile = "RGB", icc("RGB", 1.8, WIDE)  # these have no gray
    image = Image.fromarray(PIXELS if mode == "RGB" else GRAY)
    open_image = packed(image, kind, icc_profile=profile, **LOSSLESS[kind])
    seen = decode(open_image, Fit(3))[0].astype(int)
    assert abs(seen - by_image_cms(open_image, profile)).max() <= 1
    plain = decode(open_image, Fit(3, meaning=Meaning(color_management="off")))[0].astype(int)
    assert abs(plain - np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)).max() <= 4
    assert abs(seen - plain).max() > 10, "it matters"


def test_linear_gray_stays_one_channel():
    open_image = packed(Image.fromarray(GRAY), "PNG", icc_profile=PROFILES["linear gray"][1])
    assert not inspect(open_image, Meaning()).is_colour
    pixels = decode(open_image, Fit(1))[0].astype(int)
    light = GRAY / 255
    wanted = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert abs(pixels[0] - wanted)[GRAY > 8].max() <= 2  # LittleCMS takes its steps through the darkest ones


def test_a_gray_picture_with_a_profile_of_colours_is_gray_in_it():
    open_image = packed(Image.fromarray(GRAY), "PNG", icc_profile=PROFILES["linear"][1])
    colour = packed(Image.fromarray(GRAY).convert("RGB"), "PNG", icc_profile=PROFILES["linear"][1])
    assert abs(decode(open_image, Fit(1))[0].astype(int) - decode(colour, Fit(1))[0]).max() <= 1


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_prints_are_read_by_their_profile_and_refused_without_one(kind):
    image = Image.fromarray(PIXELS).convert("CMYK")
    with pytest.raises(BadImage, match="has the mode CMYK"):
        inspect(packed(image, kind), Meaning())
    open_image = packed(image, kind, icc_profile=of_a_print())
    assert inspect(open_image, Meaning()).is_colour
    seen = decode(open_image, Fit(3))[0].astype(int)
    assert abs(seen - by_image_cms(open_image, of_a_print())).max() <= 1
    assert abs(seen - PIXELS.transpose(2, 0, 1)).mean() < 40, "about the colours that were printed"
    with pytest.raises(BadImage, match="has the mode CMYK"):
        inspect(open_image, Meaning(color_management="off"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_the_background_after_the_profile(mode):
    space = PROFILES["linear gray" if mode == "LA" else "linear"][1]
    image = Image.fromarray(PIXELS)
    if mode == "P":
        image = image.quantize(64)
        used = image.getpixel((0, 0))
        seen = packed(image, "PNG", icc_profile=space, transparency=used)
        opaque = packed(image, "PNG", icc_profile=space)
        where = np.asarray(image) == used
    else:
        image = image.convert(mode[:-1])
        opaque = packed(image, "PNG", icc_profile=space)
        where = np.add.outer(np.arange(24), np.zeros(32)) < 5
        image.putalpha(Image.fromarray(np.where(where, 0, 255).astype(np.uint8)))
        seen = packed(image, "PNG", icc_profile=space)
    pixels = decode(seen, Fit(3, background=(200, 200, 200)))[0]
    assert (pixels[:, where] == 200).all()
    np.testing.assert_array_equal(pixels[:, ~where], decode(opaque, Fit(3))[0][:, ~where])


def test_a_profile_that_is_srgb_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    open_image = packed(Image.fromarray(PIXELS), "PNG", icc_profile=srgb)
    np.testing.assert_array_equal(decode(open_image, Fit(3))[0], PIXELS.transpose(2, 0, 1))
    assert inspect(open_image, Meaning()).profile.endswith(", as it is")


@pytest.mark.parametrize("content", [b"junk", icc("GRAY", 1.0), PROFILES["wide"][1][:200]])
def test_a_profile_that_does_not_fit_is_said(content):
    open_image = packed(Image.fromarray(PIXELS), "PNG", icc_profile=content)
    np.testing.assert_array_equal(decode(open_image, Fit(3))[0], PIXELS.transpose(2, 0, 1))
    assert "ignored" in inspect(open_image, Meaning()).profile


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(6):
        options = {"icc_profile": icc("RGB", 1.0, name="Linear, mine")} if index % 2 else {}
        Image.fromarray(np.roll(PIXELS, index, 1)[:, :24]).save(tmp_path / "in" / f"{index}.png", **options)
    return tmp_path / "in"


def test_profiles_are_counted_and_the_setting_decides(folder, tmp_path):
    options = {"source": str(folder), "cache_dir": str(tmp_path / "cache")}
    on, off = (ingest(DataConfig(**options, color_management=value), show_progress=False) for value in ("srgb", "off"))
    assert on.facts["profiles"] == {"Linear mine, to sRGB": 3}
    assert off.facts["profiles"] == {"Linear mine, ignored": 3}
    changed = [not np.array_equal(*pair) for pair in zip(on.images, off.images, strict=True)]
    assert changed == [False, True] * 3
    found = summary(load_splits(DataConfig(**options), seed=0, show_progress=False))
    assert found["profiles"] == on.facts["profiles"]
    assert "  colour profiles: Linear mine, to sRGB (3)" in summary_lines(found)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found))


@pytest.mark.parametrize("old", [False, True])
def test_pictures_of_a_run_are_seen_as_it_stored_them(folder, tmp_path, old):
    """Also of a run that is older than the setting: its config.yaml has every setting but that."""
    run = tmp_path / "run"
    run.mkdir()
    whole = {"source": str(folder), "streaming": False, "background": None, "max_bad_files": 10,
             "cache_dir": str(tmp_path / "cache"), "image_size": 24}  # fmt: skip
    (run / "config.yaml").write_text(
        json.dumps({"data": whole if old else {**whole, "color_management": "srgb", "draft": True}})
    )
    config = load_config(run / "config.yaml").data
    assert (config.color_management, config.draft) == (("off", False) if old else ("srgb", True))
    stored = ingest(config, show_progress=False).images
    fitting = Fitting.of(str(run), (3, 24, 24))
    for index in range(6):
        path = folder / f"{index}.png"
        seen = fitting(Picture(path.name, lambda path=path: open_bytes(path.read_bytes())))[0]
        np.testing.assert_array_equal(seen, stored[index])
    (tmp_path / "mine.yaml").write_text(json.dumps({"data": {"source": str(folder)}}))
    assert load_config(tmp_path / "mine.yaml").data.color_management == "srgb", "a config of one's own"

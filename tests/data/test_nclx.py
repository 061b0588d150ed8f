"""Colour tags of AVIF and HEIC: pixels become what H.273's numbers say, or are refused by them."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import BadImage, ingest
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.nclx import nclx_in
from fastddpm.data.opening import open_bytes
from tests.data.test_colour import PIXELS, icc
from tests.data.test_deep import needs

TO_BT709 = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    12: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
"""linear light of BT.2020 (ITU-R BT.2407) and Display P3 in that of BT.709"""
KINDS = ["AVIF", pytest.param("HEIF", marks=needs("pillow_heif"))]


def tagged(kind, primaries, transfer, **options) -> bytes:
    """A picture of these pixels, with these tags written over its own."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **{"quality": 90, **options})
    head, mark, rest = file.getvalue().partition(b"colrnclx")
    assert mark
    return head + mark + struct.pack(">HH", primaries, transfer) + rest[4:]


def seen(content, **options):
    return decode(lambda: open_bytes(content), Fit(3, meaning=Meaning(**options)))[0].astype(int)


def decoded_light(pixels):
    return np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)


def shown(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light.clip(1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("primaries", [9, 12])
@pytest.mark.parametrize("transfer", [13, 8, 4])
def test_pixels_are_within_two_levels_of_the_matrix_of_their_primaries(kind, primaries, transfer):
    content = tagged(kind, primaries, transfer)
    plain = seen(content, color_management="off") / 255
    light = {13: decoded_light, 8: lambda given: given, 4: lambda given: given**2.2}[transfer](plain)
    light = np.einsum("ij,jhw->ihw", TO_BT709[primaries], light)
    inside = (light.min(0) >= 0.004) & (light.max(0) <= 1)  # LittleCMS takes its steps through the darkest ones
    assert inside.sum() > 50
    found = seen(content)
    assert abs(found - 255 * shown(light))[:, inside].max() <= 2
    assert abs(found - 255 * plain).max() > 10, "it matters"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tags", [(1, 13), (1, 1), (2, 2)])
def test_tags_that_say_srgb_change_and_count_nothing(kind, tags):
    content = tagged(kind, *tags)
    np.testing.assert_array_equal(seen(content), seen(content, color_management="off"))
    assert inspect(lambda: open_bytes(content), Meaning()).profile is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ((9, 16), r"is HDR \(PQ, nclx 9/16\): save it in sRGB"),
        ((9, 18), r"is HDR \(HLG, nclx 9/18\)"),
        ((11, 17), r"not known here \(nclx 11/17\)"),
        ((10, 13), r"not known here \(nclx 10/13\)"),
    ],
)
def test_hdr_and_tags_that_no_profile_says_are_refused_by_their_numbers(kind, tags, words):
    content = tagged(kind, *tags)
    with pytest.raises(BadImage, match=words):
        inspect(lambda: open_bytes(content), Meaning())
    taken = inspect(lambda: open_bytes(content), Meaning(color_management="off")).profile
    assert taken == f"nclx {tags[0]}/{tags[1]}, ignored"


def test_a_profile_comes_before_tags():
    content = tagged("AVIF", 9, 16, icc_profile=icc("RGB", 1.0, name="Own"))
    assert inspect(lambda: open_bytes(content), Meaning()).profile == "Own, to sRGB"


def test_different_tags_in_one_file_are_refused():
    def box(kind, content):
        return struct.pack(">I4s", 8 + len(content), kind) + content

    colours = b"".join(box(b"colr", b"nclx" + struct.pack(">HHHB", *tags, 1, 128)) for tags in [(9, 13), (12, 13)])
    meta = box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", colours)))
    with pytest.raises(BadImage, match="several colour tags"):
        nclx_in(io.BytesIO(box(b"ftyp", b"avif") + meta))
    assert nclx_in(io.BytesIO(box(b"ftyp", b"avif") + meta[:-30])) is None


def test_data_json_counts_what_tags_became(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "wide.avif").write_bytes(tagged("AVIF", 12, 13))
    (tmp_path / "in" / "plain.avif").write_bytes(tagged("AVIF", 1, 13))
    found = ingest(DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache")), show_progress=False)
    assert found.facts["profiles"] == {"nclx 12/13 (Display P3), to sRGB": 1}

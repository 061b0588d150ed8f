"""One place opens pictures: which formats, how large, and that nobody else does."""

import ast
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

import fastddpm
from fastddpm.config import DataConfig
from fastddpm.data import ingest, opening
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import FORMATS, BadImage, is_image, open_bytes, open_file

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(16) * 6, np.arange(24) * 4)[..., None].repeat(3, 2).astype(np.uint8)
NOT_EXACT = ("JPEG", "AVIF", "GIF", "PSD", "XPM", "JPEG2000", "WEBP")
"""formats that lose something, or that Pillow does not write"""


def test_nobody_else_opens_pictures():
    """Neither `Image.open`, under whatever name, nor another reader of picture files; but for what travels alone, and
    names the same formats."""
    library, found = Path(fastddpm.__file__).parent, []
    for path in sorted(library.rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {
            alias.asname or alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
            if alias.name in ("Image", "PIL", "PIL.Image") or (getattr(node, "module", None) == "PIL.Image")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "open" and _root(node) in names:
                found.append(f"{path.relative_to(library)}:{node.lineno}")
            if isinstance(node, ast.Name) and node.id == "open" and "open" in names:
                found.append(f"{path.relative_to(library)}:{node.lineno}")
            if (
                isinstance(node, ast.Attribute | ast.Name)
                and getattr(node, "attr", getattr(node, "id", "")) == "imread"
            ):
                found.append(f"{path.relative_to(library)}:{node.lineno}")
    assert {place.partition(":")[0] for place in found} == {"data/opening.py", "verbs/export/judge.py"}


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


def written(kind: str) -> bytes:
    """A picture as Pillow writes it in a format."""
    file, image = io.BytesIO(), Image.fromarray(SMOOTH)
    modes = {"XBM": "1", "MSP": "1", "XPM": "P"}
    sizes = {"sizes": [(24, 16)]} if kind == "ICO" else {}
    image.convert(modes.get(kind, "RGB")).save(file, kind, **sizes)
    return file.getvalue()


Image.init()
WRITTEN = [kind for kind in FORMATS if kind in Image.SAVE]


@pytest.mark.parametrize("kind", WRITTEN)
def test_each_format_is_opened_by_each_of_its_endings(kind, tmp_path):
    content = written(kind)
    wanted = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
    if kind not in NOT_EXACT and wanted.min() != 0:
        np.testing.assert_array_equal(wanted.transpose(1, 2, 0), SMOOTH)
    for ending in FORMATS[kind].split():
        path = tmp_path / f"a{ending.upper()}"
        path.write_bytes(content)
        assert is_image(path.name)
        for again in (lambda path=path: open_file(path), lambda path=path: open_bytes(content, path.name)):
            assert inspect(again, Meaning()).size == (24, 16)
            pixels = decode(again, Fit(3, background=(0, 0, 0)))[0]
            np.testing.assert_array_equal(pixels, wanted)


def test_files_of_all_formats_are_read_from_a_folder_and_a_zip_alike(tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for kind in WRITTEN:
            ending = FORMATS[kind].split()[0]
            (tmp_path / "in" / f"{kind}{ending}").write_bytes(written(kind))
            archive.write(tmp_path / "in" / f"{kind}{ending}", f"{kind}{ending}")
    options = {"cache_dir": str(tmp_path / "cache"), "channels": 1}
    found = [
        ingest(DataConfig(source=str(tmp_path / name), **options), show_progress=False) for name in ("in", "a.zip")
    ]
    assert found[0].facts["other_files"] == []
    assert [len(of.images) + len(of.duplicates) for of in found] == [len(WRITTEN)] * 2
    np.testing.assert_array_equal(*(of.images for of in found))


def test_a_format_that_starts_a_program_is_not_opened(tmp_path, monkeypatch):
    """Whatever it is called; Pillow alone would run Ghostscript to decode it."""
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "EPS")
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    for name in ("a.png", "a.eps"):
        (tmp_path / name).write_bytes(content.getvalue())
        with pytest.raises(BadImage, match="^is no image in a format that Pillow reads$"):
            open_file(tmp_path / name)
    assert not is_image("a.eps")
    assert not started
    assert Image.open(io.BytesIO(content.getvalue())).format == "EPS", "Pillow knows it"


@pytest.mark.parametrize("kind", ["IPTC", "WMF", "HDF5", "BUFR", "GRIB", "MPEG", "FPX", "MIC"])
def test_heads_without_pixels_and_boxes_of_other_formats_are_not_opened(kind):
    assert kind not in FORMATS


@pytest.mark.parametrize("kind", ["TGA", "PCX", "DIB"])
def test_formats_without_a_mark_are_told_by_their_ending(kind):
    content = written(kind)
    assert open_bytes(content, f"a.{kind.lower()}").format == kind
    for name in ("", "a.png"):
        with pytest.raises(BadImage, match="is no image"):
            open_bytes(content, name)


def test_a_file_of_more_bytes_than_any_picture_has_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(opening.MAX_FILE_BYTES + 1)
    with pytest.raises(BadImage, match="has 335,544,321 bytes, the limit is 335,544,320: make it smaller first"):
        open_file(tmp_path / "a.png")


def test_all_that_opening_raises_is_a_reason_in_one_line(tmp_path):
    whole = {kind: written(kind) for kind in WRITTEN}
    for kind, content in whole.items():
        for cut in (content[: len(content) // 2], content[:20], content[:9] + b"\xff" * 40):
            try:
                open_bytes(cut, f"a{FORMATS[kind].split()[0]}").close()
            except BadImage as error:
                assert "\n" not in str(error)  # noqa: PT017


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF and its tag", "JPEG", "WEBP", "AVIF"])
def test_an_orientation_in_xmp_turns_header_and_pixels(kind):
    options = {"xmp": XMP.encode()}
    if kind == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
    if kind.startswith("TIFF"):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700], tags.tagtype[700] = XMP.encode(), 1
        if "tag" in kind:
            tags[274] = 6
        options = {"tiffinfo": tags}
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, kind.split()[0], **options)
    again = lambda: open_bytes(file.getvalue())  # noqa: E731
    assert inspect(again, Meaning()).size == (16, 24)
    pixels = decode(again, Fit(1))[0][0].astype(int)
    assert abs(pixels - np.rot90(SMOOTH[..., 0], -1).astype(int)).max() <= 8

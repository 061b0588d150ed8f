"""Pictures of more than 8 bits: named for what they are, and read between the black and white that are said."""

import importlib.util
import io
import struct

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import BadImage, deep, ingest
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.opening import is_image, open_bytes

RAMP = np.linspace(-100, 100, 48).reshape(6, 8)


def needs(package):
    return pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"{package} is not installed")


def tiff(pixels, sample_format=1, photometric=None, extra=(), orientation=None) -> bytes:
    """A plain TIFF of any numbers: (H, W) or (H, W, C)."""
    height, width, count = (*pixels.shape, 1)[:3]
    bits = pixels.dtype.itemsize * 8
    tags = {256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * count), 259: ("H", [1]),
            262: ("H", [(1 if count != 3 else 2) if photometric is None else photometric]), 273: ("I", [0]),
            277: ("H", [count]), 278: ("I", [height]), 279: ("I", [pixels.nbytes]), 284: ("H", [1]),
            339: ("H", [sample_format] * count)}  # fmt: skip
    tags |= {338: ("H", list(extra))} if extra else {}
    tags |= {274: ("H", [orientation])} if orientation else {}
    start, more, entries = 10 + 12 * len(tags) + 4, b"", b""
    data_at = start + sum(len(v) * struct.calcsize(k) for k, v in tags.values() if len(v) * struct.calcsize(k) > 4)
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"<{len(values)}{kind}", *(values if tag != 273 else [data_at]))
        at = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(more))
        more += raw if len(raw) > 4 else b""
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + at
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + more + pixels.tobytes()


def reason(content, **meaning):
    with pytest.raises(BadImage) as error:
        inspect(lambda: open_bytes(content), Meaning(**meaning))
    return str(error.value)


KINDS = {
    "int8": (RAMP.astype(np.int8), 2, "holds signed numbers of 8 bits"),
    "uint16": (((RAMP + 100) * 200).astype("<u2"), 1, "has more than 8 bits a channel (16 bits, whole numbers)"),
    "int16": ((RAMP * 20).astype("<i2"), 2, "has more than 8 bits a channel (16 bits, signed numbers)"),
    "uint32": ((RAMP + 100).astype("<u4"), 1, "has more than 8 bits a channel (32 bits, whole numbers)"),
    "float": (RAMP.astype("<f4"), 3, "has more than 8 bits a channel (32 bits, decimals (float))"),
    "float RGB": (RAMP[..., None].repeat(3, 2).astype("<f4"), 3, "more than 8 bits a channel (32 bits, decimals"),
    "uint16 RGB": ((RAMP[..., None].repeat(3, 2) + 100).astype("<u2"), 1, "more than 8 bits a channel (16 bits, whole"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiff_of_other_numbers_is_named_for_what_it_is(kind):
    pixels, sample_format, words = KINDS[kind]
    said = reason(tiff(pixels, sample_format))
    assert words in said
    black_and_white = {"int8": "[-128, 127]", "int16": "[-32768, 32767]", "float": "[0, 1]", "float RGB": "[0, 1]"}
    example = black_and_white.get(kind, "[0, 65535]")
    assert f": say what is black and white, such as --data.value_range '{example}'" in said


@pytest.mark.parametrize("count", [2, 5])
def test_a_tiff_of_other_channels_is_named(count):
    content = tiff(RAMP[..., None].repeat(count, 2).astype(np.uint8), extra=[0] * (count - 1))
    assert reason(content) == f"has {count} channels (bands) of 8 bits, wanted 1 or 3: save those that are meant"


def test_without_an_extra_the_refusal_names_it(monkeypatch):
    monkeypatch.setattr(deep, "_missing", lambda package, extra: extra)
    assert reason(tiff(*KINDS["uint16"][:2])).endswith(", after pip install 'fastddpm[tiff]'")
    said = reason(tiff(*KINDS["uint16"][:2]), value_range=(0, 40000))
    assert said.endswith("(16 bits, whole numbers): pip install 'fastddpm[tiff]'")
    assert reason(bytes(128) + b"DICM") == "is a DICOM file, which takes pip install 'fastddpm[dicom]'"


@needs("tifffile")
@pytest.mark.parametrize("kind", KINDS)
def test_values_lie_between_the_black_and_white_that_are_said(kind):
    pixels, sample_format, _ = KINDS[kind]
    low, high = float(pixels.min()) + 5, float(pixels.max()) - 5
    found, header = decode(
        lambda: open_bytes(tiff(pixels, sample_format)), Fit(3, meaning=Meaning(value_range=(low, high)))
    )
    wanted = ((pixels.astype(float) - low) / (high - low)).clip(0, 1) * 255
    wanted = wanted[..., None].repeat(3, 2) if pixels.ndim == 2 else wanted
    assert abs(found.transpose(1, 2, 0) - wanted).max() <= 0.5 + 1e-9
    assert header.is_colour == (pixels.ndim == 3)
    assert found.min() == 0 < 255 == found.max()


@needs("tifffile")
def test_white_is_zero_rotation_and_values_that_are_none():
    pixels = ((RAMP + 100) * 300).astype("<u2")
    meaning = Meaning(value_range=(0, 60000))
    plain = decode(lambda: open_bytes(tiff(pixels)), Fit(1, meaning=meaning))[0][0]
    white = decode(lambda: open_bytes(tiff(pixels, photometric=0)), Fit(1, meaning=meaning))[0][0]
    np.testing.assert_array_equal(white, 255 - plain)
    again = lambda: open_bytes(tiff(pixels, orientation=6))  # noqa: E731
    assert inspect(again, meaning).size == (6, 8)
    np.testing.assert_array_equal(decode(again, Fit(1, meaning=meaning))[0][0], np.rot90(plain, -1))
    holes = RAMP.astype("<f4")
    holes[2, 3] = np.nan
    with pytest.raises(BadImage, match="holds values that are not finite"):
        decode(lambda: open_bytes(tiff(holes, 3)), Fit(1, meaning=meaning))


def test_a_16_bit_png_is_read_by_its_range():
    file = io.BytesIO()
    Image.fromarray(((RAMP + 100) * 200).astype(np.uint16)).save(file, "PNG")
    assert "has more than 8 bits a channel (Pillow's mode I;16): say what" in reason(file.getvalue())
    found = decode(lambda: open_bytes(file.getvalue()), Fit(1, meaning=Meaning(value_range=(0, 40000))))[0][0]
    assert abs(found - (RAMP + 100) / 200 * 255).max() < 1


def dicom(pixels, **tags) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.3",
    )
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns, data.SamplesPerPixel = *pixels.shape, 1
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


@needs("pydicom")
def test_a_dicom_is_read_through_its_window_or_the_one_that_is_said():
    import pydicom

    pixels = (np.arange(48).reshape(6, 8) * 60).astype("<u2")
    scale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    content = dicom(pixels, WindowCenter=40, WindowWidth=400, **scale)
    found, header = decode(lambda: open_bytes(content), Fit(1))
    windowed = pydicom.pixels.apply_windowing(pixels.astype(float) - 1024, pydicom.dcmread(io.BytesIO(content)))
    wanted = (windowed - windowed.min()) / (windowed.max() - windowed.min()) * 255
    assert abs(found[0] - wanted).max() <= 0.51
    assert header.size == (8, 6)
    own = Fit(1, meaning=Meaning(window=(40, 400)))
    bare = dicom(pixels, **scale)
    assert (
        reason(bare)
        == "DICOM of 16 bits: say what is black and white, such as --data.window '[40, 400]' (middle, width)"
    )
    np.testing.assert_array_equal(decode(lambda: open_bytes(bare), own)[0], found)
    inverted = dicom(pixels, PhotometricInterpretation="MONOCHROME1", WindowCenter=40, WindowWidth=400, **scale)
    np.testing.assert_array_equal(decode(lambda: open_bytes(inverted), Fit(1))[0], 255 - found)
    small = (pixels // 12).astype(np.uint8)
    np.testing.assert_array_equal(decode(lambda: open_bytes(dicom(small)), Fit(1))[0][0], small)


@needs("pillow_heif")
def test_a_heic_is_read_as_pillow_heif_reads_it(tmp_path):
    import pillow_heif

    rows, columns = np.mgrid[:32, :48]
    image = Image.fromarray(np.stack([rows * 7, columns * 5, rows + columns], -1).astype(np.uint8))
    (tmp_path / "in").mkdir()
    pillow_heif.from_pillow(image).save(tmp_path / "in" / "a.HEIC", quality=100)
    config = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"))
    found = ingest(config, show_progress=False).images[0].transpose(1, 2, 0).astype(int)
    assert abs(found - np.asarray(image).astype(int)).mean() < 3


def test_heic_and_dicom_are_pictures_by_their_names():
    assert all(map(is_image, ("a.heic", "a.HEIF", "a.dcm")))
    if not importlib.util.find_spec("pillow_heif"):
        assert "pip install 'fastddpm[heic]'" in reason(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(99))


@pytest.mark.parametrize(("name", "value"), [("value_range", (5, 5)), ("window", (40, 1))])
def test_a_black_that_is_white_is_refused(tmp_path, name, value):
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=f"data.{name} is "):
        ingest(DataConfig(source=str(tmp_path), cache_dir=str(tmp_path / "c"), **{name: value}), show_progress=False)


def test_mostly_files_of_other_kinds_are_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "in" / "1.png")
    for name in ("1.txt", "2.txt", "3.json", "a.mp4"):
        (tmp_path / "in" / name).touch()
    config = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"))
    assert len(ingest(config, show_progress=False).images) == 1, "text lies beside pictures"
    (tmp_path / "in" / "b.nef").touch()
    with pytest.raises(ValueError, match="holds 1 pictures and 2 files of kinds that are not read: .mp4 .1., .nef"):
        ingest(config, show_progress=False)

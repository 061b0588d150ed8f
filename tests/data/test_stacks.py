"""Stacks: each page or frame is a picture of its own, read alone, and all of a file belong together."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import BadImage, ingest
from fastddpm.data.decode import decode, inspect
from fastddpm.data.fit import Fit
from fastddpm.data.meaning import Meaning
from fastddpm.data.named_pictures import named_images
from fastddpm.data.opening import open_bytes, open_file
from fastddpm.data.splits import load_splits
from fastddpm.data.stacks import at_page, pages_of
from fastddpm.data.store import NAMES, told_groups, unpacked
from tests.data.test_deep import dicom, needs

PAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 8), dtype=np.uint8)


def stack(pages, path=None, **options) -> bytes:
    """A TIFF of these pages, as Pillow writes it."""
    first, *rest = [Image.fromarray(page) for page in pages]
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=rest, **options)
    if path is not None:
        path.write_bytes(file.getvalue())
    return file.getvalue()


def read(tmp_path, source="in", **options):
    config = DataConfig(source=str(tmp_path / source), cache_dir=str(tmp_path / "cache"), **options)
    return ingest(config, show_progress=False)


def reason(content) -> str:
    with pytest.raises(BadImage) as error, open_bytes(content) as image:
        pages_of(image)
    return str(error.value)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "b").mkdir()
    stack(PAGES, tmp_path / "in" / "a" / "scan.tif")
    Image.fromarray(255 - PAGES[0]).save(tmp_path / "in" / "b" / "1.png")
    return tmp_path


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "tiff_lzw"])
def test_pages_are_pictures_named_by_file_and_page_in_one_group(folder, kind, compression):
    stack(PAGES, folder / "in" / "a" / "scan.tif", compression=compression)
    if kind == "zip":
        with zipfile.ZipFile(folder / "in.zip", "w") as archive:
            for file in (folder / "in").rglob("*.*"):
                archive.write(file, file.relative_to(folder / "in").as_posix())
    found = read(folder, {"folder": "in", "zip": "in.zip"}[kind])
    np.testing.assert_array_equal(found.images[:, 0], [*PAGES, 255 - PAGES[0]])
    assert found.label_names == ("a", "b")
    assert list(found.labels) == [0, 0, 0, 0, 1]
    kept = np.load(found.folder / NAMES)
    assert unpacked(kept) == [f"a/scan.tif#{page}" for page in range(4)] + ["b/1.png"]
    assert told_groups(kept) == ['["a/scan.tif"]'] * 4 + [""]


def test_a_split_never_parts_a_stack(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(1)
    for at in range(12):
        stack(rng.integers(0, 256, (5, 6, 8), dtype=np.uint8), tmp_path / "in" / f"{at}.tif")
    config = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"), num_held_out=10)
    splits = load_splits(config, seed=3, show_progress=False)
    assert len(splits.held_out) == 10
    assert not {at // 5 for at in splits.held_out.indices} & {at // 5 for at in splits.train.indices}


def test_rows_beside_a_stack_hold_for_all_its_pages(folder):
    rows = '{"file_name": "a/scan.tif", "label": 3, "sources": ["x.png"]}\n{"file_name": "b/1.png", "label": 1}\n'
    (folder / "in" / "metadata.jsonl").write_text(rows)
    found = read(folder)
    assert [found.label_names[label] for label in found.labels] == ["3", "3", "3", "3", "1"]
    assert told_groups(np.load(found.folder / NAMES))[0] == '["x.png", "a/scan.tif"]'


def test_a_bad_page_is_named_by_file_and_page(folder):
    whole = stack([PAGES[0], PAGES[1], PAGES[2].astype(np.uint16)])
    (folder / "in" / "a" / "scan.tif").write_bytes(whole)
    with pytest.raises(ValueError, match="a/scan.tif#2 has more than 8 bits a channel"):
        read(folder)


def test_pages_of_several_sizes_are_refused_whole(folder):
    """One of them may be a thumbnail, which `data.image_size` would make a picture of."""
    stack([PAGES[0], PAGES[1, :3, :4]], folder / "in" / "a" / "scan.tif")
    with pytest.raises(
        ValueError, match=r"a/scan.tif has several pages, of 2 sizes \(8x6, 4x3\): save the one you want"
    ):
        read(folder, image_size=4, channels=1)


def test_every_verbs_word_reads_pages(folder):
    found = named_images(str(folder / "in" / "a" / "scan.tif") + "#2")
    np.testing.assert_array_equal(found.images[0, 0], PAGES[2])
    assert found.names[0].endswith("scan.tif#2")
    assert len(set(named_images(str(folder / "in" / "a" / "scan.tif")).groups())) == 1


def test_an_upload_of_several_pages_is_refused():
    with pytest.raises(BadImage, match="is animated or has several pages .4.: save the one you want"):
        inspect(lambda: open_bytes(stack(PAGES)), Meaning())


@needs("tifffile")
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}])
def test_pages_of_more_than_8_bits_lie_between_the_black_and_white_that_are_said(tmp_path, options):
    import tifffile

    (tmp_path / "in").mkdir()
    deep = PAGES.astype(np.float32) * 10
    tifffile.imwrite(tmp_path / "in" / "deep.tif", deep, photometric="minisblack", **options)
    found = read(tmp_path, value_range=(0, 2550))
    np.testing.assert_array_equal(found.images[:, 0], PAGES)


@needs("tifffile")
@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 6, 8), {"imagej": True, "metadata": {"axes": "CYX"}}, "holds 3 channels, wanted pages along one axis"),
        ((2, 3, 6, 8), {"imagej": True, "metadata": {"axes": "TZYX"}}, "holds 3 slices x 2 frames, wanted"),
        ((2, 3, 6, 8), {"ome": True, "metadata": {"axes": "TCYX"}}, "holds 3 channels x 2 frames, wanted"),
        ((2, 3, 6, 8), {"photometric": "minisblack"}, "holds 2 on axis 0 x 3 on axis 1, wanted"),
    ],
)
def test_pages_that_are_no_pictures_along_one_axis_are_refused_by_name(shape, options, words):
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros(shape, np.uint8), **options)
    assert words in reason(file.getvalue())
    with pytest.raises(BadImage, match=words.partition(",")[0]):
        inspect(lambda: open_bytes(file.getvalue()), Meaning())


@needs("tifffile")
def test_a_stack_with_one_header_for_all_is_refused():
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(
        file, PAGES, photometric="minisblack", metadata=None, description="ImageJ=1.54\nimages=40\nslices=40\n"
    )
    assert reason(file.getvalue()) == "holds 40 slices by its description, and 4 pages: save each as a page"


@needs("tifffile")
@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "TYX"}},
        {"photometric": "minisblack"},
    ],
)
def test_stacks_of_one_axis_are_read(tmp_path, options):
    import tifffile

    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "one.tif", PAGES, **options)
    np.testing.assert_array_equal(read(tmp_path).images[:, 0], PAGES)


@needs("tifffile")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planar_colour_is_one_picture(dtype):
    import tifffile

    file, planes = io.BytesIO(), PAGES[:3].astype(dtype)
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate")
    again = lambda: open_bytes(file.getvalue())  # noqa: E731
    assert inspect(again, Meaning(value_range=(0, 255))).is_colour
    np.testing.assert_array_equal(decode(again, Fit(3, meaning=Meaning(value_range=(0, 255))))[0], PAGES[:3])


@needs("tifffile")
def test_a_thumbnail_beside_the_picture_is_no_page(tmp_path):
    import tifffile

    (tmp_path / "in").mkdir()
    with tifffile.TiffWriter(tmp_path / "in" / "scan.tif") as file:
        file.write(PAGES[0, :3, :4], subfiletype=1, metadata=None)
        file.write(PAGES[0], metadata=None)
    found = read(tmp_path)
    np.testing.assert_array_equal(found.images[:, 0], PAGES[:1])
    assert unpacked(np.load(found.folder / NAMES)) == ["scan.tif#1"]


@needs("pydicom")
def test_frames_of_a_dicom_are_pictures_each_by_its_own_window(tmp_path):
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    def sequence(**values):
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return [item]

    data = dcmread(io.BytesIO(dicom(PAGES[0])))
    data.NumberOfFrames, data.PixelData = 4, PAGES.tobytes()
    (tmp_path / "in").mkdir()
    data.save_as(tmp_path / "in" / "scan.dcm")
    found = read(tmp_path)
    np.testing.assert_array_equal(found.images[:, 0], PAGES)
    assert unpacked(np.load(found.folder / NAMES))[3] == "scan.dcm#3"
    frames = [
        sequence(
            PixelValueTransformationSequence=sequence(RescaleSlope=2, RescaleIntercept=at, RescaleType="US"),
            FrameVOILUTSequence=sequence(WindowCenter=255.5 + at, WindowWidth=511),
        )[0]
        for at in range(4)
    ]
    data.PerFrameFunctionalGroupsSequence = frames
    data.save_as(tmp_path / "in" / "scan.dcm")
    assert abs(read(tmp_path).images[:, 0].astype(int) - PAGES).max() <= 1


def test_one_page_is_in_memory_at_a_time(tmp_path):
    side = 256
    stack(np.zeros((64, side, side), np.uint8), tmp_path / "a.tif")
    with open_file(tmp_path / "a.tif") as image:
        last = pages_of(image)[-1]
    tracemalloc.start()
    decode(lambda: at_page(open_file(tmp_path / "a.tif"), last), Fit(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * side * side < 64 * side * side

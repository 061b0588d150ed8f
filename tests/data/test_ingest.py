import gzip
import json
import multiprocessing
import struct

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import ingest, sources
from fastddpm.data import ingest as ingest_function


def config(tmp_path, source, **options):
    return DataConfig(source=str(source), cache_dir=str(tmp_path / "cache"), **options)


def read(tmp_path, source, **options):
    return ingest(config(tmp_path, source, **options), show_progress=False)


def write_idx(folder, images, labels=None, *, ending=""):
    def write(name, data):
        (folder / f"{name}{ending}").write_bytes(gzip.compress(data) if ending == ".gz" else data)

    folder.mkdir(exist_ok=True)
    write("train-images-idx3-ubyte", struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
    if labels is not None:
        write("train-labels-idx1-ubyte", struct.pack(">2I", 0x801, len(labels)) + labels.tobytes())
    return folder / f"train-images-idx3-ubyte{ending}"


@pytest.fixture
def digits():
    return np.random.default_rng(0).integers(0, 255, (6, 7, 9), dtype=np.uint8), np.arange(6, dtype=np.uint8) % 3


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_images_and_labels(tmp_path, digits, ending):
    images, labels = digits
    path = write_idx(tmp_path / "idx", images, labels, ending=ending)
    for source in (path, path.parent):
        found = read(tmp_path, source)
        assert np.array_equal(found.images[:, 0], images)
        assert found.labels.tolist() == labels.tolist()
        assert found.label_names == ("0", "1", "2")


def test_idx_without_labels(tmp_path, digits):
    assert read(tmp_path, write_idx(tmp_path / "idx", digits[0])).labels is None


def test_idx_errors_name_the_file(tmp_path, digits):
    images, labels = digits
    path = write_idx(tmp_path / "idx", images, labels[:5])
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte has 5 labels for 6 images"):
        read(tmp_path, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read(tmp_path, path)
    path.write_bytes(b"\x00\x00\x08\x01" + bytes(20))
    with pytest.raises(ValueError, match="is no IDX file of images"):
        read(tmp_path, path)
    (path.parent / "test-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(ValueError, match="holds 2 IDX images files .*; name one of them"):
        read(tmp_path, path.parent)


def test_packaged_digits_are_5000_real_ones(tmp_path):
    found = read(tmp_path, "digits")
    assert found.images.shape == (5000, 1, 28, 28)
    assert np.bincount(found.labels).tolist() == [500] * 10
    assert 0.1 < found.images.mean() / 255 < 0.2


def test_folders_are_classes(tmp_path, image_folder):
    found = read(tmp_path, image_folder)
    assert found.images.shape == (24, 1, 8, 8)
    assert found.label_names == ("dark", "light")
    means = [found.images[found.labels == label].mean() for label in (0, 1)]
    assert means[0] < 100 < means[1]


def test_files_beside_folders_have_no_labels(tmp_path, image_folder):
    Image.new("L", (8, 8)).save(image_folder / "loose.png")
    assert read(tmp_path, image_folder).labels is None


def test_files_that_are_no_images_are_named(tmp_path, image_folder):
    (image_folder / "dark" / "notes.txt").write_text("x")
    (image_folder / ".hidden").write_text("x")
    read(tmp_path, image_folder)
    (report,) = [json.loads(p.read_text()) for p in (tmp_path / "cache").glob("*/ingest.json")]
    assert report["left_out"] == ["dark/notes.txt"]
    assert report["modes"] == {"L": 24}


def test_colour_decides_the_channels_unless_told(tmp_path, image_folder):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(image_folder / "dark" / "red.png")
    assert read(tmp_path, image_folder).images.shape == (25, 3, 8, 8)
    assert read(tmp_path, image_folder, channels=1).images.shape == (25, 1, 8, 8)


def test_sizes_that_differ_are_named(tmp_path, image_folder):
    Image.new("L", (9, 8)).save(image_folder / "dark" / "wide.png")
    with pytest.raises(
        ValueError, match=r"2 sizes, such as .*9x8 \(dark/wide.png\).*; give one with --data.image_size"
    ):
        read(tmp_path, image_folder)
    assert read(tmp_path, image_folder, image_size=16).images.shape == (25, 1, 16, 16)


def test_all_bad_files_are_named_with_their_reasons(tmp_path, image_folder):
    (image_folder / "dark" / "empty.png").write_bytes(b"")
    Image.new("CMYK", (8, 8)).save(image_folder / "light" / "print.jpg")
    with pytest.raises(ValueError, match="2 of 26 files cannot be used") as error:
        read(tmp_path, image_folder)
    assert "dark/empty.png: it is empty" in str(error.value)
    assert "light/print.jpg: its mode is CMYK" in str(error.value)
    with pytest.warns(UserWarning, match="2 files are left out"):
        found = read(tmp_path, image_folder, on_bad_file="skip")
    assert len(found.images) == 24
    with pytest.raises(ValueError, match=r"2 bad files are more than data.max_bad_files \(1\)"):
        read(tmp_path, image_folder, on_bad_file="skip", max_bad_files=1)


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "neither 'digits' nor a path that exists"), ("empty", "has no image files")]
)
def test_no_images_are_said(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        read(tmp_path, tmp_path / name)


def test_second_time_nothing_is_decoded(tmp_path, image_folder, monkeypatch):
    first = read(tmp_path, image_folder)

    def fail(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(sources, "read_image", fail)
    second = read(tmp_path, image_folder)
    assert isinstance(second.images, np.memmap)
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.images, first.images)


def test_changed_folder_is_read_again(tmp_path, image_folder):
    first = read(tmp_path, image_folder)
    Image.new("L", (8, 8), 1).save(image_folder / "dark" / "00.png")
    second = read(tmp_path, image_folder)
    assert second.fingerprint != first.fingerprint
    assert (second.images[0] == 1).all()


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "ingest.json"])
def test_damaged_cache_is_said_and_made_again(tmp_path, image_folder, name):
    first = read(tmp_path, image_folder)
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged .*; it is made again"):
        second = read(tmp_path, image_folder)
    assert second.fingerprint == first.fingerprint


def ingest_once(given, results):
    results.put(ingest_function(given, show_progress=False).fingerprint)


def test_two_processes_may_ingest_at_once(tmp_path, image_folder):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=ingest_once, args=(config(tmp_path, image_folder), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    fingerprints = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(fingerprints) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1

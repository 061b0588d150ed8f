"""Reading in once: the store, its damage, bad files, processes side by side."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import decode, ingest, reading
from fastddpm.data import store as cache
from fastddpm.data.store_filling import Part


@pytest.fixture
def folder(tmp_path):
    """Six grayscale images, 9 wide and 7 high, in two class folders."""
    images = np.random.default_rng(0).integers(0, 256, (6, 7, 9), dtype=np.uint8)
    for index, pixels in enumerate(images):
        path = tmp_path / "images" / ("even", "odd")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


@pytest.fixture
def config(folder, tmp_path):
    def make(**options) -> DataConfig:
        return DataConfig(**{"source": str(folder), "cache_dir": str(tmp_path / "cache"), **options})

    return make


def read(config):
    return ingest(config, show_progress=False)


def store(tmp_path):
    """The only entry of the cache."""
    (entry,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    return entry


def failure(config) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        read(config)
    return str(error.value)


def pixels_of(folder):
    files = sorted(folder.rglob("*.png"), key=lambda path: path.relative_to(folder).as_posix())
    return np.stack([np.asarray(Image.open(file)) for file in files])


def test_odd_grayscale_images_keep_their_pixels_and_labels(folder, config):
    images = read(config())
    assert images.images.dtype == np.uint8
    np.testing.assert_array_equal(images.images[:, 0], pixels_of(folder))
    assert images.images.shape == (6, 1, 7, 9)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.label_names == ("even", "odd")


def test_the_store_is_mapped_and_nothing_decoded_again(folder, config):
    first = read(config())
    expected = np.array(first.images)
    for file in folder.rglob("*.png"):  # no longer images, but of the same size and time
        status = file.stat()
        file.write_bytes(b"x" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = read(config())
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    np.testing.assert_array_equal(second.images, expected)
    assert second.fingerprint == first.fingerprint


def test_a_changed_folder_is_read_in_again(folder, config):
    first = read(config())
    Image.fromarray(np.zeros((7, 9), dtype=np.uint8)).save(folder / "even" / "0.png")
    second = read(config())
    assert second.images[0].max() == 0
    assert second.fingerprint != first.fingerprint


def test_the_fingerprint_follows_labels_too(folder, config):
    first = read(config())
    (folder / "odd").rename(folder / "strange")
    second = read(config())
    np.testing.assert_array_equal(first.images, second.images)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "ingest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_store_is_told_and_made_again(tmp_path, config, caplog, name, harm):
    said = {"flip": "the checksum of it is wrong", "cut": "it has", "remove": "it is missing"}
    if name == "ingest.json":
        said |= {"flip": "", "cut": ""}  # what json says
    first = read(config())
    expected = np.array(first.images)
    path = store(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[0 if name == "ingest.json" else -1] ^= 1
    path.unlink()
    if harm != "remove":
        path.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        second = read(config())
    (record,) = caplog.records
    assert f"are damaged ({said[harm]}" in record.message.replace(name, "it")
    np.testing.assert_array_equal(second.images, expected)
    assert second.fingerprint == first.fingerprint
    caplog.clear()
    read(config())
    assert not caplog.records


def test_image_size_and_channels_are_kept_apart(config):
    assert read(config(image_size=4)).images.shape == (6, 1, 4, 4)
    assert read(config(image_size=4, channels=3)).images.shape == (6, 3, 4, 4)
    assert read(config()).images.shape == (6, 1, 7, 9)


def test_upscaling_counts_from_the_crop(config):
    assert read(config(image_size=10)).facts["num_upscaled_over_2x"] == 0
    assert read(config(image_size=10, center_crop=4)).facts["num_upscaled_over_2x"] == 6


def test_upscaling_by_more_than_two_is_counted(tmp_path, config):
    read(config(image_size=15))
    manifest = json.loads((store(tmp_path) / "ingest.json").read_text())
    assert manifest["num_upscaled_over_2x"] == 6
    assert manifest["sizes"] == {"9x7": 6}
    assert manifest["modes"] == {"L": 6}


def test_one_colour_image_makes_three_channels_of_all(folder, config):
    colour = np.random.default_rng(1).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(colour).save(folder / "odd" / "colour.png")
    images = read(config()).images
    assert images.shape == (7, 3, 7, 9)
    np.testing.assert_array_equal(images[-1], colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(images[0, 0], images[0, 2])
    assert read(config(channels=1)).images.shape == (7, 1, 7, 9)


def test_several_sizes_need_image_size(folder, config):
    Image.fromarray(np.zeros((5, 4), dtype=np.uint8)).save(folder / "odd" / "small.png")
    assert "holds images of 2 sizes: 9x7 (6), 4x5 (1); fit them to one with --data.image_size, such as 4" in failure(
        config()
    )
    assert read(config(image_size=4)).images.shape == (7, 1, 4, 4)


def spoil(folder):
    whole = (folder / "even" / "0.png").read_bytes()
    (folder / "even" / "a-cut.png").write_bytes(whole[:-30])
    (folder / "even" / "b-empty.jpg").touch()
    (folder / "odd" / "c-text.gif").write_text("no picture")
    image = Image.fromarray(np.full((7, 9, 4), 9, dtype=np.uint8))
    image.save(folder / "odd" / "d-transparent.png")  # seen only when decoded, unlike the others


def test_all_bad_files_are_named_with_their_reasons(folder, config):
    spoil(folder)
    text = failure(config())
    assert "4 bad files" in text
    assert "even/a-cut.png cannot be decoded" in text
    assert "even/b-empty.jpg is empty (0 bytes)" in text
    assert "odd/c-text.gif is no image" in text
    assert "odd/d-transparent.png has transparent pixels: give the colour to lay it on" in text
    assert "--data.on_bad_file skip to go on with the other 6" in text


def test_skipped_files_are_listed_and_leave_labels_in_step(tmp_path, folder, config, caplog):
    expected = pixels_of(folder)
    spoil(folder)
    with caplog.at_level(logging.WARNING):
        images = ingest(config(on_bad_file="skip"), show_progress=True)
    assert [record.message for record in caplog.records if "skipped 4 of 10 files" in record.message]
    assert "  even/b-empty.jpg is empty (0 bytes)" in caplog.text
    np.testing.assert_array_equal(images.images[:, 1], expected)
    assert images.images.shape[1] == 3  # the header of the transparent one says colour
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(json.loads((store(tmp_path) / "ingest.json").read_text())["bad_files"]) == 4


def test_the_policy_counts_for_a_mapped_store_as_well(folder, config):
    spoil(folder)
    assert len(read(config(on_bad_file="skip")).images) == 6
    assert "more than data.max_bad_files (3)" in failure(config(on_bad_file="skip", max_bad_files=3))
    assert "4 bad files" in failure(config(on_bad_file="fail"))


def test_many_bad_files_are_named_here_and_all_in_a_file(tmp_path, folder, config):
    for index in range(25):
        (folder / f"bad{index:02d}.png").touch()
    text = failure(config())
    assert "25 bad files" in text
    assert "bad19.png" in text
    assert "bad20.png" not in text
    (whole,) = (tmp_path / "cache").glob("*.bad_files.txt")
    assert f"... and 5 more, all of them in {whole}" in text
    lines = whole.read_text().splitlines()
    assert lines == [f"25 bad files in {folder}:", *(f"  bad{i:02d}.png is empty (0 bytes)" for i in range(25))]
    for good in folder.rglob("[0-9].png"):
        good.unlink()
    whole.unlink()
    assert f"all of them in {whole.parent}" in failure(config())  # also where nothing can be used
    assert list(whole.parent.glob("*.bad_files.txt"))


def test_no_usable_image_is_an_error_under_any_policy(tmp_path, config):
    empty = tmp_path / "spoilt"
    empty.mkdir()
    (empty / "1.png").touch()
    options = {"source": str(empty), "on_bad_file": "skip"}
    assert "none of the 1 files can be used; mend them or give others" in failure(config(**options))
    image = Image.fromarray(np.full((7, 9, 4), 9, dtype=np.uint8))
    image.save(empty / "1.png")
    assert "none of the 1 files can be used; mend them or give others" in failure(config(**options))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_cache_folder_from_the_environment(tmp_path, config, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "elsewhere"))
    read(config(cache_dir=None))
    assert len(list((tmp_path / "elsewhere").glob("*/ingest.json"))) == 1


def _in_child(config, barrier, answers):
    barrier.wait()
    images = read(config)
    answers.put((images.fingerprint, int(images.images.astype(np.int64).sum())))


def test_two_processes_at_once_end_with_one_store(tmp_path, folder, config):
    for index in range(200):
        Image.fromarray(np.full((7, 9), index, dtype=np.uint8)).save(folder / "odd" / f"more{index}.png")
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(2), fork.Queue()
    children = [fork.Process(target=_in_child, args=(config(), barrier, answers)) for _ in range(2)]
    for child in children:
        child.start()
    first, second = answers.get(timeout=60), answers.get(timeout=60)
    for child in children:
        child.join()
    assert first == second
    assert first[1] == pixels_of(folder).astype(np.int64).sum()
    assert store(tmp_path).suffix == ""


# ------------------------------------------------------------------------------------------ killed and gone on


def many(folder):
    """Forty images, four of them copies, two bad ones, read in chunks of six."""
    images = np.random.default_rng(1).integers(0, 256, (36, 7, 9), dtype=np.uint8)
    for index, pixels in enumerate([*images, *images[:4]]):
        Image.fromarray(pixels).save(folder / "odd" / f"more{index:02d}.png")
    (folder / "even" / "bad.png").write_text("no picture")
    Image.fromarray(np.full((7, 9, 4), 9, dtype=np.uint8)).save(folder / "odd" / "transparent.png")


def _killed(config, method, at, torn):
    """Read in, and die at the given call of a method of `Part`."""
    original, calls = getattr(Part, method), []

    def dying(self, *arguments):
        original(self, *arguments)
        calls.append(1)
        if len(calls) == at:
            for name in torn:
                with (self.folder / name).open("ab") as file:
                    file.write(b'{"read": "al')
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Part, method, dying)
    read(config)


@pytest.mark.parametrize(
    ("method", "at", "torn"),
    [
        ("note_checked", 3, ()),
        ("set_shape", 1, ()),
        ("append", 1, ()),
        ("append", 4, ("journal.jsonl", "images.npy", "hashes.bin", "duplicates.bin")),
        ("append", 8, ("labels.bin",)),
        ("finish", 1, ()),
    ],
)
def test_a_killed_process_is_gone_on_with(tmp_path, folder, config, monkeypatch, method, at, torn):
    many(folder)
    monkeypatch.setattr(reading, "_CHUNK", 6)
    options = {"on_bad_file": "skip"}
    whole = read(config(**options, cache_dir=str(tmp_path / "other")))
    arguments = (config(**options), method, at, torn)
    child = multiprocessing.get_context("fork").Process(target=_killed, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    decoded = []
    monkeypatch.setattr(reading, "decode", lambda *a: decoded.append(1) or decode.decode(*a))
    images = read(config(**options))
    expected = {"note_checked": 47, "set_shape": 47, "append": 48 - 6 * at, "finish": 0}[method]
    assert len(decoded) <= expected
    np.testing.assert_array_equal(images.images, whole.images)
    np.testing.assert_array_equal(images.labels, whole.labels)
    np.testing.assert_array_equal(images.duplicates, whole.duplicates)
    assert images.fingerprint == whole.fingerprint
    assert {**images.facts, "files": 0} == {**whole.facts, "files": 0}
    assert (images.facts["num_images"], images.facts["num_duplicates"]) == (42, 4)
    assert not list((tmp_path / "cache").glob("*.part"))


def _killed_in_commit(config):
    cache._facts_of = lambda path: os.kill(os.getpid(), signal.SIGKILL)
    read(config)


def test_a_process_killed_while_it_takes_checksums_is_gone_on_with(folder, config, monkeypatch):
    child = multiprocessing.get_context("fork").Process(target=_killed_in_commit, args=(config(),))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.setattr(reading, "decode", None)  # nothing is read again
    np.testing.assert_array_equal(read(config()).images[:, 0], pixels_of(folder))


def test_what_was_read_of_another_state_of_the_source_counts_for_nothing(tmp_path, folder, config, monkeypatch):
    many(folder)
    monkeypatch.setattr(reading, "_CHUNK", 6)
    arguments = (config(on_bad_file="skip"), "append", 4, ())
    child = multiprocessing.get_context("fork").Process(target=_killed, args=arguments)
    child.start()
    child.join()
    Image.fromarray(np.zeros((7, 9), dtype=np.uint8)).save(folder / "even" / "0.png")
    assert read(config(on_bad_file="skip")).images[0].max() == 0


def test_a_part_whose_images_are_damaged_counts_for_nothing(tmp_path, folder, config, monkeypatch):
    many(folder)
    monkeypatch.setattr(reading, "_CHUNK", 6)
    whole = read(config(on_bad_file="skip", cache_dir=str(tmp_path / "other")))
    arguments = (config(on_bad_file="skip"), "append", 4, ())
    child = multiprocessing.get_context("fork").Process(target=_killed, args=arguments)
    child.start()
    child.join()
    (part,) = (tmp_path / "cache").glob("*.part")
    content = bytearray((part / "images.npy").read_bytes())
    content[200] ^= 1
    (part / "images.npy").write_bytes(content)
    np.testing.assert_array_equal(read(config(on_bad_file="skip")).images, whole.images)


def test_parts_that_nobody_went_on_with_are_removed_after_a_week(tmp_path, config):
    root = tmp_path / "cache"
    old, young = (root / f"{cache.key_of({'any': name})}.part" for name in ("old", "young"))
    for folder, days in ((old, 8), (young, 6), (root / "mine.part", 8)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - days * 86400,) * 2)
    read(config())
    assert not old.exists()
    assert young.is_dir()
    assert (root / "mine.part").is_dir()  # not ours to remove


def test_a_part_being_filled_is_left_alone(tmp_path, config):
    busy = tmp_path / "cache" / cache.key_of({"any": "source"})
    with cache.locked(busy):
        busy.with_suffix(".part").mkdir()
        os.utime(busy.with_suffix(".part"), (0, 0))
        read(config())
        assert busy.with_suffix(".part").is_dir()


# ------------------------------------------------------------------------------------------ counts


def test_copies_are_stored_once_and_counted_and_their_labels_compared(tmp_path, folder, config):
    expected = pixels_of(folder)
    for name in ("even/copy.png", "odd/copy.png", "odd/other.png"):  # of a picture that is labelled even
        (folder / name).write_bytes((folder / "even" / "0.png").read_bytes())
    images = read(config())
    np.testing.assert_array_equal(images.images[:, 0], expected)
    assert images.duplicates.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    (folder / "even" / "bad.png").touch()
    assert "to go on with the other 9" in failure(config())
    facts = images.facts
    assert (facts["num_images"], facts["num_duplicates"], facts["num_label_conflicts"]) == (6, 3, 2)
    assert facts["images_of_label"] == {"0": 4, "1": 5}


def test_a_large_source_is_checked_by_its_folders_and_some_of_its_files(folder, config, monkeypatch):
    many(folder)
    monkeypatch.setattr(cache, "ALL_FILES", 10)
    first = read(config(on_bad_file="skip"))
    assert len(first.facts["stamps"]["files"]) == 10  # of 48
    seen = []
    original = cache._file_stamp
    monkeypatch.setattr(cache, "_file_stamp", lambda path: seen.append(path) or original(path))
    assert read(config(on_bad_file="skip")).fingerprint == first.fingerprint
    assert len(seen) == 10
    (folder / "odd" / "more07.png").unlink()  # shows in its folder, whether it is one of the ten or not
    assert len(read(config(on_bad_file="skip")).images) == len(first.images) - 1


def test_a_disk_without_room_is_noticed_before_anything_is_stored(folder, config, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=300))
    text = failure(config())
    assert "has 0.00 GiB free, 6 images of 9x7 need 0.00 GiB; free some, put --data.cache_dir elsewhere" in text

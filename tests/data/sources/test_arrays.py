"""Images in arrays: the packaged digits, IDX, NPY and NPZ files."""

import gzip
import tracemalloc
import zipfile

import numpy as np
import psutil
import pytest

from fastddpm.config import DataConfig
from fastddpm.data.sources import WHOLE, find_source

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 9, 7), dtype=np.uint8)
LABELS = np.array([3, 0, 1, 2, 3], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    head = [0x00000800 | array.ndim, *array.shape]
    return b"".join(value.to_bytes(4, "big") for value in head) + array.tobytes()


def write_idx(folder, images=IMAGES, labels=LABELS, name="train", end=""):
    folder.mkdir(exist_ok=True)
    pack = gzip.compress if end == ".gz" else bytes
    (folder / f"{name}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
    if labels is not None:
        (folder / f"{name}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))
    return folder / f"{name}-images-idx3-ubyte{end}"


def load(source):
    return find_source(DataConfig(source=str(source))).load()


def message(source) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        load(source)
    return str(error.value)


def pixels_and_labels(pictures):
    found = list(pictures.start_at(0))
    return np.stack([np.asarray(picture.open()) for picture in found]), [picture.label for picture in found]


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_idx_gives_images_and_labels(tmp_path, end, whole_folder):
    file = write_idx(tmp_path, end=end)
    contents = load(tmp_path if whole_folder else file)
    images, labels = pixels_and_labels(contents.splits[WHOLE])
    np.testing.assert_array_equal(images, IMAGES)
    assert labels == LABELS.tolist()
    assert contents.splits[WHOLE].count == 5
    assert [picture.name for picture in contents.splits[WHOLE].start_at(3)] == ["image 3", "image 4"]


def test_idx_goes_without_labels_that_are_not_there(tmp_path):
    assert pixels_and_labels(load(write_idx(tmp_path, labels=None)).splits[WHOLE])[1] == [None] * 5


def test_idx_labels_may_be_packed_when_images_are_not(tmp_path):
    write_idx(tmp_path)
    plain = tmp_path / "train-labels-idx1-ubyte"
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert pixels_and_labels(load(tmp_path).splits[WHOLE])[1] == LABELS.tolist()


def test_other_files_beside_idx_files_are_told(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "1.png").touch()
    assert find_source(DataConfig(source=str(tmp_path))).other_files == ("1.png",)


def test_idx_files_as_mnist_has_them_are_splits(tmp_path):
    write_idx(tmp_path)
    write_idx(tmp_path, IMAGES[:2], LABELS[:2], name="t10k", end=".gz")
    splits = load(tmp_path).splits
    assert {name: pixels_and_labels(pictures)[1] for name, pictures in splits.items()} == {
        "train": LABELS.tolist(),
        "test": LABELS[:2].tolist(),
    }


@pytest.mark.parametrize("other", ["more", "train"])
def test_a_folder_with_other_idx_image_files_names_them(tmp_path, other):
    write_idx(tmp_path)
    file = write_idx(tmp_path, name=other, end=".gz")
    text = message(tmp_path)
    assert "holds several IDX images files (" in text
    assert f"{file.name}" in text
    assert "; give one of them as data.source" in text


def test_idx_errors_say_what_is_wrong(tmp_path):
    file = write_idx(tmp_path, labels=LABELS[:4])
    assert "holds 5 images but" in message(file)
    assert "as a file of labels" in message(tmp_path / "train-labels-idx1-ubyte")
    file.write_bytes(idx(IMAGES)[:-1])
    assert "header says (5, 9, 7) bytes, 314 follow" in message(file)
    file.write_bytes(idx(IMAGES) + b"\0")
    assert "316 follow" in message(file)
    file.write_bytes(b"\x89PNG")
    assert "begins with 0x89504e47, as no file of images that is read does" in message(file)
    file.write_bytes(b"")
    assert "is empty (0 bytes)" in message(file)


@pytest.mark.parametrize("cut", [slice(0, -9), slice(1, None), slice(0, 0)])
def test_a_broken_gzip_file_is_named(tmp_path, cut):
    file = write_idx(tmp_path, end=".gz")
    file.write_bytes(file.read_bytes()[cut])
    text = message(file)
    assert str(file) in text
    assert "no whole gzip file" in text or "begins with" in text or "is empty" in text


def test_a_file_or_path_that_is_no_source_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "begins with 0x68656c6c, as no file" in message(tmp_path / "notes.txt")
    text = message(tmp_path / "nowhere")
    assert f"there is no {tmp_path / 'nowhere'}" in text
    assert '"digits"' in text


COLOUR = np.random.default_rng(1).integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (IMAGES, IMAGES),
        (IMAGES[..., None], IMAGES),
        (IMAGES[:, None], IMAGES),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_of_every_layout_give_the_same_images(tmp_path, stored, expected, kind):
    file = tmp_path / f"images.{kind}"
    np.save(file, stored) if kind == "npy" else np.savez(file, images=stored, labels=LABELS)
    pictures = load(file).splits[WHOLE]
    images, labels = pixels_and_labels(pictures)
    np.testing.assert_array_equal(images, expected)
    assert labels == ([None] * 5 if kind == "npy" else LABELS.tolist())
    assert (pictures.header.size, pictures.header.is_colour) == ((7, 9), expected.ndim == 4)


def test_npz_may_have_splits_and_positional_names(tmp_path):
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2])
    splits = load(file).splits
    assert {name: pictures.count for name, pictures in splits.items()} == {"train": 5, "test": 2}
    assert pixels_and_labels(splits["test"])[1] == [3, 0]
    np.savez(file, COLOUR, LABELS)
    np.testing.assert_array_equal(pixels_and_labels(load(file).splits[WHOLE])[0], COLOUR)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": np.array([[[0.5, np.nan]]])}, "is float64 (from 0.5 to 0.5, 1 values not finite); wanted uint8"),
        (
            {"images": np.full((1, 2, 2), 1e9, dtype=np.float32)},
            "is float32 (from 1e+09 to 1e+09, 0 values not finite)",
        ),
        ({"images": np.zeros((2, 3), dtype=np.uint8)}, "has the shape (2, 3); wanted (N, H, W)"),
        ({"images": np.zeros((0, 3, 3), dtype=np.uint8)}, "has the shape (0, 3, 3)"),
        ({"pictures": IMAGES}, "holds the arrays pictures; wanted `images`"),
        ({"images": COLOUR[0]}, "has the shape (9, 7, 3), as one image in colour has; wanted (1, H, W, C) for that"),
        ({"images": IMAGES.astype(np.int64)}, "is int64 (from 0 to 255); wanted uint8"),
        (
            {"images": np.array([{"a": 1}], dtype=object)},
            "is no whole NPZ file of numbers (Object arrays cannot be loaded",
        ),
    ],
)
def test_npz_errors_say_what_is_wrong(tmp_path, arrays, expected):
    file = tmp_path / "bad.npz"
    np.savez(file, **arrays)
    text = message(file)
    assert str(file) in text
    assert expected in text


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (LABELS[:3], "are uint8 of shape (3,); wanted 5 whole numbers or words"),
        (np.zeros((5, 14)), "are float64 of shape (5, 14)"),
        (np.array([0.5] * 5), "has 0.5; wanted words, or whole numbers from 0"),
        (np.array([0, 1, 2, 3, -1]), "has -1"),
        (np.full(5, 10**10), "has 10000000000"),
        (np.array(list("abcde")), "has another text for every image"),
        (np.array([{}] * 5, dtype=object), "of shape ()"),
    ],
)
def test_labels_that_are_no_classes_are_left_alone(tmp_path, labels, expected):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=labels)
    pictures = load(tmp_path / "a.npz").splits[WHOLE]
    images, found = pixels_and_labels(pictures)
    np.testing.assert_array_equal(images, IMAGES)
    assert found == [None] * 5
    assert expected in pictures.no_labels


def test_words_are_classes(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=np.array(list("bbadd")), x_test=IMAGES[:2], y_test=["a", "c"])
    contents = load(tmp_path / "a.npz")
    assert contents.label_names == ("a", "b", "c", "d")
    assert pixels_and_labels(contents.splits["train"])[1] == [1, 1, 0, 3, 3]


@pytest.mark.parametrize("kind", ["npz", "idx", "digits"])
def test_any_source_goes_without_its_labels(tmp_path, kind):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    write_idx(tmp_path / "idx", labels=LABELS[:2])  # they do not even fit
    source = {"npz": tmp_path / "a.npz", "idx": tmp_path / "idx", "digits": "digits"}[kind]
    contents = find_source(DataConfig(source=str(source), label_column="none")).load()
    assert {picture.label for picture in contents.splits[WHOLE].start_at(0)} == {None}
    assert contents.label_names is None


def test_extensions_may_be_in_capitals(tmp_path):
    np.save(tmp_path / "a.npy", COLOUR)
    np.savez(tmp_path / "b.npz", COLOUR)
    write_idx(tmp_path / "idx", end=".gz")
    for name, capitals in (("a.npy", "A.NPY"), ("b.npz", "B.NPZ")):
        (tmp_path / name).rename(tmp_path / capitals)
        np.testing.assert_array_equal(pixels_and_labels(load(tmp_path / capitals).splits[WHOLE])[0], COLOUR)
    file = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    file.rename(file.with_suffix(".GZ"))
    images, labels = pixels_and_labels(load(tmp_path / "idx").splits[WHOLE])
    np.testing.assert_array_equal(images, IMAGES)
    assert labels == LABELS.tolist()


def test_an_array_file_is_known_under_any_name(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "b.npz", images=IMAGES)
    for name, other in (("a.npy", "a.npz"), ("b.npz", "b.npy")):
        (tmp_path / name).rename(tmp_path / other)
        np.testing.assert_array_equal(pixels_and_labels(load(tmp_path / other).splits[WHOLE])[0], IMAGES)


@pytest.mark.parametrize("name", ["bad.npz", "bad.npy"])
def test_a_broken_array_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no numbers")
    assert f"{tmp_path / name} is no whole" in message(tmp_path / name)
    np.save(tmp_path / "float.npy", np.full((2, 2, 2), np.nan))
    assert "float.npy is float64 (8 values not finite)" in message(tmp_path / "float.npy")


def test_heads_that_are_not_true_are_named_before_anything_is_made(tmp_path):
    def headed(name, head, content=b""):
        head = head.encode().ljust(118) + b"\n"
        array = b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head + content
        if name.endswith(".npy"):
            (tmp_path / name).write_bytes(array)
        else:
            with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("images.npy", array)
        return tmp_path / name

    many, negative = f"({10**12}, 8, 8)", "(-5, 8, 8)"
    for name in ("a.npz", "b.npy"):
        for shape in (many, negative, "(" * 300, "(1, 8", f"({10**30},)"):
            file = headed(name, f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}", bytes(64))
            assert message(file).startswith(f"{file} is no whole NP"), shape
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(IMAGES)[:4] + b"\xff\xff\xff\xff" + idx(IMAGES)[8:]))
    assert "header says (4294967295, 9, 7) bytes, 315 follow" in message(packed)


def test_what_unpacks_to_more_than_memory_holds_is_refused_before_it_is(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((5000, 9, 7), np.uint8))
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(np.zeros((5000, 9, 7), np.uint8))))
    memory = psutil.virtual_memory()._replace(available=500_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    for file in (tmp_path / "a.npz", packed):
        with pytest.raises(ValueError, match="unpacks to .* save the images with np.save as .npy") as refusal:
            pixels_and_labels(load(file).splits[WHOLE])
        assert str(refusal.value).startswith(str(file))


def test_only_the_split_that_is_looked_at_is_unpacked(tmp_path):
    file = tmp_path / "a.npz"
    np.savez_compressed(
        file, x_train=IMAGES, x_test=np.zeros((2**14, 32, 32), np.uint8), other=np.zeros(2**24, np.uint8)
    )
    tracemalloc.start()
    splits = load(file).splits
    assert splits["test"].count == 2**14
    np.testing.assert_array_equal(pixels_and_labels(splits["train"])[0], IMAGES)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()

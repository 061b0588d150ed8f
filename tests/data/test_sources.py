"""Finding and reading the packaged digits, IDX files and folders."""

import gzip

import numpy as np
import pytest
from PIL import Image

from fastddpm.data.sources import find_source

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


def message(source) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what the caller looks at
        find_source(str(source)).load()
    return str(error.value)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_idx_gives_images_and_labels(tmp_path, end, whole_folder):
    file = write_idx(tmp_path, end=end)
    pictures = find_source(str(tmp_path if whole_folder else file)).load()
    read = [np.asarray(pictures.open(i)) for i in range(5)]
    np.testing.assert_array_equal(read, IMAGES)
    np.testing.assert_array_equal(pictures.labels, LABELS)
    assert pictures.label_names == ("0", "1", "2", "3")


def test_idx_goes_without_labels_that_are_not_there(tmp_path):
    pictures = find_source(str(write_idx(tmp_path, labels=None))).load()
    assert pictures.labels is None
    assert pictures.label_names is None


def test_idx_labels_may_be_packed_when_images_are_not(tmp_path):
    write_idx(tmp_path)
    plain = tmp_path / "train-labels-idx1-ubyte"
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    np.testing.assert_array_equal(find_source(str(tmp_path)).load().labels, LABELS)


def test_a_folder_with_two_idx_image_files_names_both(tmp_path):
    write_idx(tmp_path)
    write_idx(tmp_path, name="t10k")
    assert "several IDX images files (t10k-images-idx3-ubyte, train-images-idx3-ubyte)" in message(tmp_path)


def test_idx_errors_say_what_is_wrong(tmp_path):
    file = write_idx(tmp_path, labels=LABELS[:4])
    assert "holds 5 images but" in message(file)
    assert "as a file of labels" in message(tmp_path / "train-labels-idx1-ubyte")
    file.write_bytes(idx(IMAGES)[:-1])
    assert "header says (5, 9, 7) bytes, 314 follow" in message(file)
    file.write_bytes(idx(IMAGES) + b"\0")
    assert "316 follow" in message(file)
    file.write_bytes(b"\x89PNG")
    assert "begins with 0x89504e47, an IDX file of images with 0x00000803" in message(file)
    file.write_bytes(b"")
    assert "begins with 0x00000000" in message(file)


@pytest.mark.parametrize("cut", [slice(0, -9), slice(1, None), slice(0, 0)])
def test_a_broken_gzip_file_is_named(tmp_path, cut):
    file = write_idx(tmp_path, end=".gz")
    file.write_bytes(file.read_bytes()[cut])
    text = message(file)
    assert str(file) in text
    assert "no whole gzip file" in text or "begins with" in text


def test_a_file_or_path_that_is_no_source_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "begins with 0x68656c6c" in message(tmp_path / "notes.txt")
    text = message(tmp_path / "nowhere")
    assert f"there is no {tmp_path / 'nowhere'}" in text
    assert '"digits"' in text


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 3), value, dtype=np.uint8)).save(path)


def test_class_folders_become_labels_in_the_order_of_their_names(tmp_path):
    for name in ("b/1.png", "a/deep/2.png", "c/0.png", "a/1.png"):
        save(tmp_path / name)
    pictures = find_source(str(tmp_path)).load()
    assert pictures.names == ["a/1.png", "a/deep/2.png", "b/1.png", "c/0.png"]
    assert pictures.labels.tolist() == [0, 0, 1, 2]
    assert pictures.label_names == ("a", "b", "c")


@pytest.mark.parametrize("names", [["a/1.png", "a/2.png"], ["a/1.png", "b/1.png", "loose.png"], ["1.png"]])
def test_other_folders_have_no_labels(tmp_path, names):
    for name in names:
        save(tmp_path / name)
    assert find_source(str(tmp_path)).load().labels is None


def test_other_files_are_told_and_hidden_ones_ignored(tmp_path):
    for name in ("1.PNG", ".hidden.png", ".git/2.png"):
        save(tmp_path / name)
    (tmp_path / "labels.csv").touch()
    source = find_source(str(tmp_path))
    assert source.load().names == ["1.PNG"]
    assert source.other_files == ("labels.csv",)


def test_a_folder_without_images_says_what_was_sought(tmp_path):
    (tmp_path / "data.parquet").touch()
    text = message(tmp_path)
    assert "holds no images: looked in all its folders for .png .jpg" in text
    assert "found 1 other files: data.parquet" in text


def test_linked_folders_are_followed_but_not_twice(tmp_path):
    save(tmp_path / "far" / "1.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "near").symlink_to(tmp_path / "far")
    assert find_source(str(root)).load().names == ["near/1.png"]
    (root / "near" / "loop").symlink_to(root)
    assert "is the same folder as" in message(root)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    assert "1.png is a link that leads nowhere" in message(tmp_path)


def test_stamps_change_with_any_file(tmp_path):
    save(tmp_path / "1.png")
    before = find_source(str(tmp_path)).stamps
    assert find_source(str(tmp_path)).stamps == before
    save(tmp_path / "1.png", value=1)
    assert find_source(str(tmp_path)).stamps != before

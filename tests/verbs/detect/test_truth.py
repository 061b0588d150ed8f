"""What masks mark, whatever their values and sizes; which images cannot be measured."""

import numpy as np
import pytest
from PIL import Image

from fastddpm.data.decode import decode
from fastddpm.data.fit import Fit
from fastddpm.data.named_pictures import Fitting, read_inputs
from fastddpm.data.sources import Picture
from fastddpm.verbs.detect.truth import fitted, read_truth


def fitting_of(shape=(8, 8), **options):
    return Fitting(Fit(1, shape, is_settled=True, **options), (1, *shape))


def in_memory(image):
    return Picture("mask", lambda: image)


def truth_of(root, fitting=None, masks=None):
    fitting = fitting or fitting_of()
    inputs = read_inputs([str(root)], fitting, prefers="test")
    return read_truth(masks, inputs, [str(place) for place in range(len(inputs.names))], fitting), inputs


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


WHERE = (slice(2, 5), slice(3, 7))


def corner(value, background=0, shape=(8, 8), dtype=np.uint8):
    pixels = np.full(shape, background, dtype=dtype)
    pixels[WHERE] = value
    return pixels


def palette(colours):
    image = Image.fromarray(corner(1)).convert("P")
    image.putdata(corner(1).ravel().tolist())
    image.putpalette(colours)
    return image


PAINTED = corner((9, 9, 9, 255), (0, 0, 0, 0), (8, 8, 4))


@pytest.mark.parametrize(
    "image",
    [
        *[Image.fromarray(corner(value)) for value in (1, 3, 100, 255)],
        Image.fromarray(corner((255, 0, 0), 0, (8, 8, 3))),
        Image.fromarray(corner(300, dtype=np.uint16)),
        Image.fromarray(corner(255)).convert("1"),
        palette([255, 255, 255, 0, 0, 0]),
        Image.fromarray(PAINTED),
    ],
    ids=["1", "3", "100", "255", "red", "16 bits", "1 bit", "palette", "transparent"],
)
def test_marked_is_what_is_not_background(image, tmp_path):
    image.save(tmp_path / "mask.png")
    found, unseen = fitted(Picture("mask", lambda: Image.open(tmp_path / "mask.png")), fitting_of())
    assert (found == corner(True, dtype=bool)).all()
    assert unseen == 0


def test_black_of_a_jpeg_is_background(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9, (32, 32)).astype(np.uint8)
    pixels[8:24, 8:24] = 250
    Image.fromarray(pixels).save(tmp_path / "mask.jpg", quality=60)
    found, _ = fitted(Picture("mask", lambda: Image.open(tmp_path / "mask.jpg")), fitting_of((32, 32)))
    assert found[8:24, 8:24].all()
    assert found.sum() == 256


@pytest.mark.parametrize("way", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (30, 20), (5, 9), (8, 8)])
@pytest.mark.parametrize("options", [{}, {"center_crop": 20}, {"random_crop": 6}])
def test_no_marked_pixel_is_scaled_away(way, size, options):
    """One own pixel is marked at a time: it is seen, or said to lie outside; and it is where the image has it."""
    if min(size) < options.get("center_crop", 0):
        pytest.skip("the image is refused")
    side = options.get("random_crop")
    fitting = Fitting(Fit(1, (8, 8), way, is_settled=True, **options), (1, side or 8, side or 8))
    rng = np.random.default_rng(0)
    for _ in range(25):
        at, pixels = (int(rng.integers(size[0])), int(rng.integers(size[1]))), np.zeros(size, np.uint8)
        pixels[at] = 1
        found, unseen = fitted(in_memory(Image.fromarray(pixels)), fitting)
        assert found.any() != bool(unseen)
        seen = decode(lambda pixels=pixels: Image.fromarray(pixels * np.uint8(255)), fitting.fit)[0][0]
        assert found[seen > 100].all()


def test_a_mask_of_the_same_size_is_kept_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8)
    found, unseen = fitted(in_memory(Image.fromarray(pixels)), fitting_of())
    assert (found == pixels.astype(bool)).all()
    assert unseen == 0


def screws(root, *, size=(8, 8)):
    """Two cracks with masks, a cut whose mask is empty, a cut without one, two good ones of which one has a mask."""
    for name in (
        "train/good/0",
        "test/good/0",
        "test/good/1",
        "test/crack/0",
        "test/crack/1",
        "test/cut/0",
        "test/cut/1",
    ):
        save(root / f"{name}.png", np.zeros(size, np.uint8))
    for name, value in (("crack/0", 1), ("crack/1", 255), ("cut/0", 0), ("good/0", 0)):
        save(root / "ground_truth" / f"{name}_mask.png", corner(value, shape=size))
    return root


def test_a_picture_of_a_defect_that_no_mask_marks_is_not_normal(tmp_path):
    truth, inputs = truth_of(screws(tmp_path))
    kinds = dict(zip(inputs.names, inputs.kinds, strict=True))
    assert kinds == {name: name.split("/")[1] for name in inputs.names}
    assert {inputs.names[place]: why for place, why in truth.left_out.items()} == {
        "test/cut/0.png": "its mask marks nothing", "test/cut/1.png": "has no mask",
    }  # fmt: skip
    assert truth.is_anomalous.tolist() == [True, True, False, False, False, False]
    assert truth.notes == [
        "2 masks marking nothing: ground_truth/cut/0_mask.png, ground_truth/good/0_mask.png",
        "1 image not measured (has no mask): test/cut/1.png",
        "1 image not measured (its mask marks nothing): test/cut/0.png",
    ]
    other, _ = truth_of(tmp_path, masks=tmp_path / "ground_truth")
    assert other.left_out == truth.left_out
    assert (other.marked == truth.marked).all()


def test_what_the_cut_leaves_out_is_named(tmp_path):
    """Pictures of 64x128, of which the middle is seen."""
    for place, where in (
        ("outside", slice(2, 20)),
        ("part", slice(20, 60)),
        ("inside", slice(50, 70)),
        ("none", slice(0)),
    ):
        save(tmp_path / "in" / f"{place}.png", np.zeros((64, 128), np.uint8))
        mask = np.zeros((64, 128), np.uint8)
        mask[20:44, where] = 3
        if mask.any():
            save(tmp_path / "masks" / f"{place}_mask.png", mask)
    inputs = read_inputs([str(tmp_path / "in")], fitting_of((16, 16)))
    truth = read_truth(tmp_path / "masks", inputs, ["inside", "none", "outside", "part"], fitting_of((16, 16)))
    assert truth.is_anomalous.tolist() == [True, False, False, True]
    assert truth.left_out == {2: "what its mask marks lies outside of what the model sees"}
    assert truth.notes == [
        "1 image marked also outside of what the model sees: part.png",
        "1 image not measured (what its mask marks lies outside of what the model sees): outside.png",
    ]


def test_sets_without_normal_pictures_to_test_are_judged_and_not_measured(tmp_path):
    for name in ("Data/Images/Normal/0", "Data/Images/Anomaly/0"):
        save(tmp_path / f"{name}.png", np.zeros((8, 8), np.uint8))
    save(tmp_path / "Data/Masks/Anomaly/0.png", corner(1))
    truth, inputs = truth_of(tmp_path)
    assert inputs.names == ["Data/Images/Anomaly/0.png"]
    assert truth.notes == ["nothing is measured: 1 of 1 images are anomalous; it takes some of both"]

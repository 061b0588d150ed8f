"""Which pictures a word means, and that every verb sees of a file what its run has in its store."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm import cli
from fastddpm.config import load_config
from fastddpm.data import load_splits
from fastddpm.data.named_pictures import Fitting, named_images, read_inputs
from fastddpm.pipelines.anomaly import AnomalyPipeline
from fastddpm.pipelines.vary import VariationPipeline
from fastddpm.verbs.augment.augment import find
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.demo.opened_model import opened
from fastddpm.verbs.demo.parts import Upload, given_of
from fastddpm.verbs.demo.request import DemoRequest
from fastddpm.verbs.detect.detect import find_known, find_normal
from fastddpm.verbs.detect.request import DetectRequest
from fastddpm.verbs.evaluate.evaluate import EvaluationRequest, find_originals, find_sets
from fastddpm.verbs.evaluate.request import JudgeRequest
from fastddpm.verbs.evaluate.train_judge import find_images, make_judge
from fastddpm.verbs.sample.open_model import open_pipeline
from tests.training.runs import some_images, train_here

GRAY = Fitting.of(None, (1, 8, 8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    """A folder of five PNG files, an NPY file of the same beside it, and the pixels."""
    arrays = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    (tmp_path / "more").mkdir()
    for i, pixels in enumerate(arrays):
        Image.fromarray(pixels).save(tmp_path / "more" / f"{i}.png")
    np.save(tmp_path / "all.npy", arrays)
    return tmp_path / "more", tmp_path / "all.npy", arrays


# ------------------------------------------------------------------------------------------ the grammar


def test_files_folders_and_rows_may_stand_side_by_side(pictures, capsys):
    folder, array, pixels = pictures
    found = read_inputs([str(folder / "3.png"), str(folder), f"{array}#1:3", f"{folder}#4"], GRAY)
    assert np.array_equal(found.images[:, 0], pixels[[3, 0, 1, 2, 3, 4, 1, 2, 4]])
    assert found.names[:3] == [str(folder / "3.png"), "0.png", "1.png"]
    assert len(set(found.names[6:8])) == 2
    assert (found.num_fitted, capsys.readouterr().out) == (0, "")


def test_rows_to_the_end_and_packaged_digits(pictures):
    _, array, pixels = pictures
    assert np.array_equal(named_images(f"{array}#3:").images[:, 0], pixels[3:])
    digits = named_images("digits#7:9")
    assert digits.images.std() > 30
    assert digits.labels.tolist() == [0, 0]
    assert digits.label_names == tuple("0123456789"), "of all rows"
    assert digits.facts == {
        "source": "digits", "split": "all", "rows": "7:9", "num_images": 2, "of": 2, "seed": None
    }  # fmt: skip


def test_at_most_so_many_are_drawn_by_the_seed(pictures):
    _, array, pixels = pictures
    some = [named_images(f"{array}#1:", most=3, seed=seed) for seed in (0, 0, 1, 2)]
    assert np.array_equal(some[0].images, some[1].images)
    assert len({found.images.tobytes() for found in some}) > 1
    assert {image.tobytes() for image in some[0].images[:, 0]} < {image.tobytes() for image in pixels[1:]}
    assert some[0].facts["of"] == 4
    assert (some[2].facts["num_images"], some[2].facts["seed"]) == (3, 1)


def test_a_split_is_train_unless_another_is_named(tmp_path):
    arrays = {f"x_{name}": np.full((count, 8, 8), count, np.uint8) for name, count in (("train", 3), ("test", 2))}
    np.savez(tmp_path / "a.npz", **arrays)
    for word, split in (("a.npz", "train"), ("a.npz:train", "train"), ("a.npz:test", "test")):
        found = named_images(str(tmp_path / word))
        assert found.facts["split"] == split
        assert len(found.images) == len(arrays[f"x_{split}"])
    assert len(named_images(f"{tmp_path}/a.npz:test#1:").images) == 1
    with pytest.raises(ValueError, match=r"a\.npz has the splits train, test, wanted 'valid'; say .*a\.npz:SPLIT"):
        named_images(f"{tmp_path}/a.npz:valid")


def test_a_name_with_the_signs_of_the_grammar_is_a_file_all_the_same(pictures):
    folder, _, pixels = pictures
    for name in ("a#1.png", "b:train.png", "c:test"):
        shutil.copy(folder / "1.png", folder.parent / name) if "." in name else shutil.copytree(
            folder, folder.parent / name
        )
        assert np.array_equal(named_images(str(folder.parent / name)).images[-1, 0], pixels[1 if "." in name else 4])
    assert np.array_equal(named_images(f"{folder.parent}/c:test#2").images[0, 0], pixels[2])


def test_pictures_of_other_sizes_are_made_to_fit(tmp_path, capsys):
    red = str(tmp_path / "red.png")
    Image.new("RGB", (30, 20), (255, 0, 0)).save(red)
    found = read_inputs([red], GRAY)
    assert found.num_fitted == found.facts["fitted"] == 1
    assert "1 of 1 images scaled to 8x8, cut at the middle" in capsys.readouterr().out
    assert (found.images == 76).all(), "luma of red"
    for size in ((8, 8), (8, 10), (9, 4)):
        assert named_images(red, Fitting.of(None, (3, *size))).images[0, :, 4, 3].tolist() == [255, 0, 0]


def test_what_cannot_be_used_is_named(pictures, tmp_path):
    folder, array, _ = pictures
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^1\.png is no image in a format that Pillow reads$"):
        named_images(str(folder), GRAY)
    Image.new("L", (9, 9)).save(folder / "3.png")
    (folder / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 pictures of .*more cannot be used:\n  1\.png is no .*\n  2\.png is empty"):
        named_images(str(folder))
    (folder / "1.png").unlink()
    (folder / "2.png").unlink()
    with pytest.raises(ValueError, match=r"more has images of 2 sizes: 8x8 \(2\), 9x9 \(1\); scale them to one first"):
        named_images(str(folder))
    for rows, where in (("5", "at 5"), ("9:", "at 9"), ("3:3", "end before they begin")):
        with pytest.raises(ValueError, match=f"#{rows} names no image: .*{where}"):
            named_images(f"{array}#{rows}")


@pytest.mark.parametrize("word", ["nowhere.png", "nowhere.npz#0:5", "nowhere.zip", "s3://bucket/x"])
def test_one_refusal_lists_the_forms_of_a_word(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    forms = (
        'wanted an image file, "digits", a folder, .zip or .tar of images, a .csv list, an IDX, .npz, .npy or .parquet '
        "file, or the name of a data set, or RUN:train or RUN:held_out of a run; each also with rows, such as #5, "
        "#0:5 or #5:"
    )
    with pytest.raises(ValueError, match=f"there is no .*{re.escape(forms)}") as refusal:
        named_images(word)
    assert "data.source" not in str(refusal.value)


# ------------------------------------------------------------------------------------------ what every verb sees

SETTINGS = {
    "image_size": {"data.image_size": "8"},
    "center_crop": {"data.center_crop": "8"},
    "center_crop, image_size": {"data.center_crop": "10", "data.image_size": "8"},
    "center_crop enlarged": {"data.center_crop": "4", "data.image_size": "8"},
    "background": {"data.background": "[0, 90, 255]", "data.image_size": "8"},
    "channels": {"data.channels": "1", "data.image_size": "8"},
    "center_crop, background": {"data.center_crop": "8", "data.background": "[200, 90, 0]"},
    "random_crop": {"data.image_size": "12", "train.random_crop": "8"},
    "none": {},
    "wide": {"data.image_size": "[8, 12]"},
    "wide, random_crop": {"data.image_size": "[10, 14]", "train.random_crop": "8"},
    "tall, pad, background": {"data.image_size": "[12, 8]", "data.fit": "pad", "data.background": "[200, 90, 0]"},
    "wide, pad, center_crop": {"data.image_size": "[8, 12]", "data.fit": "pad", "data.center_crop": "10"},
    "square, pad": {"data.image_size": "8", "data.fit": "pad", "data.channels": "1"},
    "odd, stretch": {"data.image_size": "[7, 9]", "data.fit": "stretch"},
}
"""of runs whose network makes 8x8, or as it says"""
ALONE = ("image_size", "center_crop", "background", "wide", "wide, pad, center_crop", "square, pad", "odd, stretch")
"""what other settings here hold together with more: slow"""
SIZES = ((16, 16), (24, 16), (12, 20), (11, 11))


def photos(folder, settings):
    """48 pictures of a few sizes in two class folders, in colour, gray or with transparent parts."""
    rng, has_background = np.random.default_rng(0), "data.background" in settings
    sizes = SIZES if settings else ((8, 8),)
    for i in range(48):
        width, height = (8, 8) if "center_crop enlarged" in str(folder) and i % 4 == 0 else sizes[i % len(sizes)]
        mode = ("RGBA", "LA")[i % 2] if has_background and i % 3 else ("RGB", "L")[i % 2]
        shape = (height, width) if mode == "L" else (height, width, len(mode))
        path = folder / str(i % 2) / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    return folder


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in ALONE else ()) for name in SETTINGS],
)
def photographed(request, tmp_path_factory):
    """(run, its folder of pictures, file name -> what the network was shown of it: bytes)."""
    place = tmp_path_factory.mktemp(request.param.replace(",", ""))
    settings = SETTINGS[request.param]
    folder = photos(place / "photos", settings)
    run = train_here(place / "run", folder, **{
        "train.num_images_seen": "8", "data.num_held_out": "22", "sample.num_images": "1", **settings
    })  # fmt: skip
    splits = load_splits(load_config(run / "config.yaml").data, seed=0, show_progress=False)
    stored = splits.train.source.images
    files = [f"{label}/{path.name}" for label in "01" for path in sorted((folder / label).iterdir())]
    assert len(stored) == len(files), "none is a copy of another"
    if "train.random_crop" in settings:
        top, left = ((side - 8) // 2 for side in stored.shape[2:])
        stored = stored[:, :, top : top + 8, left : left + 8]
    return run, folder, dict(zip(files, stored, strict=True))


def same(images, store, names=None):
    wanted = np.stack([store[name] for name in names or store])
    assert images.shape == wanted.shape
    assert np.array_equal(images, wanted)


def test_vary_and_cutmix_see_what_the_run_stored(photographed, tmp_path):
    run, folder, store = photographed
    words = ["--start_timesteps", 0, "--num_threads", 1, "--out"]
    cli.main(list(map(str, ["vary", run, folder, "--num_images", 1, *words, tmp_path / "varied.npz"])))
    same(_in_file(tmp_path / "varied.npz"), store)
    box = ["--partners", folder, "--box", 0, 0, *next(iter(store.values())).shape[1:], "--num_images", 1]
    cli.main(list(map(str, ["cutmix", run, folder, *box, *words, tmp_path / "blended.npz"])))
    same(_in_file(tmp_path / "blended.npz"), store)


def _in_file(path):
    images = np.load(path)["images"]
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def test_augment_sees_what_the_run_stored(photographed, tmp_path):
    run, folder, store = photographed
    request = AugmentRequest(model=str(run), data=str(folder), out=tmp_path / "out")
    found = find(request, open_pipeline(VariationPipeline, str(run))).data
    same(found.images, store, found.names)
    assert found.labels.tolist() == [int(name[0]) for name in found.names]


def test_detect_and_its_normal_and_known_images_see_what_the_run_stored(photographed, tmp_path):
    run, folder, store = photographed
    word = str(folder)
    request = DetectRequest(model=str(run), images=[word], normal=word, known=word, out=tmp_path / "out")
    fitting = Fitting.of(str(run), AnomalyPipeline.from_pretrained(run).image_shape)
    for found in (read_inputs(request.images, fitting), find_normal(request, fitting), find_known(request, fitting)):
        same(found.images, store, found.names)
    own = dataclasses.replace(request, normal=None)
    held_out = {image.tobytes() for image in find_normal(own, fitting).images}
    assert held_out < {image.tobytes() for image in store.values()}


def test_masks_are_cut_and_scaled_as_their_images(photographed, tmp_path):
    run, folder, _ = photographed
    fitting = Fitting.of(str(run), AnomalyPipeline.from_pretrained(run).image_shape)
    colour = dataclasses.replace(fitting.fit, channels=3, background=(0, 0, 0))
    as_image = dataclasses.replace(fitting, fit=colour, image_shape=(3, *fitting.image_shape[1:]))
    for path in sorted(folder.rglob("*.png"))[:8]:
        mask = np.zeros(Image.open(path).size[::-1], dtype=np.uint8)
        mask[: mask.shape[0] // 2 + 1, mask.shape[1] // 3 :] = 255
        Image.fromarray(mask).convert("RGB").save(tmp_path / "mask.png")
        seen = named_images(str(tmp_path / "mask.png"), as_image).images[0, 0]
        assert np.array_equal(fitting.mask(tmp_path / "mask.png"), seen >= 128)


def test_evaluate_and_judge_see_what_the_run_stored(photographed, tmp_path):
    run, folder, store = photographed
    word = str(folder)
    request = EvaluationRequest(samples=word, reals=f"{run}:held_out", training=word, features=tmp_path, out=tmp_path)
    samples, reals, fitting = find_sets(request, None)
    cpu = torch.device("cpu")
    training = named_images(word, fitting)
    assert np.array_equal(find_originals(request, reals, fitting, cpu).pixels, training.images)
    same(training.images, store, training.names)
    if not any(Image.open(path).size == (8, 8) for path in folder.rglob("*.png")):
        same(samples.images, store, samples.names)
    stored = {image.tobytes() for image in store.values()}
    assert {image.tobytes() for image in reals.images} < stored
    np.savez(tmp_path / "drawn.npz", images=reals.images.transpose(0, 2, 3, 1).squeeze())
    drawn = str(tmp_path / "drawn.npz")
    request = EvaluationRequest(samples=str(run), reals=word, features=tmp_path, out=tmp_path)
    samples, reals, fitting = find_sets(request, drawn)
    assert np.array_equal(samples.images, named_images(f"{run}:held_out").images), "drawn in the size of the network"
    same(reals.images, store, reals.names)
    assert {image.tobytes() for image in find_originals(request, reals, fitting, cpu).pixels} < stored
    request = EvaluationRequest(samples=drawn, reals=f"{run}:train", features=tmp_path, out=tmp_path)
    assert np.array_equal(find_sets(request, None)[0].images, samples.images), "samples are not cut once more"
    request = JudgeRequest(source=f"{run}:train", out=tmp_path / "j.safetensors", num_tested=2, epochs=1)
    assert {image.tobytes() for image in find_images(request).images} < stored
    make_judge(request)


def test_the_page_sees_what_the_run_stored(photographed):
    run, folder, store = photographed
    with opened(DemoRequest(model=str(run), num_threads=1, normal=str(folder))) as page:
        for name, image in store.items():
            assert np.array_equal(given_of(page, Upload(str(folder / name), name)).pixels, image)
        same(page.normal, store)


def test_rows_and_splits_of_a_run_are_words_everywhere(photographed, tmp_path):
    run, _, store = photographed
    held_out = named_images(f"{run}:held_out")
    assert {image.tobytes() for image in held_out.images} < {image.tobytes() for image in store.values()}
    assert len(held_out.images) == 22
    for place in (0, 3):
        assert np.array_equal(named_images(held_out.names[place]).images[0], held_out.images[place])
    out = tmp_path / "varied.npz"
    words = ["--start_timesteps", 0, "--num_images", 1, "--num_threads", 1, "--out", out]
    cli.main(list(map(str, ["vary", run, f"{run}:held_out#1:4", *words])))
    assert np.array_equal(_in_file(out), held_out.images[1:4])


# ------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of 24 gray pictures of 8x8, 20 of them held out."""
    place = tmp_path_factory.mktemp("run")
    return train_here(
        place / "run", some_images(place / "in"), **{"train.num_images_seen": "8", "data.num_held_out": "14"}
    )


def test_evaluate_takes_rows_and_vary_takes_splits_of_a_run(run, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    request = EvaluationRequest(
        samples=f"{tmp_path}/x.npz#0:5", reals=f"{run}:held_out#2:", features=tmp_path, out=tmp_path
    )
    samples, reals, _ = find_sets(request, None)
    assert (len(samples.images), len(reals.images)) == (5, 12)
    words = ["--num_images", 1, "--start_timesteps", 0, "--num_threads", 1, "--out", tmp_path / "out.npz"]
    cli.main(list(map(str, ["vary", run, f"{run}:held_out", *words])))
    assert len(np.load(tmp_path / "out.npz")["images"]) == 14


def test_a_run_alone_names_no_pictures(run):
    with pytest.raises(ValueError, match=r"run is a run; say .*run:train or .*run:held_out for its images"):
        named_images(str(run))


def test_a_transparent_picture_is_refused_with_what_a_verb_can_do(run, tmp_path, capsys):
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    for verb in ("vary", "detect"):
        with pytest.raises(SystemExit):
            cli.main([verb, str(run), str(tmp_path / "clear.png"), "--start_timesteps", "2", "--num_threads", "1",
                      "--out", str(tmp_path / verb)])  # fmt: skip
        said = capsys.readouterr().err
        assert "clear.png has transparent pixels, which a run's data.background decides about" in said
        assert "lay it on a colour first" in said
        assert "--data" not in said
    with (
        opened(DemoRequest(model=str(run), num_threads=1)) as page,
        pytest.raises(ValueError, match=r"clear\.png has transparent pixels, which a run"),
    ):
        given_of(page, Upload(str(tmp_path / "clear.png"), "clear.png"))


def test_a_picture_smaller_than_what_a_run_cuts_out_is_refused_unless_it_fits_already(tmp_path):
    folder = photos(tmp_path / "photos", {"data.center_crop": "10"})
    settings = {"data.center_crop": "10", "data.image_size": "8", "train.num_images_seen": "8"}
    cropped = train_here(tmp_path / "run", folder, **settings)
    fitting = Fitting.of(str(cropped), (3, 8, 8))
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "made.png")
    found = named_images(str(tmp_path / "made.png"), fitting)
    assert np.array_equal(found.images[0], pixels.transpose(2, 0, 1)), "as one that the run itself made"
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    with pytest.raises(
        ValueError, match=r"small\.png is 9x9, smaller than data\.center_crop \(10\): give a larger one"
    ):
        named_images(str(tmp_path / "small.png"), fitting)

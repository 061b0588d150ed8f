"""What the page asks, answered without a page."""

import base64
import contextlib
import io
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm import FastDDPMPipeline, cli
from fastddpm.config import load_config
from fastddpm.data.named_pictures import Fitting, named_images
from fastddpm.data.opening import BadImage
from fastddpm.data.store import image_hash
from fastddpm.verbs.demo import answers
from fastddpm.verbs.demo.answers import AskedToStop, Dials, Given, blend, read_drawing, read_picture, vary
from fastddpm.verbs.demo.opened_model import Best, opened
from fastddpm.verbs.demo.request import DemoRequest
from tests.conftest import class_folders
from tests.training.runs import train_here

SHAPE = (1, 8, 8)
FITTING = Fitting.of(None, SHAPE)


def pixels(path):
    return np.asarray(Image.open(path))[None]


def drawn_by(command, folder):
    """What the command that an answer shows writes when it is run in a folder, but into a file of arrays, not into one
    picture: (K, 1, 8, 8)."""
    program, *words, out = shlex.split(command)
    assert program == "fastddpm"
    assert words[-1] == "--out"
    with contextlib.chdir(folder):
        cli.main([*words, out.replace(".png", ".npz")])
        return np.load(out.replace(".png", ".npz"))["images"][:, None]


def given_of(run, place):
    """A picture that the page offers, as it comes back."""
    pixels = run.examples.images[place]
    return Given(pixels, *run.given_out[image_hash(pixels)])


@pytest.mark.parametrize(
    ("scheduler", "start", "steps", "label"),
    [("dpmsolver++", 8, 5, None), ("dpmsolver++", 20, 20, 1), ("ddim", 8, 5, 2), ("ddpm", 8, 100, None),
     ("dpmsolver++", 0, 5, None)],
)  # fmt: skip
def test_variations_are_those_of_the_command_they_show(run, picture, scheduler, start, steps, label):
    dials = Dials(
        start_timestep=start, count=3, seed=7, class_label=label, guidance_scale=1.5, scheduler=scheduler,
        num_inference_steps=steps,
    )  # fmt: skip
    found = vary(run, read_picture(picture, FITTING), dials)
    assert found.images.shape == (3, 1, 8, 8)
    assert np.array_equal(found.images, drawn_by(found.command, picture.parent))
    assert np.array_equal(found.given, pixels(picture))


def test_blends_are_those_of_the_command_they_show(run, picture):
    other = given_of(run, 1)
    dials = Dials(start_timestep=6, count=2, seed=3, class_label=2, guidance_scale=2.5, num_inference_steps=4)
    found = blend(run, read_picture(picture, FITTING), other, (2, 1, 4, 3), dials)
    assert "--class_label 2 --guidance_scale 2.5" in found.command
    assert np.array_equal(found.images, drawn_by(found.command, picture.parent))
    paste = pixels(picture).copy()
    paste[:, 2:6, 1:4] = other.pixels[:, 2:6, 1:4]
    assert np.array_equal(found.given, paste)
    assert not np.array_equal(found.noised, paste)


def test_start_0_gives_the_picture_back(run, picture):
    found = vary(run, read_picture(picture, FITTING), Dials(start_timestep=0, count=2))
    assert all(np.array_equal(image, pixels(picture)) for image in (*found.images, found.noised))


def test_later_starts_are_further_away(run, picture):
    given = read_picture(picture, FITTING)
    drawn = [vary(run, given, Dials(start_timestep=t, count=8)).images.astype(int) for t in (0, 2, 20)]
    far = [np.abs(images - given.pixels).mean() for images in drawn]
    assert far[0] == 0 < far[1] < far[2]


def test_seeds_follow_one_another(run, picture):
    given = read_picture(picture, FITTING)
    first, second = (vary(run, given, Dials(start_timestep=6, count=2, seed=seed)).images for seed in (0, 1))
    assert np.abs(first[1].astype(int) - second[0]).max() <= 1


def test_bad_pictures_are_refused_by_name_and_reason(bad_pictures):
    for name, (path, reason) in bad_pictures.items():
        with pytest.raises(BadImage) as refusal:
            read_picture(path, FITTING)
        assert str(refusal.value).startswith(f"{name} {reason}"), name


def test_a_file_too_large_is_not_opened(picture, monkeypatch):
    monkeypatch.setattr(answers, "MAX_FILE_BYTES", 10)
    with pytest.raises(BadImage, match="is larger than 0 MiB: make it smaller first"):
        read_picture(picture, FITTING)


def test_pictures_of_other_sizes_fit_as_in_training(tmp_path):
    Image.new("RGB", (300, 200), (255, 0, 0)).save(tmp_path / "red.jpg")
    assert read_picture(tmp_path / "red.jpg", FITTING).pixels.shape == SHAPE
    assert read_picture(tmp_path / "red.jpg", Fitting.of(None, (3, 16, 16))).pixels.shape == (3, 16, 16)
    assert read_picture(tmp_path / "red.jpg", Fitting.of(None, (1, 16, 8))).pixels.shape == (1, 16, 8)


def data_url(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_a_drawing_has_the_models_size():
    canvas = Image.new("RGBA", (80, 80), (0, 0, 0, 255))
    canvas.paste((255, 255, 255, 255), (40, 0, 80, 80))
    found = read_drawing(data_url(canvas), SHAPE)
    assert found.shape == SHAPE
    assert (found[:, :, :4] == 0).all()
    assert (found[:, :, 4:] == 255).all()
    assert read_drawing(data_url(canvas), (3, 8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (data_url(Image.new("RGBA", (80, 80))), "nothing is drawn yet"),
        ("file:///etc/passwd", "the drawing is no PNG"),
        ("http://example.com/a.png", "the drawing is no PNG"),
        ("data:image/png;base64,%%%", "the drawing cannot be decoded"),
        ("data:image/png;base64,AAAA", "is no image"),
    ],
)
def test_bad_drawings_are_refused(url, message):
    with pytest.raises(BadImage, match=message):
        read_drawing(url, SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "asked for 0 pictures; wanted 1 to 16"),
        ({"count": 17}, "asked for 17 pictures; wanted 1 to 16"),
        ({"seed": -1}, "the seed is -1"),
        ({"start_timestep": 21}, "start_timestep is 21; it counts denoising steps, from 0 to 20"),
        ({"scheduler": "euler"}, "got the solver 'euler'; wanted dpmsolver++, unipc, ddim, ddpm"),
        ({"class_label": 4}, "class_labels must be 0 to 2"),
        ({"num_inference_steps": 0}, "got 0 steps; wanted at least 1"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf; it must be finite"),
    ],
)
def test_what_a_browser_would_not_ask_is_refused(run, picture, options, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        vary(run, read_picture(picture, FITTING), Dials(**{"start_timestep": 5, "count": 2, **options}))


def test_a_stopped_computation_lets_the_next_one_begin(run, picture):
    def stop_at_3(done, steps):
        assert steps == 8
        if done == 3:
            raise AskedToStop

    given, dials = read_picture(picture, FITTING), Dials(start_timestep=8, count=2)
    before = vary(run, given, dials).images
    with pytest.raises(AskedToStop):
        vary(run, given, dials, stop_at_3)
    assert np.array_equal(vary(run, given, dials).images, before)


def test_a_run_knows_its_classes_and_held_out_images(run):
    assert run.class_names == ("0", "1", "2")
    assert run.examples.images.shape == (4, 1, 8, 8)
    assert run.name == "tiny"
    assert "8x8 grayscale · 3 classes · 20 timesteps" in run.facts


def test_what_the_page_offers_knows_its_class_and_a_word_for_the_command_line(run):
    for place in range(len(run.examples.names)):
        given = given_of(run, place)
        meant = named_images(given.word)
        assert np.array_equal(meant.images[0], given.pixels)
        assert meant.labels[0] == given.label


def test_the_page_begins_with_what_the_run_draws_its_own_pictures_with(run, run_folder):
    config = load_config(run_folder / "config.yaml").sample
    assert run.best == Best(config.scheduler, config.num_inference_steps, config.guidance_scale)
    assert run.best.guidance_scale == 1.5
    with opened(DemoRequest(model=str(run_folder), num_threads=1, scheduler="ddim", num_inference_steps=7)) as found:
        assert found.best == Best("ddim", 7, 1.5)


def test_a_picture_that_was_tidied_away_is_told_as_that(tmp_path):
    with pytest.raises(BadImage, match="^mine.png is no longer here: pictures are tidied away after an hour; drop it"):
        read_picture(tmp_path / "gone.png", FITTING, "mine.png")


def test_a_saved_pipeline_has_no_examples_and_says_why(unet, scheduler, tmp_path, capsys):
    FastDDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "saved")
    with opened(DemoRequest(model=str(tmp_path / "saved"), num_threads=1)) as found:
        assert found.examples.images.shape == (0, 1, 8, 8)
        assert found.class_names == ()
    assert "no example images: " in capsys.readouterr().out


def test_normal_and_other_pictures_are_told_apart(run_folder, normal):
    rng = np.random.default_rng(6)
    with opened(DemoRequest(model=str(run_folder), num_threads=1, normal=str(normal))) as found:
        assert found.normal.shape == (30, 1, 8, 8)
        bright = Given(np.full(SHAPE, 255, np.uint8), "bright.png")
        assert_can_be_stopped(found, bright)
        white, again = answers.detect(found, bright), answers.detect(found, bright)
        dark = rng.integers(0, 60, (10, *SHAPE), dtype=np.uint8)
        ordinary = [answers.detect(found, Given(picture, "dark.png")) for picture in dark]
        assert len(found.calibrated) == 1
    assert white.score == again.score > white.threshold
    assert sum(one.score > one.threshold for one in ordinary) <= 3
    assert white.overlay.shape == (3, 8, 8)


def assert_can_be_stopped(run, given):
    """The first question, which looks at normal pictures, and each later one tell of every pass and end at any."""

    def stop_at(place):
        def told(done, steps):
            assert done <= place <= steps
            if done == place:
                raise AskedToStop

        return told

    for place in (1, 7):
        with pytest.raises(AskedToStop):
            answers.detect(run, given, stop_at(place))
        assert not run.calibrated
    counted = []
    answers.detect(run, given, lambda done, steps: counted.append((done, steps)))
    first, later = counted.index((1, counted[-1][1])), counted[-1][1]
    assert counted[:first] == [(done + 1, first) for done in range(first)]
    assert counted[first:] == [(done + 1, later) for done in range(later)]
    with pytest.raises(AskedToStop):
        answers.detect(run, given, stop_at(later))


def test_too_few_normal_pictures_are_refused(run_folder, run, pictures):
    with pytest.raises(
        ValueError, match=r"nothing says what is normal: 4 held-out images of the run are too few: start"
    ):
        answers.detect(run, given_of(run, 0))
    few = DemoRequest(model=str(run_folder), num_threads=1, normal=f"{pictures}/0")
    with pytest.raises(ValueError, match="has 8 images; give at least 20"), opened(few):
        pass


def test_pictures_offered_are_none_of_the_normal_ones(tmp_path):
    many = class_folders(tmp_path / "many", *_noise(40))
    folder = train_here(tmp_path / "run", many, **{"data.num_held_out": "28", "train.num_images_seen": "8"})
    with opened(DemoRequest(model=str(folder), num_threads=1)) as found:
        normal = {image.tobytes() for image in found.normal}
        assert (len(found.normal), len(found.examples.names)) == (20, 8)
        assert not normal & {image.tobytes() for image in found.examples.images}
        assert answers.detect(found, Given(found.normal[0], "one.png")).is_normal_one
        assert not answers.detect(found, given_of(found, 0)).is_normal_one
    with opened(DemoRequest(model=str(folder), num_threads=1, normal=f"{folder}:held_out")) as found:
        assert not found.examples.names, "all of them are normal ones"


def _noise(count):
    images = np.random.default_rng(9).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return torch.from_numpy(images), torch.arange(count) % 2

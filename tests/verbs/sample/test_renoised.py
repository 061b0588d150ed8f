"""`fastddpm vary` and `fastddpm cutmix`: images that start from images, into files with their story."""

import json

import numpy as np
import pytest
from PIL import Image

from fastddpm import CutMixPipeline, VariationPipeline, cli
from fastddpm.pipelines.cutmix import masks_of_boxes
from fastddpm.pipelines.renoise import to_x_0
from fastddpm.verbs.sample.renoised import file_names

NAMES = ("a", "b", "c")


@pytest.fixture
def inputs(tmp_path):
    """Three gray pictures of 8x8."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "in" / f"{name}.png")
    return [str(tmp_path / "in" / f"{name}.png") for name in NAMES]


@pytest.fixture
def verb(model, tmp_path):
    """A verb in this process: from timestep 5, micro-batches of four."""

    def run(name, *words, out="out"):
        common = ["--micro_batch_size", 4, "--num_threads", 1, "--out", tmp_path / out]
        start = [] if "--start_timesteps" in words else ["--start_timesteps", 5]
        cli.main(list(map(str, [name, model, *words, *start, *common])))
        return tmp_path / out

    return run


@pytest.fixture
def refused(verb, capsys):
    def run(*words) -> str:
        with pytest.raises(SystemExit) as stop:
            verb(*words)
        assert stop.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("fastddpm: error: ")

    return run


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def pixels(folder, row):
    return np.asarray(Image.open(folder / row["file_name"]))


def test_rows_tell_how_each_variation_is_made_again(verb, model, inputs):
    folder = verb("vary", *inputs, "--start_timesteps", 10, 5, "--num_images", 2, "--seed", 7)
    rows = rows_in(folder)
    assert len(rows) == 12
    assert [row["start_timestep"] for row in rows] == [10] * 6 + [5] * 6
    pipeline = VariationPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.told_classes(to_x_0([Image.open(path) for path in inputs], (1, 8, 8))).tolist()
    assert rows[3] == {
        "file_name": "b-t0010-001.png", "seed": 10, "noise_seed": 10, "label": own[1], "variation_of": inputs[1],
        "start_timestep": 10, "steps": 10, "scheduler": "ddpm", "guidance": 1.0, "precision": "fp32",
        "model": str(model),
    }  # fmt: skip
    assert [row["label"] for row in rows] == [label for label in own for _ in range(2)] * 2
    for row in (rows[3], rows[10]):
        again = pipeline(
            Image.open(row["variation_of"]), start_timestep=row["start_timestep"], seeds=[row["seed"]],
            noise_seeds=[row["noise_seed"]], micro_batch_size=4,
        ).images[0]  # fmt: skip
        apart = np.abs(np.asarray(again).astype(int) - pixels(folder, row).astype(int)).max()
        assert apart <= 1, "channels_last rounds otherwise"


def test_noise_is_shared_if_asked(verb, inputs):
    rows = rows_in(verb("vary", *inputs, "--num_images", 2, "--shared_noise"))
    assert [row["noise_seed"] for row in rows] == [0, 0, 2, 2, 4, 4]
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4, 5]


def test_a_figure_shows_input_noised_and_outputs(verb, inputs, tmp_path):
    alone = verb("vary", *inputs, "--num_images", 3, out="new/alone.png")
    verb("vary", *inputs, "--num_images", 3, "--figure", tmp_path / "beside.png", out="new/x.npz")
    verb("vary", *inputs, "--num_images", 3, "--figure", tmp_path / "folder.png", out="new/folder")
    verb("vary", *inputs, "--num_images", 3, "--figure", tmp_path / "table.png", out="new/x.parquet")
    shown = np.asarray(Image.open(alone))
    for other in ("beside", "folder", "table"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{other}.png")), shown)
    top, left = 16 + 2, shown.shape[1] - 8 - 5 * 90
    assert (shown.shape[0], left < 80) == (16 + 3 * 90 + 2, True), "three rows of input, x_t and three images"
    assert (shown[top:, :left] < 200).any(), "each has its start beside it"
    first = np.load(tmp_path / "new" / "x.npz")["images"][0]
    for column, wanted in ((0, np.asarray(Image.open(inputs[0]))), (2, first)):
        at = left + column * 90
        assert np.array_equal(shown[top : top + 72 : 9, at : at + 72 : 9, 0], wanted)


@pytest.mark.parametrize("name", ["vary", "cutmix"])
def test_a_second_start_finds_all_there_and_other_inputs_are_refused(verb, refused, inputs, capsys, name):
    folder = verb(name, *inputs)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    verb(name, *inputs)
    assert "24 images are there already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "holds images drawn with other settings: images was " in refused(name, *inputs[:2], inputs[0])


def test_blends_tell_pair_box_and_share(verb, model, inputs):
    folder = verb("cutmix", *inputs, "--num_images", 4, "--seed", 3)
    rows = rows_in(folder)
    assert len(rows) == 12
    pairs = [tuple(row["sources"]) for row in rows]
    assert all(partner in inputs and partner != image for image, partner in pairs)
    partners = {name: {partner for image, partner in pairs if image == name} for name in inputs}
    assert max(map(len, partners.values())) == 2, "blends have partners of their own"
    assert len({tuple(row["box"]) for row in rows}) > 6
    pipeline = CutMixPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    for row in rows[::5]:
        assert row["partner_share"] == pytest.approx(row["box"][2] * row["box"][3] / 64, abs=1e-6)
        pair = map(Image.open, row["sources"])
        again = pipeline(*pair, start_timestep=5, seeds=[row["seed"]], micro_batch_size=4)
        assert np.abs(np.asarray(again.images[0]).astype(int) - pixels(folder, row).astype(int)).max() <= 1
        assert again.masks[0].equal(masks_of_boxes([row["box"]], 8, 8)[0]), "the seed alone decides the box"


def test_boxes_and_masks_may_be_given(verb, inputs, tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, 3:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    pairs = [*inputs[:2], "--partners", *inputs[1:], "--num_images", 1, "--start_timesteps", 0]
    by_box = verb("cutmix", *pairs, "--box", 2, 3, 4, 5, out="box")
    by_mask = verb("cutmix", *pairs, "--mask", tmp_path / "mask.png", out="mask")
    first, partner = (np.asarray(Image.open(path)) for path in inputs[:2])
    assert np.array_equal(pixels(by_box, rows_in(by_box)[0]), np.where(mask == 255, partner, first)), (
        "start 0: the paste"
    )
    for box_row, mask_row in zip(rows_in(by_box), rows_in(by_mask), strict=True):
        assert np.array_equal(pixels(by_box, box_row), pixels(by_mask, mask_row))
        assert (box_row["box"], box_row["mask"]) == ([2, 3, 4, 5], None)
        assert (mask_row["box"], mask_row["mask"]) == (None, "mask.png")
        assert box_row["partner_share"] == mask_row["partner_share"] == 20 / 64


@pytest.mark.parametrize(("box", "columns", "rows"), [(["--box", 2, 3, 4, 5], 6, 2), ([], 5, 4)])
def test_a_figure_of_blends_shows_pair_paste_and_noised(verb, inputs, box, columns, rows):
    """Blends with boxes of their own have rows of their own."""
    words = [*inputs[:2], "--partners", *inputs[1:], "--num_images", 2, *box]
    width, height = Image.open(verb("cutmix", *words, out="figure.png")).size
    assert (height, 0 < width - columns * 90 < 90) == (16 + rows * 90 + 2, True)


def test_a_figure_of_eight_blends_is_large_enough_to_see(verb, inputs):
    words = [*inputs[:1], "--partners", *inputs[1:2], "--num_images", 8, "--box", 2, 3, 4, 5]
    width, height = Image.open(verb("cutmix", *words, out="figure.png")).size
    assert width > 12 * 72
    assert height > 72


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vary", "a", "--start_timesteps", 5, 5], "start_timesteps is [5, 5]; give one or several, each once"),
        (["vary", "a", "--start_timesteps", 21], "start_timesteps is 21; it counts denoising steps, from 0 to 20"),
        (
            ["vary", "a", "--num_inference_steps", 6],
            "num_inference_steps is 6; from start_timestep 5 it must be 1 to 5",
        ),
        (["vary", "a", "--figure", "x.jpg"], "--figure is x.jpg; wanted a file that ends in .png"),
        (["vary", "a", "--figure", "x.png", "--num_images", 3_000], "a .png is one grid, of at most 2,500 images"),
        (["vary", "a", "--num_images", 0], "num_images is 0; it must be at least 1"),
        (["vary", "a", "--class_label", 9], "knows 0 to 2, or 3 or 'none' for any class"),
        (["cutmix", "a"], "got one image and no partners; give two images or more, or --partners"),
        (["cutmix", "a", "b", "c", "--partners", "a", "b"], "got 3 images and 2 partners; give one partner an image"),
        (["cutmix", "a", "b", "--box", 2, 3, 7, 5], "leave the image of 8x8"),
        (["cutmix", "a", "b", "--alpha", 0], "alpha is 0.0; it must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(refused, inputs, tmp_path, words, message):
    named = [str(tmp_path / "in" / f"{word}.png") if word in NAMES else word for word in words]
    assert message in refused(*named)
    assert not (tmp_path / "out").exists()


def test_a_picture_has_no_figure_beside_it(model, inputs, tmp_path, capsys):
    words = ["--start_timesteps", "5", "--out", str(tmp_path / "x.png"), "--figure", str(tmp_path / "y.png")]
    with pytest.raises(SystemExit):
        cli.main(["vary", str(model), *inputs, *words])
    assert "x.png is a picture of all already; leave --figure out" in capsys.readouterr().err


def test_names_of_files_are_the_inputs_own():
    assert file_names(["x/00.png", "y/01.png"]) == ["00", "01"]
    assert file_names(["x/00.png", "y/00.png"]) == ["0000-00", "0001-00"]
    assert file_names(["image 3 of all.npy", "../é:b.png"]) == ["image-3-of-all", "é-b"]

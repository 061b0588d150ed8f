"""`fastddpm augment`: what it writes, and that others read it."""

import os
import shutil
from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline, VariationPipeline, cli
from fastddpm.config import DataConfig, load_config
from fastddpm.data import load_splits
from fastddpm.pipelines.cutmix import masks_of_boxes
from tests.conftest import stock_unet
from tests.forked import run_python
from tests.training.runs import free_port, train_here
from tests.verbs.augment.conftest import every_byte, pixels, record_of, rows_in


def alone(model, row, data, label):
    """The variation of a row by the Python pipeline."""
    pipeline = VariationPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    again = pipeline(
        Image.open(data / row["sources"][0]), start_timestep=row["start_timestep"], seeds=[row["seed"]],
        class_labels=[label], micro_batch_size=4,
    )  # fmt: skip
    return np.asarray(again.images[0]).astype(int)


@pytest.mark.parametrize("starts", [[10, 5], ["3:9"]])
def test_variations_are_those_of_vary(augment, model, data, starts):
    out = augment("--start_timesteps", *starts, "--num_images", 2, "--seed", 7)
    rows = rows_in(out)
    assert len(rows) == 11 * 2 * (2 if starts == [10, 5] else 1)
    assert sorted(row["seed"] for row in rows) == list(range(7, 7 + len(rows)))
    assert [row["start_timestep"] for row in rows] == sorted(row["start_timestep"] for row in rows)
    seen = {row["start_timestep"] for row in rows}
    assert seen == {5, 10} if starts == [10, 5] else len(seen) > 3 and seen <= set(range(3, 10))
    for row in (rows[0], rows[9], rows[-1]):
        (source,) = row["sources"]
        assert source.startswith(f"{row['label']}/")
        again = alone(model, row, data, row["label"])
        assert np.abs(pixels(out, row) - again).max() <= 1, "channels_last rounds otherwise"
        away = np.sqrt(np.square(pixels(out, row) - np.asarray(Image.open(data / source)).astype(float)).mean())
        assert row["source_distances"] == [round(away, 3)]
    assert rows[0] == {
        "file_name": f"{rows[0]['label']}/{rows[0]['seed']:06d}.png", "seed": rows[0]["seed"],
        "label": rows[0]["label"], "label_name": str(rows[0]["label"]), "sources": rows[0]["sources"],
        "start_timestep": rows[0]["start_timestep"], "steps": rows[0]["start_timestep"], "scheduler": "ddpm",
        "guidance": 1.0, "precision": "fp32", "model": str(model), "source_distances": rows[0]["source_distances"],
        "nearest_distance": None, "nearest_closeness": None,
    }  # fmt: skip


def test_samples_are_those_of_the_class(augment, model):
    rows = rows_in(out := augment("--mode", "samples", "--num_inference_steps", 4))
    assert Counter(row["label"] for row in rows) == {0: 6, 1: 3, 2: 2}
    assert all(row["sources"] == row["source_distances"] == [] and row["start_timestep"] is None for row in rows)
    pipeline = FastDDPMPipeline.from_pretrained(model)
    again = pipeline(seeds=[8], class_labels=[rows[8]["label"]], num_inference_steps=4, micro_batch_size=4).images[0]
    assert np.abs(pixels(out, rows[8]).astype(int) - np.asarray(again).astype(int)).max() <= 1


def test_soft_labels_are_the_shares_of_the_area(augment, data):
    out = augment("--mode", "cutmix", "--num_images", 6, "--start_timesteps", 1)
    rows = rows_in(out)
    assert len(rows) == 66
    assert sum(0 < max(row["soft_label"]) < 1 for row in rows) > 20
    for row in rows:
        first, second = (int(name.split("/")[0]) for name in row["sources"])
        assert row["sources"][0] != row["sources"][1]
        share = float(masks_of_boxes([row["box"]], 8, 8).double().mean())
        wanted = [0.0] * 3
        wanted[first] += 1 - share
        wanted[second] += share
        assert row["soft_label"] == pytest.approx(wanted, abs=1e-6)
        assert row["soft_label"][row["label"]] == max(row["soft_label"]), "it lies with the larger part"
        assert len(row["source_distances"]) == 2


def test_blends_hold_both_sources(plain_model, augment, data):
    """At timestep 1 hardly anything is denoised: the blend is its paste."""
    out = augment("--mode", "cutmix", "--start_timesteps", 1, model=plain_model)
    noise = []
    for row in rows_in(out):
        image, partner = (np.asarray(Image.open(data / name)).astype(int) for name in row["sources"])
        inside = masks_of_boxes([row["box"]], 8, 8)[0, 0].numpy()
        noise.append(np.abs(pixels(out, row) - np.where(inside, partner, image)).mean())
    assert np.mean(noise) < 12


def test_balance_gives_each_class_as_many_as_the_largest(augment):
    rows = rows_in(augment("--balance", "--num_images", 2, "--start_timesteps", 2))
    assert Counter(row["label"] for row in rows) == {0: 12, 1: 12, 2: 12}
    times = Counter(row["sources"][0] for row in rows)
    assert {times[name] for name in times if name[0] == "0"} == {2}
    assert {times[name] for name in times if name[0] == "1"} == {4}
    assert {times[name] for name in times if name[0] == "2"} == {6}


@pytest.mark.parametrize("mode", ["variations", "cutmix", "samples"])
def test_datasets_loads_both_forms(augment, tmp_path, mode):
    words = ["--mode", mode, "--start_timesteps", 2]
    folder, table = augment(*words), augment(*words, out="x.parquet")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "c"))
    again = datasets.load_dataset("parquet", data_files=str(table), split="train", cache_dir=str(tmp_path / "c"))
    assert len(loaded) == len(again) == 11
    assert again.features["label"].names == ["0", "1", "2"]
    told = {row["file_name"]: row for row in rows_in(folder)}
    by_seed = {row["seed"]: row for row in again}
    for row in loaded:
        other = by_seed[row["seed"]]
        assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"]))
        for name, value in told[other["file_name"]].items():
            assert other[name] == value, name
            assert name == "file_name" or row[name] == value, name
    assert ("soft_label" in loaded.features) == (mode == "cutmix")


def test_our_own_trainer_reads_the_labels(augment, tmp_path):
    for name in ("out", "x.parquet"):
        out = augment("--start_timesteps", 2, out=name)
        settings = {"data.source": str(out), "data.cache_dir": str(tmp_path / "cache"), "output_dir": "none"}
        source = load_splits(load_config(None, settings).data, seed=0, show_progress=False).train.source
        assert source.label_names == ("0", "1", "2")
        assert Counter(source.labels.tolist()) == {0: 6, 1: 3, 2: 2}


def test_an_unlabelled_model_keeps_the_labels_of_the_data(augment, plain_model):
    rows = rows_in(augment(model=plain_model))
    assert Counter(row["label_name"] for row in rows) == {"0": 6, "1": 3, "2": 2}


def test_any_class_leaves_the_class_out(augment, model, data):
    out = augment("--any_class")
    row = rows_in(out)[4]
    with_class = rows_in(other := augment(out="other"))[4]
    assert row["seed"] == with_class["seed"]
    assert not np.array_equal(pixels(out, row), pixels(other, with_class))
    assert np.abs(pixels(out, row).astype(int) - alone(model, row, data, 3)).max() <= 1, "3 is the null class"


def test_rows_and_pictures_of_other_sizes_are_taken(augment, tmp_path, data, capsys):
    assert [row["sources"] for row in rows_in(augment(data=f"{data}#5:7"))] == [["0/005.png"], ["1/006.png"]]
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 8, 8), np.uint8), labels=[0, 2, 1])
    augment(data=f"{tmp_path / 'x.npz'}#0", out="one.parquet")
    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "one.parquet"), split="train")
    assert table.features["label"].names == ["0", "1", "2"], "of all rows"
    assert table["sources"][:] == [["image 0"]]
    Image.new("RGB", (20, 12), (200, 0, 0)).save(data / "2" / "large.png")
    capsys.readouterr()
    assert len(rows_in(augment(out="fitted"))) == 12
    assert "1 of 12 images scaled to 8x8, cut at the middle" in capsys.readouterr().out


def test_names_that_readers_take_for_others_get_numbers(augment, plain_model, tmp_path):
    rng = np.random.default_rng(0)
    names = ["train", "a/b", "A-B"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    images = [Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(6)]
    table = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 2] * 2}, features=features)
    table.to_parquet(tmp_path / "table.parquet")
    out = augment(data=tmp_path / "table.parquet", model=plain_model)
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["0000-train", "0001-a-b", "0002-A-B"]
    assert {row["label_name"] for row in rows_in(out)} == set(names)
    source = load_splits(DataConfig(source=str(out), cache_dir=str(tmp_path / "cache")), seed=0).train.source
    assert source.label_names == tuple(names)
    assert len(source.images) == len(rows_in(out))


def test_the_same_command_again_changes_nothing(augment, tmp_path, capsys):
    before = every_byte(augment())
    assert "11 images are there already" not in capsys.readouterr().out
    assert every_byte(augment()) == before
    assert "11 images are there already" in capsys.readouterr().out
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".out")], "the parts are gone"


SCRIPT = """
import os, signal, sys
from fastddpm import cli
from fastddpm.verbs.sample import outputs

kill_at, *words = sys.argv[1:]
put, replace = outputs.File.put, os.replace

def killed(self, index, images):
    if index == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, index, images)

def killed_at_the_end(source, target):
    if kill_at == "-2" and str(target).endswith(os.environ["OUT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

outputs.File.put, os.replace = killed, killed_at_the_end
cli.main(words)
"""


def launch(tmp_path, words, *, processes=1, kill_at=-1, out="out"):
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = []
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--master_port", str(free_port())]
    given = {"ACCELERATE_USE_CPU": "true", "OUT": f"/{out}"}
    return run_python([*launcher, tmp_path / "script.py", str(kill_at), *words], env={**os.environ, **given})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kill_at"), [("out", 1), ("out", -2), ("out.parquet", 2)])
def test_a_killed_job_goes_on_to_the_same_bytes(augment, model, data, tmp_path, name, kill_at):
    words = ["--mode", "cutmix", "--start_timesteps", "3:9"]
    (tmp_path / "straight").mkdir()
    augment(*words, out=f"straight/{name}")
    common = ["--micro_batch_size", 4, "--num_threads", 1, "--out", tmp_path / "killed" / name]
    done = launch(tmp_path, ["augment", model, data, *words, *common], kill_at=kill_at, out=name)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "killed" / name).exists(), "what is not finished is not there"
    augment(*words, out=f"killed/{name}")
    assert every_byte(tmp_path / "killed") == every_byte(tmp_path / "straight")


@pytest.mark.slow
def test_two_processes_agree_that_training_images_are_gone(augment, data, image_folder, tmp_path):
    run = train_here(tmp_path / "run", image_folder, **{"train.num_images_seen": "8"})
    shutil.rmtree(image_folder)
    shutil.rmtree(image_folder.parent / "cache")
    words = ["augment", run, data, "--start_timesteps", 5, "--micro_batch_size", 4, "--num_threads", 1]
    done = launch(tmp_path, [*words, "--out", tmp_path / "two"], processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no distances to training images: the training images of") == 1
    assert rows_in(tmp_path / "two") == rows_in(augment(model=run))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_two_processes_write_the_bytes_of_one(augment, model, data, tmp_path, name):
    words = ["--start_timesteps", "3:9", "--num_images", 2, "--balance"]
    augment(*words, out=f"one/{name}")
    common = ["--micro_batch_size", 4, "--num_threads", 1, "--num_processes", 2, "--out", tmp_path / "two" / name]
    done = launch(tmp_path, ["augment", model, data, *words, *common], processes=2)
    assert done.returncode == 0, done.stderr
    assert "2 processes of 1 thread" in done.stdout
    assert done.stdout.count("contact sheet:") == 1
    assert every_byte(tmp_path / "two") == every_byte(tmp_path / "one")


def test_the_record_and_the_sheet_lie_beside(augment, tmp_path, capsys):
    out = augment("--seed", 3)
    record = record_of(out)
    assert record["counts"] == {"drawn": 11, "kept": 11, "label_lost": 0, "copy": 0}
    assert record["counts_by_class"]["2"] == {"drawn": 2, "kept": 2, "label_lost": 0, "copy": 0}
    assert record["settings"]["seed"] == 3
    assert "is no run folder" in record["training"]["unknown"]
    printed = capsys.readouterr().out
    assert "no distances to training images" in printed
    assert "the model's classes have no names here: labels go by their numbers" in printed
    assert f"11 images, 11 kept: {out} (11 in " in printed
    sheet = np.asarray(Image.open(tmp_path / "out.png"))
    assert sheet.shape[1] > 200
    assert sheet.std() > 20


def test_a_file_that_lies_beside_is_not_written_over(augment, refused, tmp_path):
    (tmp_path / "out.json").write_text("mine")
    assert refused().endswith(
        "out.json is there already, and would be written over; move it away, or choose another --out"
    )
    assert (tmp_path / "out.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_other_requests_are_not_mixed(augment, refused, name):
    augment(out=name)
    line = refused("--num_images", 2, "--balance", out=name)
    assert "holds images drawn with other settings: num_images was 1, now 2; balance was False, now True" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--start_timesteps", 5, 5],
            "start_timesteps is (5, 5); wanted different numbers of denoising steps from 1 on",
        ),
        (["--start_timesteps", "9:5"], "start_timesteps is 9:5; wanted different numbers"),
        (["--start_timesteps", "a"], "start_timesteps is a; wanted different numbers of denoising steps from 1 on"),
        (
            ["--start_timesteps", 0, 5],
            "start_timesteps is [0, 5]; wanted different numbers of denoising steps from 1 on",
        ),
        (["--start_timesteps", 5, 21], "start_timesteps is 21; it counts denoising steps, from 0 to 20"),
        (["--start_timesteps", "2:9", "--scheduler", "ddim"], "needs all steps of the ddpm solver, got DDIMScheduler"),
        (["--start_timesteps", "2:9", "--num_inference_steps", 2], "got FusedDDPMScheduler in 2 steps; list some"),
        (["--num_images", 0], "num_images is 0; it must be at least 1"),
        (["--mode", "cutmix", "--alpha", 0], "alpha is 0.0; it must be above 0"),
        (
            ["--mode", "cutmix", "--guidance_scale", 2],
            "guidance_scale is 2.0, but these images are drawn for any class",
        ),
        (["--mode", "samples", "--any_class"], "mode is 'samples', each of a class, and any_class is given"),
        (["--judge", "none.safetensors"], "none.safetensors is no file; give a .safetensors file of `fastddpm judge`"),
        (["--split", "test"], "has the splits all, wanted 'test'; say"),
        (["--seed", -1], "seed is -1; it must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(refused, tmp_path, words, message):
    assert message in refused(*words)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.parts").exists()


def test_data_that_do_not_fit_are_refused(refused, data, plain_model, tmp_path):
    assert f"mode 'samples' draws by class, but {plain_model} was trained without" in refused(
        "--mode", "samples", model=plain_model
    )
    (tmp_path / "flat").mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 50 * i).save(tmp_path / "flat" / f"{i}.png")
    assert "flat has no labels; wanted class folders, a table or list with" in refused(data=tmp_path / "flat")
    assert "got one image; a blend takes two" in refused("--mode", "cutmix", data=f"{data}#0")
    Image.new("L", (8, 8)).save(data / "3.png")
    os.makedirs(data / "3")
    os.rename(data / "3.png", data / "3" / "x.png")
    line = refused()
    assert f"the model {tmp_path / 'model'} does not know 3, which the data have; it knows 0 to 2" in line
    Image.new("LA", (9, 8)).save(data / "1" / "clear.png")
    (data / "2" / "broken.png").write_bytes(b"no picture")
    line = refused()
    assert "2 pictures of" in line
    assert "1/clear.png has transparent pixels" in line
    assert "2/broken.png is no image in a format that Pillow reads" in line
    assert not (tmp_path / "out").exists()


def test_other_endings_are_refused(refused):
    assert "x.npz; wanted a folder, or a file that ends in .parquet" in refused(out="x.npz")
    assert "x.jpg; wanted a folder" in refused(out="x.jpg")


def test_a_model_that_needs_a_class_takes_no_blends(scheduler, tmp_path, refused, monkeypatch):
    FastDDPMPipeline(stock_unet(num_class_embeds=3), scheduler).save_pretrained(tmp_path / "needs")
    line = refused("--mode", "cutmix", model=tmp_path / "needs")
    assert 'the model needs a class for each image and knows none for "any"' in line


def test_help_says_what_it_does(capsys):
    cli.main(["augment", "--help"])
    assert "or RUN:train, RUN:held_out" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("out", ["out", "x.parquet"])
def test_parts_that_are_left_of_a_whole_result_go(augment, tmp_path, out):
    """R6: killed while they were removed, where each later start ended with "Directory not empty"."""
    augment(out=out)
    before = every_byte(tmp_path)
    (tmp_path / f".{out}.parts").mkdir()
    augment(out=out)
    assert every_byte(tmp_path) == before
    assert not (tmp_path / f".{out}.parts").exists()

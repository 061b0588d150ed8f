"""Mistakes that can be known beforehand: one line, exit code 2, in a moment, over verbs and what goes wrong in them."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, cli, load_config, train
from fastddpm.config.early_checks import check_asked
from fastddpm.config.runs import find_run
from fastddpm.verbs.sample.open_model import open_pipeline
from fastddpm.verbs.sample.request import SampleRequest
from fastddpm.verbs.sample.samples import sample
from tests.conftest import tiny_unet
from tests.training.runs import free_port

MODEL_VERBS = {
    "sample": ["RUN", "--out", "new"],
    "vary": ["RUN", "images/0.png", "--out", "new"],
    "cutmix": ["RUN", "images", "--out", "new"],
    "augment": ["RUN", "images", "--out", "new"],
    "detect": ["RUN", "images", "--out", "new", "--normal", "images"],
    "demo": ["RUN"],
    "push": ["RUN", "ann/model"],
    "ledger": ["RUN", "--out", "new.jsonl"],
}
TOLD = {
    "runs/ine": "there is no run runs/ine; runs that are here: runs/fine, runs/plain, runs/dcgan",
    "fin": "there is no run fin; runs that are here: runs/fine, ",
    "images": "images holds images, no model: did you mean the other order? The run comes first",
    "images/0.png": "images/0.png is a picture, no run: did you mean the other order? The run comes first",
    "notes.txt": "notes.txt is a file, no run: name a folder",
    "runs/fine/model_index.json": "runs/fine/model_index.json is a file, no run: name the folder runs/fine",
    "runs/fine/unet": "runs/fine/unet is a part of the run runs/fine: name that",
    "runs": "runs holds no model itself; runs in it: runs/dcgan, runs/fine, runs/half, runs/plain",
    "empty": "empty holds no model; runs that are here: ",
    "runs/half": "the run in runs/half has no checkpoint yet; wait for its first, or start fastddpm train again",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs and other things in a folder."""
    root = tmp_path_factory.mktemp("mistakes")
    scheduler = FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5)
    fine = FastDDPMPipeline(tiny_unet(num_class_embeds=4), scheduler, label_names=["cat", "dog", "scratch"])
    fine.save_pretrained(root / "runs" / "fine")
    FastDDPMPipeline(tiny_unet(), scheduler).save_pretrained(root / "runs" / "plain")
    for name in ("runs/dcgan", "runs/half/checkpoints", "images", "empty"):
        (root / name).mkdir(parents=True)
    (root / "runs/dcgan/model_index.json").write_text('{"_class_name": "DCGANPipeline"}')
    (root / "runs/half/config.yaml").write_text("data: {num_held_out: 0}\n")
    Image.new("L", (8, 8)).save(root / "images" / "0.png")
    (root / "notes.txt").write_text("notes")
    return root


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return made


@pytest.fixture
def refused(here, capsys):
    """Run a verb; its error, after a look that there is nothing else."""

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(words))
        said = capsys.readouterr()
        assert stop.value.code == 2
        assert said.out == ""
        assert said.err.startswith("fastddpm: error: ")
        assert said.err.count("\n") == 1
        for word in ("Traceback", "usage", "HF_TOKEN", "huggingface", "diffusers"):
            assert word not in said.err
        return said.err.removeprefix("fastddpm: error: ").rstrip()

    return run


@pytest.mark.parametrize("verb", MODEL_VERBS)
@pytest.mark.parametrize("run", TOLD)
def test_what_is_no_run_is_told_what_it_is_or_which_runs_there_are(refused, verb, run):
    if run == "runs/half" and verb in ("push", "ledger"):  # which say what they lack themselves
        return
    assert refused(verb, *[run if word == "RUN" else word for word in MODEL_VERBS[verb]]).startswith(TOLD[run])


def test_train_may_be_a_split_of_a_source_too(here):
    for word in ("images:train", "images/0.png:train"):
        check_asked("judge", {"source": word, "out": "judge.safetensors"})


FINE, PLAIN, PICTURE = "runs/fine", "runs/plain", "images/0.png"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["vary", FINE, PICTURE, "--out", "x", "--start_timesteps", "30"], "it counts denoising steps, from 0 to 20"),
        (["cutmix", FINE, PICTURE, "--out", "x", "--start_timesteps", "30"], "it counts denoising steps, from 0 to 20"),
        (["detect", FINE, PICTURE, "--out", "x", "--normal", "images", "--start_timesteps", "30"], "from 0 to 20"),
        (["sample", FINE, "--out", "x", "--class_label", "7"], "class_label is 7; runs/fine knows 0 to 2 (0 cat, 1"),
        (["vary", PLAIN, PICTURE, "--out", "x", "--class_label", "1"], "runs/plain knows no classes: leave it out"),
        (["sample", PLAIN, "--out", "x", "--guidance_scale", "2"], 'has no class for "any" to be guided away from'),
        (["sample", FINE, "--out", "x", "--num_inference_steps", "30"], "num_inference_steps is 30; it must be 1 to"),
        (["sample", FINE, "--out", "x", "--scheduler", "ddim", "--num_inference_steps", "7"], "must divide 20: use"),
        (
            ["vary", FINE, PICTURE, "--out", "x", "--start_timesteps", "8", "--scheduler", "ddim",
             "--num_inference_steps", "3"],
            "ddim has no 3 steps from start_timestep 8 on its grid of 20; use num_inference_steps 2, 4, 8, or dpm",
        ),
        (["sample", FINE, "--out", "x", "--precision", "fp16"], "precision fp16 needs a GPU and there is none; use"),
        (["sample", FINE, "--out", "s3://b/x.parquet"], "--out is s3://b/x.parquet, an address; wanted a path"),
        (["detect", FINE, PICTURE, "--out", "gs://b", "--normal", "images"], "--out is gs://b, an address; wanted"),
        (["sample", FINE, "--out", "x", "--figure", "s3://b/x.png"], "--figure is s3://b/x.png, an address; wanted"),
        (["train", "--out", "s3://b/x"], "--out is s3://b/x, an address; wanted a path"),
        (["train", "--out", "x", "--data.cache_dir", "s3://b"], "--data.cache_dir is s3://b, an address"),
        (["dcgan", "--out", "s3://b/x"], "--out is s3://b/x, an address; wanted a path"),
        (["reproduce", "mnist", "--source", "digits", "--out", "s3://b/x"], "--out is s3://b/x, an address; wanted"),
        (["evaluate", "augmentation", "--source", "digits", "--out", "s3://b/x"], "--out is s3://b/x, an address"),
        (["sample", FINE, "--out", "x.jpg"], "wanted a folder, or a file that ends in .png, .npz, .parquet"),
        (["augment", FINE, "images", "--out", "x.npz"], "wanted a folder, or a file that ends in .parquet"),
        (["detect", FINE, PICTURE, "--out", "notes.txt"], "--out is notes.txt, a file that is there; wanted a folder"),
        (["sample", FINE, "--out", "notes.txt/x"], "notes.txt is a file, where a folder was wanted"),
        (["judge", "digits", "--out", "judge.pt"], "--out is judge.pt; wanted a file that ends in .safetensors"),
        (["vary", "runs/dcgan", PICTURE, "--out", "x"], "is a DCGAN, which only draws new images: use fastddpm sample"),
        (["sample", "runs/dcgan", "--out", "x", "--scheduler", "ddim"], "is a DCGAN, which has no scheduler"),
        (["detect", FINE, PICTURE, "--out", "x"], "has no held-out images; say which images are normal, and were not"),
        (["evaluate", "runs/nix:train", "digits", "--features", "f", "--out", "x"], "there is no run runs/nix; runs"),
        (["evaluate", "digits", FINE + ":held_out", "--features", "f", "--out", "x"], "is a saved pipeline, no"),
        (["sample", "ann/none", "--out", "x"], "ann/none is no folder here, and the Hub cannot be reached: check the"),
    ],
)  # fmt: skip
def test_what_a_model_or_a_place_rules_out_is_one_line(refused, words, told, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert told in refused(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "runs/ine", "--out", "x"],
        ["vary", "images", FINE, "--out", "x"],
        ["vary", FINE, PICTURE, "--out", "x", "--start_timesteps", "30"],
        ["sample", FINE, "--out", "x", "--class_label", "7"],
        ["detect", FINE, PICTURE, "--out", "s3://b/x"],
        ["sample", FINE, "--out", "x", "--precision", "fp16"],
    ],
)
def test_a_mistake_is_told_in_a_moment_and_without_torch(here, words):
    code = "import sys; from fastddpm.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5  # 1 is wanted; machines differ


def test_a_class_is_found_by_its_name_or_its_number(here):
    run = find_run(FINE)
    assert [run.class_of(label) for label in ("cat", "scratch", "1", 2, 3)] == [0, 2, 1, 2, 3]
    assert (run.num_classes, run.knows_any_class, run.num_timesteps) == (3, True, 20)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("model_index.json", "[1]", "model_index.json cannot be read (holds list, wanted names and values)"),
        ("model_index.json", "[" * 20_000, "model_index.json cannot be read ("),
        ("model_index.json", '{"_class_name": "LDM", "vae": ["a", "b"]}', "is a LDM of vae; wanted a U-Net and a"),
        ("scheduler/scheduler_config.json", '{"num_train_timesteps": 1000000000}', "1000000000 timesteps; wanted 1 to"),
        ("unet/config.json", None, "unet is not whole: config.json is missing; copy the folder again"),
        ("unet/diffusion_pytorch_model.safetensors", None, "broken has no weights as safetensors, or damaged"),
        ("unet/diffusion_pytorch_model.safetensors", "none", "numbers, and its weights have 4 bytes; copy the folder"),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(refused, here, file, text, told):
    shutil.rmtree(here / "broken", ignore_errors=True)
    shutil.copytree(here / PLAIN, here / "broken")
    (here / "broken" / file).unlink()
    if text is not None:
        (here / "broken" / file).write_text(text)
    assert told in refused("sample", "broken", "--out", "x")


def test_python_is_told_the_same(here):
    for do in (lambda: sample(SampleRequest(model="runs/ine", out=Path("x"))), lambda: open_pipeline(None, "runs/ine")):
        with pytest.raises(ValueError, match="there is no run runs/ine; runs that are here: runs/fine"):
            do()
    with pytest.raises(ValueError, match="--out is s3://b, an address"):
        sample(SampleRequest(model=PLAIN, out=Path("s3://b"), num_images=1, num_inference_steps=1))
    with pytest.raises(ValueError, match="is s3://b, an address"):
        train(load_config("quickstart", {"output_dir": "s3://b"}))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["ingest", "ann/none"], marks=pytest.mark.slow),
        pytest.param(["sample", "ann/none", "--out", "x"], marks=pytest.mark.slow),
        pytest.param(["train", "--model.init_from", "ann/none", "--out", "x"], marks=pytest.mark.slow),
        pytest.param(["evaluate", "ann/none", "digits", "--features", "f", "--out", "x"], marks=pytest.mark.slow),
    ],
    ids=["ingest", "sample", "train", "evaluate"],
)
def test_a_hub_that_is_not_reached_is_told_once(here, words):
    """Its clients would ask six times in 20 s, and write the address each time."""
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    own = {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    done = subprocess.run(
        [sys.executable, "-m", "fastddpm", *words], capture_output=True, text=True, check=False, env={**env, **own}
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fastddpm: error: ")
    assert "ann/none" in done.stderr
    assert "the Hub cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("x").exists()

"""A saved folder loads from disk in every way its card promises (measured with diffusers 0.42.1).

Fresh processes with an empty Hugging Face home; in some of them fastddpm cannot be imported.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from safetensors.torch import load_file

import fastddpm
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel, VariationPipeline
from tests.conftest import stock_unet, tiny_unet

PROLOGUE = """
import json, sys, torch
from diffusers import DDPMPipeline, DiffusionPipeline
from diffusers.utils import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
found = {}

def load(folder, **how):
    pipe = DiffusionPipeline.from_pretrained(folder, **how)
    pipe.set_progress_bar_config(disable=True)
    return pipe

def look(name, pipe, **arguments):
    generator = torch.Generator().manual_seed(3)
    images = pipe(generator=generator, batch_size=2, num_inference_steps=4, output_type="np", **arguments).images
    found[name] = {
        "pipeline": type(pipe).__name__, "unet": type(pipe.unet).__name__, "images": images.tolist(),
        "weights": float(sum(t.double().sum() for t in pipe.unet.state_dict().values())),
    }

def refused(name, do, *arguments, **options):
    try:
        do(*arguments, **options)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
"""
WITHOUT = 'import sys; sys.modules["fastddpm"] = None' + PROLOGUE


def run(code: str, folder, home) -> dict:
    """What a fresh process prints as JSON."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(json.dumps(found))"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of the three kinds: our U-Net (with classes), diffusers' own, and diffusers' own with classes."""
    root = tmp_path_factory.mktemp("saved")
    scheduler = FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5)
    FastDDPMPipeline(tiny_unet(num_class_embeds=4), scheduler).save_pretrained(root / "paper")
    FastDDPMPipeline(stock_unet(), scheduler).save_pretrained(root / "stock")
    FastDDPMPipeline(stock_unet(num_class_embeds=4), scheduler, null_class=3).save_pretrained(root / "labelled")
    return root


@pytest.fixture(scope="module")
def without_package(saved, tmp_path_factory):
    code = """
refused("paper, plain", load, "paper")
look("paper, trusted", load("paper", trust_remote_code=True))
refused("paper, its pipeline, not trusted", load, "paper", custom_pipeline="pipeline")
own = load("paper", custom_pipeline="pipeline", trust_remote_code=True)
look("paper, its pipeline", own, class_labels=[3, 3])
look("paper, its pipeline, a class", own, class_labels=[0, 2])
look("paper, its pipeline, guided", own, class_labels=[0, 2], guidance_scale=3.0)
refused("seeds", own, seeds=[1])
refused("variations", own, start_timestep=10)
steps = []
def callback(pipe, step, t, tensors):
    steps.append([step, t, list(tensors), str(tensors["latents"].dtype)])
    return tensors
own.to(torch.bfloat16)
look("paper, its pipeline, bfloat16", own, callback_on_step_end=callback)
found["steps"] = steps
look("stock, plain", load("stock"))
refused("labelled, plain", load, "labelled")
look("labelled, trusted", load("labelled", trust_remote_code=True), class_labels=[3, 3])
for name, how in [("paper", {}), ("paper", {"custom_pipeline": "pipeline"}), ("labelled", {}), ("stock", {})]:
    load(name, trust_remote_code=True, **how).save_pretrained(f"again/{name}")
    look(f"{name}, {sorted(how)}, again", load(f"again/{name}", trust_remote_code=True, **how), **(
        {"class_labels": [3, 3]} if name == "labelled" else {}))
"""
    return run(WITHOUT + code, saved, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def with_package(saved, tmp_path_factory):
    code = """
import fastddpm
look("paper, plain", load("paper"))
look("stock, plain", load("stock"))
for kind in ("paper", "stock", "labelled"):
    pipe = fastddpm.FastDDPMPipeline.from_pretrained(kind)
    pipe.set_progress_bar_config(disable=True)
    look(f"{kind}, ours", pipe, **({} if kind == "stock" else {"class_labels": [3, 3]}))
    found[f"{kind}, scheduler"] = type(pipe.scheduler).__name__
    found[f"{kind}, null class"] = pipe.null_class
"""
    return run(PROLOGUE + code, saved, tmp_path_factory.mktemp("home"))


def equal(one: dict, other: dict) -> bool:
    """The same weights, and images within one level of 255."""
    pictures = [np.array(each["images"]) * 255 for each in (one, other)]
    assert pictures[0].std() > 5, "an empty picture would prove nothing"
    return one["weights"] == other["weights"] and np.abs(pictures[0] - pictures[1]).max() <= 1


def test_with_the_package_plain_diffusers_loads_it(with_package):
    for kind, unet in (("paper", "PaperUNet2DModel"), ("stock", "UNet2DModel")):
        plain = with_package[f"{kind}, plain"]
        assert (plain["pipeline"], plain["unet"]) == ("DDPMPipeline", unet)
        assert equal(plain, with_package[f"{kind}, ours"])


def test_our_pipeline_loads_all_three_kinds_without_running_their_code(with_package):
    for kind in ("paper", "stock", "labelled"):
        assert with_package[f"{kind}, ours"]["pipeline"] == "FastDDPMPipeline"
        assert with_package[f"{kind}, scheduler"] == "FusedDDPMScheduler"
        assert with_package[f"{kind}, null class"] == (None if kind == "stock" else 3)


def test_without_the_package_code_needs_the_users_flag(without_package):
    for case in ("paper, plain", "paper, its pipeline, not trusted", "labelled, plain"):
        assert "trust_remote_code=True" in without_package[case], case


def test_without_the_package_it_loads_when_trusted(without_package, with_package):
    trusted = without_package["paper, trusted"]
    assert (trusted["pipeline"], trusted["unet"]) == ("DDPMPipeline", "PaperUNet2DModel")
    assert equal(trusted, with_package["paper, plain"])
    own = without_package["paper, its pipeline"]
    assert own["pipeline"] == "FastDDPMPipeline"
    assert equal(own, trusted), "label 3 is the null class, which a call without labels means"
    labelled = without_package["labelled, trusted"]
    assert labelled["pipeline"] == "FastDDPMPipeline"
    assert equal(labelled, with_package["labelled, ours"])


def test_a_stock_unet_needs_neither_flag_nor_package(without_package, with_package, saved):
    assert without_package["stock, plain"]["pipeline"] == "DDPMPipeline"
    assert equal(without_package["stock, plain"], with_package["stock, plain"])
    assert not list((saved / "stock").rglob("*.py"))


def test_the_folders_own_pipeline_knows_labels_guidance_callbacks_and_half_precision(without_package):
    by_class = without_package["paper, its pipeline, a class"]
    assert not equal(by_class, without_package["paper, its pipeline"])
    assert not equal(by_class, without_package["paper, its pipeline, guided"])
    images = np.array(without_package["paper, its pipeline, bfloat16"]["images"])
    assert np.isfinite(images).all()
    assert without_package["steps"] == [[i, t, ["latents"], "torch.float32"] for i, t in enumerate([19, 14, 9, 4])]


def test_what_needs_the_package_says_so(without_package):
    for case in ("seeds", "variations"):
        assert without_package[case].startswith("ValueError")
        assert "pip install fastddpm" in without_package[case]


def test_saved_again_it_loads_again(without_package):
    """Also what was loaded through remote code, of which diffusers otherwise writes names that exist nowhere."""
    for again, before in [
        ("paper, [], again", "paper, trusted"),
        ("labelled, [], again", "labelled, trusted"),
        ("stock, [], again", "stock, plain"),
    ]:
        assert equal(without_package[again], without_package[before])
    assert without_package["paper, ['custom_pipeline'], again"]["pipeline"] == "FastDDPMPipeline"


def test_parts_load_alone(saved):
    unet = PaperUNet2DModel.from_pretrained(saved / "paper", subfolder="unet")
    stored = load_file(saved / "paper" / "unet" / "diffusion_pytorch_model.safetensors")
    assert stored.keys() == unet.state_dict().keys()
    assert all(torch.equal(tensor, unet.state_dict()[name]) for name, tensor in stored.items())
    for kind in (FusedDDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler):
        scheduler = kind.from_pretrained(saved / "paper", subfolder="scheduler")
        assert (scheduler.config.num_train_timesteps, scheduler.config.timestep_spacing) == (20, "trailing")


def test_a_stock_pipeline_of_our_parts_loads_again(tmp_path):
    """Someone who saves with diffusers' own pipeline gets a folder that loads with the package and without."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "model_index.json").read_text())["unet"] == ["fastddpm", "PaperUNet2DModel"]
    loaded = fastddpm.VariationPipeline.from_pretrained(tmp_path / "mine")
    assert type(loaded) is VariationPipeline
    code = 'look("mine", load("mine", trust_remote_code=True))'
    assert run(WITHOUT + code, tmp_path, tmp_path / "home")["mine"]["unet"] == "PaperUNet2DModel"


def test_the_folders_code_imports_torch_and_diffusers_only(saved):
    for path in (saved / "paper" / "unet" / "fastddpm.py", saved / "paper" / "pipeline.py"):
        lines = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        roots = {line.split()[1].partition(".")[0] for line in lines}
        assert roots - set(sys.stdlib_module_names) == {"torch", "diffusers"}


def test_a_module_that_the_index_names_is_not_imported(saved, tmp_path):
    index = shutil.copytree(saved / "stock", tmp_path / "named") / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "unet": ["stranger", "UNet"]}))
    (tmp_path / "stranger.py").write_text("class UNet: ...")
    code = """
import fastddpm
refused("plain", load, "named")
refused("ours", fastddpm.FastDDPMPipeline.from_pretrained, "named")
found["imported"] = "stranger" in sys.modules
"""
    found = run(PROLOGUE + code, tmp_path, tmp_path / "home")
    assert "stranger" in found["plain"]
    assert "stranger" in found["ours"]
    assert not found["imported"]

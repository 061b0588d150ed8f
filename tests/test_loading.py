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
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from safetensors.torch import load_file

import fastddpm
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel, VariationPipeline
from fastddpm.schedulers.named import scheduler_named
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
    if isinstance(pipe, DDPMPipeline):  # which would take 1,000 steps
        arguments["num_inference_steps"] = 20
    images = pipe(generator=generator, batch_size=2, output_type="np", **arguments).images
    found[name] = {
        "pipeline": type(pipe).__name__, "unet": type(pipe.unet).__name__, "images": images.tolist(),
        "scheduler": type(pipe.scheduler).__name__,
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
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of the three kinds: our U-Net (with classes, tall images), diffusers' own (wide ones), and diffusers' own
    with classes (square)."""
    root = tmp_path_factory.mktemp("saved")
    solver = scheduler_named("unipc", FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5))
    guided = {"guidance_scale": 1.5, "num_inference_steps": 4}
    FastDDPMPipeline(tiny_unet(num_class_embeds=4, sample_size=(12, 8)), solver, **guided).save_pretrained(
        root / "paper"
    )
    FastDDPMPipeline(stock_unet(sample_size=(8, 12)), solver, num_inference_steps=4).save_pretrained(root / "stock")
    FastDDPMPipeline(stock_unet(num_class_embeds=4), solver, 3, **guided).save_pretrained(root / "labelled")
    return root


@pytest.fixture(scope="module")
def without_package(saved, tmp_path_factory):
    code = """
refused("paper, plain", load, "paper")
own = load("paper", trust_remote_code=True)
look("paper, trusted", own)
look("paper, any class", own, class_labels="none")
look("paper, any class by number", own, class_labels=[3, 3], guidance_scale=1.0)
look("paper, a class", own, class_labels=[0, 2])
look("paper, guided", own, class_labels=[0, 2], guidance_scale=3.0)
refused("seeds", own, seeds=[1])
refused("variations", own, start_timestep=10)
steps = []
def callback(pipe, step, t, tensors):
    steps.append([step, t, list(tensors), str(tensors["latents"].dtype)])
    return tensors
own.to(torch.bfloat16)
look("paper, bfloat16", own, callback_on_step_end=callback)
found["steps"] = steps
look("stock, plain", load("stock"))
refused("labelled, plain", load, "labelled")
look("labelled, trusted", load("labelled", trust_remote_code=True))
for name in ("paper", "labelled", "stock"):
    load(name, trust_remote_code=True).save_pretrained(f"again/{name}")
    look(f"{name}, again", load(f"again/{name}", trust_remote_code=True))
"""
    return run(WITHOUT + code, saved, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def with_package(saved, tmp_path_factory):
    code = """
import fastddpm
for kind in ("paper", "stock", "labelled"):
    look(f"{kind}, plain", load(kind))
    pipe = fastddpm.FastDDPMPipeline.from_pretrained(kind)
    pipe.set_progress_bar_config(disable=True)
    look(f"{kind}, ours", pipe)
    found[f"{kind}, null class"] = pipe.null_class
found["code of a folder was run"] = "diffusers_modules" in sys.modules
"""
    return run(PROLOGUE + code, saved, tmp_path_factory.mktemp("home"))


def equal(one: dict, other: dict) -> bool:
    """The same weights, and images within one level of 255."""
    pictures = [np.array(each["images"]) * 255 for each in (one, other)]
    assert pictures[0].std() > 5, "an empty picture would prove nothing"
    return one["weights"] == other["weights"] and np.abs(pictures[0] - pictures[1]).max() <= 1


def test_images_have_the_height_and_width_that_the_folder_says(with_package, without_package):
    for kind, size in (("paper", (12, 8)), ("stock", (8, 12)), ("labelled", (8, 8))):
        trusted = without_package["stock, plain" if kind == "stock" else f"{kind}, trusted"]
        for found in (with_package[f"{kind}, plain"], with_package[f"{kind}, ours"], trusted):
            assert np.array(found["images"]).shape[1:3] == size


def test_with_the_package_plain_diffusers_draws_what_ours_draws(with_package):
    for kind, unet in (("paper", "PaperUNet2DModel"), ("labelled", "UNet2DModel")):
        plain = with_package[f"{kind}, plain"]
        assert [plain[part] for part in ("pipeline", "unet")] == ["FastDDPMPipeline", unet]
        assert plain == with_package[f"{kind}, ours"]
    assert with_package["code of a folder was run"] is False


def test_our_pipeline_draws_with_the_runs_own_solver(with_package):
    for kind in ("paper", "stock", "labelled"):
        ours = with_package[f"{kind}, ours"]
        assert [ours[part] for part in ("pipeline", "scheduler")] == ["FastDDPMPipeline", "UniPCMultistepScheduler"]
        assert with_package[f"{kind}, null class"] == (None if kind == "stock" else 3)


def test_without_the_package_code_needs_the_users_flag(without_package):
    for case in ("paper, plain", "labelled, plain"):
        assert "trust_remote_code=True" in without_package[case], case


def test_without_the_package_it_draws_the_same_when_trusted(without_package, with_package):
    for kind, unet in (("paper", "PaperUNet2DModel"), ("labelled", "UNet2DModel")):
        trusted = without_package[f"{kind}, trusted"]
        assert [trusted[part] for part in ("pipeline", "unet")] == ["FastDDPMPipeline", unet]
        assert equal(trusted, with_package[f"{kind}, ours"])


def test_a_stock_unet_needs_neither_flag_nor_package(without_package, with_package, saved):
    stock = without_package["stock, plain"]
    assert [stock[part] for part in ("pipeline", "scheduler")] == ["DDPMPipeline", "DDPMScheduler"]
    assert equal(stock, with_package["stock, plain"])
    assert not list((saved / "stock").rglob("*.py"))
    scheduler = DDPMScheduler.from_pretrained(saved / "stock", subfolder="scheduler")
    trained_with = DDPMScheduler.from_config(FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5).config)
    assert all(scheduler.config[name] == value for name, value in trained_with.config.items() if name[0] != "_")


def test_the_folders_own_pipeline_knows_labels_guidance_callbacks_and_half_precision(without_package):
    by_class = without_package["paper, a class"]
    any_class = without_package["paper, any class"]
    assert equal(any_class, without_package["paper, any class by number"])
    for other in (any_class, without_package["paper, guided"]):
        assert not equal(by_class, other)
    images = np.array(without_package["paper, bfloat16"]["images"])
    assert np.isfinite(images).all()
    assert [step[::2] for step in without_package["steps"]] == [[i, ["latents"]] for i in range(4)]
    assert {step[3] for step in without_package["steps"]} == {"torch.float32"}


def test_what_needs_the_package_says_so(without_package):
    for case in ("seeds", "variations"):
        assert without_package[case].startswith("ValueError")
        assert "pip install fastddpm" in without_package[case]


def test_saved_again_it_loads_again(without_package):
    """Also what was loaded through remote code, of which diffusers otherwise writes names that exist nowhere."""
    for name, before in (("paper", "trusted"), ("labelled", "trusted"), ("stock", "plain")):
        assert equal(without_package[f"{name}, again"], without_package[f"{name}, {before}"])


def test_parts_load_alone(saved):
    unet = PaperUNet2DModel.from_pretrained(saved / "paper", subfolder="unet")
    stored = load_file(saved / "paper" / "unet" / "diffusion_pytorch_model.safetensors")
    assert stored.keys() == unet.state_dict().keys()
    assert all(torch.equal(tensor, unet.state_dict()[name]) for name, tensor in stored.items())
    for kind in (FusedDDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler):
        scheduler = kind.from_pretrained(saved / "paper", subfolder="scheduler")
        assert (scheduler.config.num_train_timesteps, scheduler.config.timestep_spacing) == (20, "trailing")


@pytest.mark.slow
def test_a_stock_pipeline_of_our_parts_loads_again(tmp_path):
    """Someone who saves with diffusers' own pipeline gets a folder that loads with the package and without."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "model_index.json").read_text())["unet"] == ["fastddpm", "PaperUNet2DModel"]
    loaded = fastddpm.VariationPipeline.from_pretrained(tmp_path / "mine")
    assert type(loaded) is VariationPipeline
    code = 'look("mine", load("mine", trust_remote_code=True))'
    assert run(WITHOUT + code, tmp_path, tmp_path / "home")["mine"]["unet"] == "PaperUNet2DModel"


def test_a_loaded_pipeline_stays_as_it_is_when_its_file_is_written_over(tmp_path):
    """diffusers' own does not: findings/safetensors-network-changes-with-its-file.sh"""
    weights = "unet/diffusion_pytorch_model.safetensors"
    network = stock_unet()
    for name in ("shown", "newer"):
        FastDDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / name)
        torch.nn.utils.vector_to_parameters(torch.zeros(network.num_parameters()), network.parameters())
    pipeline = FastDDPMPipeline.from_pretrained(tmp_path / "shown")
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    shutil.copyfile(tmp_path / "newer" / weights, tmp_path / "shown" / weights)
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())


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

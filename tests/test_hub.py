"""The saved folder loads in diffusers (measured with diffusers 0.42.1), each time in a process of its own."""

import inspect
import json
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

import fastddpm
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel
from fastddpm.models import paper_unet
from fastddpm.pipelines import portable


@pytest.fixture
def folder(unet, scheduler, tmp_path):
    FastDDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_folder_has_the_layout(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "FastDDPMPipeline"]
    assert index["unet"] == ["fastddpm", "PaperUNet2DModel"]
    assert index["scheduler"] == ["diffusers", "DDPMScheduler"]
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {
        "model_index.json", "README.md", "pipeline.py", "scheduler/scheduler_config.json",
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/fastddpm.py",
    }  # fmt: skip
    assert (folder / "unet" / "fastddpm.py").read_text() == inspect.getsource(paper_unet)
    assert (folder / "pipeline.py").read_text() == inspect.getsource(portable)


def test_scheduler_config_has_every_value(folder):
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == "DDPMScheduler"
    stock = {name for name in DDPMScheduler().config if not name.startswith("_")}
    assert stock <= config.keys()
    assert (config["clip_sample"], config["timestep_spacing"]) == (False, "trailing")


@pytest.mark.parametrize(
    "order",
    [
        "import fastddpm; import diffusers",
        pytest.param("import diffusers.pipelines; import fastddpm", marks=pytest.mark.slow),
    ],
)
def test_plain_diffusers_loads_it_after_import_fastddpm(folder, order):
    code = f"""
{order}
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({str(folder)!r})
ours = isinstance(pipe.unet, fastddpm.PaperUNet2DModel)
print(type(pipe).__name__, type(pipe.unet).__module__, type(pipe.scheduler).__name__, ours)
print(pipe(num_inference_steps=2).images[0].size)
"""
    assert run_python(code).splitlines()[-2:] == ["FastDDPMPipeline fastddpm FusedDDPMScheduler True", "(8, 8)"]


def test_fast_pipeline_loads_ours_throughout(folder, unet):
    pipeline = FastDDPMPipeline.from_pretrained(folder)
    assert type(pipeline.unet) is PaperUNet2DModel
    assert type(pipeline.scheduler) is FusedDDPMScheduler
    for name, tensor in unet.state_dict().items():
        assert torch.equal(pipeline.unet.state_dict()[name], tensor), name


def test_loaded_pipeline_draws_the_same_images(folder, unet, scheduler):
    def draw(pipeline):
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(seeds=[1, 2], num_inference_steps=5, output_type="pt").images

    assert torch.equal(draw(FastDDPMPipeline.from_pretrained(folder)), draw(FastDDPMPipeline(unet, scheduler)))


def test_saved_again_it_loads_again(folder, tmp_path):
    FastDDPMPipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model_index.json").read_text() == (folder / "model_index.json").read_text()
    assert type(FastDDPMPipeline.from_pretrained(tmp_path / "again").unet) is PaperUNet2DModel


def test_users_card_is_kept(folder):
    (folder / "README.md").write_text("my words")
    FastDDPMPipeline.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "my words"


@pytest.mark.slow
def test_stock_unet_needs_no_code(tmp_path):
    unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
                       down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    FastDDPMPipeline(unet, FusedDDPMScheduler()).save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.py"))
    code = f"""
import sys; sys.modules["fastddpm"] = None
from diffusers import DiffusionPipeline
print(type(DiffusionPipeline.from_pretrained({str(tmp_path)!r}).unet).__name__)
"""
    assert run_python(code).split()[-1] == "UNet2DModel"


def test_ddim_from_the_saved_config_draws_in_50_steps(unet, tmp_path):
    FastDDPMPipeline(unet, FusedDDPMScheduler()).save_pretrained(tmp_path)
    saved = DDPMPipeline.from_pretrained(tmp_path)
    ddim = DDIMScheduler.from_config(saved.scheduler.config)
    assert (ddim.config.timestep_spacing, ddim.config.clip_sample) == ("trailing", False)
    pipeline = FastDDPMPipeline(saved.unet, ddim)
    seen = []
    images = pipeline(
        seeds=[1],
        num_inference_steps=50,
        output_type="pt",
        callback_on_step_end=lambda _, __, t, ___: seen.append(t) or {},
    ).images
    assert seen == list(range(999, 0, -20))
    assert images.std() > 0.05, "an empty picture would prove nothing"


@pytest.mark.slow
def test_registration_never_replaces_an_attribute():
    code = """
import diffusers.pipelines
diffusers.pipelines.fastddpm = "theirs"
import fastddpm
fastddpm.registration.register()
print(diffusers.pipelines.fastddpm)
"""
    assert run_python(code).split()[-1] == "theirs"


def test_public_names_are_there():
    for name in fastddpm.__all__:
        assert getattr(fastddpm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastddpm.nothing

"""Solvers by name: diffusers' own classes, on grids that start at pure noise and end at the picture."""

import warnings

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, VariationPipeline
from fastddpm.config import load_config
from fastddpm.pipelines.steps import set_timesteps_from
from fastddpm.schedulers.named import name_of, scheduler_named
from tests.conftest import tiny_unet

SOLVERS = ("ddim", "dpmsolver++", "unipc")


def pipeline_of(name, trained_with=None):
    made = FastDDPMPipeline(tiny_unet(), scheduler_named(name, trained_with or FusedDDPMScheduler()))
    made.set_progress_bar_config(disable=True)
    return made


def test_names_are_of_diffusers_own_classes():
    kinds = {
        "ddpm": FusedDDPMScheduler,
        "ddim": DDIMScheduler,
        "dpmsolver++": DPMSolverMultistepScheduler,
        "unipc": UniPCMultistepScheduler,
    }
    for name, kind in kinds.items():
        scheduler = scheduler_named(name, FusedDDPMScheduler())
        assert type(scheduler) is kind
        assert name_of(scheduler) == name
        assert torch.equal(scheduler.alphas_cumprod, FusedDDPMScheduler().alphas_cumprod)
    with pytest.raises(ValueError, match="scheduler is 'euler'; use ddpm, ddim, dpmsolver.. or unipc"):
        scheduler_named("euler", FusedDDPMScheduler())


@pytest.mark.parametrize("name", ["ddpm", *SOLVERS])
@pytest.mark.parametrize("trained_with", [FusedDDPMScheduler, DDPMScheduler], ids=["ours", "stock"])
def test_fifty_steps_start_at_999_and_nothing_clips_unless_the_run_does(name, trained_with):
    """Diffusers' defaults start 50 steps at 980 and clip."""
    pipeline = pipeline_of(name, trained_with(clip_sample=False))
    seen = []
    pipeline(
        num_inference_steps=50, output_type="latent", callback_on_step_end=lambda _, __, t, ___: seen.append(t) or {}
    )
    assert seen[0] == 999
    assert name == "unipc" or seen == list(range(999, 0, -20))
    config = pipeline.scheduler.config
    assert not config.get("clip_sample")
    assert not config.thresholding
    clips = scheduler_named(name, trained_with(clip_sample=True)).config
    assert clips.get("clip_sample") or (clips.thresholding and clips.sample_max_value == 1.0)


def test_dpm_solver_clips_as_the_run_does_or_says_that_it_cannot():
    model_output = torch.full((1, 1, 2, 2), -3.0)
    sample = torch.tensor([[[[0.1, -0.1], [4.0, -4.0]]]])
    predicted = []
    for name in SOLVERS:
        scheduler = scheduler_named(name, FusedDDPMScheduler(clip_sample=True, prediction_type="sample"))
        scheduler.set_timesteps(10)
        found = scheduler.step(model_output, scheduler.timesteps[-1], sample)
        predicted.append(found.pred_original_sample if name == "ddim" else scheduler.model_outputs[-1])
    assert torch.equal(predicted[0], torch.full((1, 1, 2, 2), -1.0))
    assert all(torch.equal(predicted[0], other) for other in predicted[1:])
    for name in ("dpmsolver++", "unipc"):
        with pytest.raises(ValueError, match=r"clips to 1 only, the model to 2.0; use ddim or ddpm"):
            scheduler_named(name, FusedDDPMScheduler(clip_sample=True, clip_sample_range=2.0))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("clips", [False, True])
def test_from_any_solver_the_way_leads_back_to_the_schedule_of_training(name, clips):
    trained_with = FusedDDPMScheduler(beta_end=0.03, clip_sample=clips, variance_type="fixed_large")
    back = scheduler_named("ddpm", scheduler_named(name, scheduler_named("unipc", trained_with)))
    plain = [{k: v for k, v in found.config.items() if k[0] != "_"} for found in (trained_with, back)]
    assert plain[0].items() <= plain[1].items()


def test_unipc_begins_at_any_timestep_and_takes_as_many_steps_as_its_whole_grid_has_there():
    vary = VariationPipeline(tiny_unet(), scheduler_named("unipc", FusedDDPMScheduler()), num_inference_steps=8)
    for start in (1, 2, 100, 300, 600, 999):
        steps = vary.steps_from(start)
        chosen = set_timesteps_from(vary.scheduler, start, steps)
        assert (len(chosen), chosen[0], chosen[-1]) == (steps, start - 1, 0)
        x_0, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        ours, solvers = (
            scheduler.add_noise(x_0, noise, torch.tensor([start - 1]))
            for scheduler in (FusedDDPMScheduler(), vary.scheduler)
        )
        assert torch.allclose(ours, solvers, atol=1e-5)
    assert [vary.steps_from(start) for start in (0, 100, 300, 600, 1000)] == [0, 3, 4, 5, 8]
    assert len(vary.set_timesteps(8, None)) == 8
    assert vary.scheduler.timesteps[0] == 999, "the whole chain begins at its end again"


def test_every_number_of_steps_of_dpm_solver_ends_at_the_picture():
    """Diffusers' own "trailing" has a step too many for 62 of them."""
    pipeline = pipeline_of("dpmsolver++")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for steps in (*range(1, 1000, 7), 61, 103, 121, 1000):
            chosen = pipeline.set_timesteps(steps, None)
            assert len(chosen) == steps
            assert (chosen[0], chosen[-1] >= 0) == (999, True)
            assert float(pipeline.scheduler.sigmas[-1]) == 0.0


def test_ddim_steps_from_timestep_to_timestep():
    pipeline = pipeline_of("ddim")
    for steps in (1, 2, 4, 50, 125, 1000):
        chosen = pipeline.set_timesteps(steps, None)
        stride = 1000 // pipeline.scheduler.num_inference_steps
        assert chosen == [1000 - 1 - i * stride for i in range(steps)]


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_find_the_known_end_of_each_path(name):
    """For data of N(0, 1/4) the best prediction is known, and so is where the noise-free path from x_T ends."""
    scheduler, spread = scheduler_named(name, FusedDDPMScheduler()), 0.5
    alpha_bar = FusedDDPMScheduler().alphas_cumprod.double()
    x_T = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    exact = x_T * spread / (alpha_bar[-1] * spread**2 + 1 - alpha_bar[-1]).sqrt()
    errors = []
    for steps in (10, 40):
        scheduler.set_timesteps(steps)
        x_t = x_T
        for i, t in enumerate(scheduler.timesteps):
            bar = alpha_bar[t]
            if name == "unipc":  # whose noise levels lie between timesteps
                bar = 1 / (1 + scheduler.sigmas[i].double() ** 2)
            variance = bar * spread**2 + 1 - bar
            x_t = scheduler.step((1 - bar).sqrt() * x_t / variance, t, x_t).prev_sample
        errors.append(((x_t - exact).abs().max() / exact.abs().max()).item())
    assert errors[1] < errors[0] / 2
    assert errors[1] < {"ddim": 0.08, "dpmsolver++": 0.02, "unipc": 0.005}[name]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_seed_decides_a_picture_by_its_first_noise(name):
    pipeline = pipeline_of(name, FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5))
    given = {"num_inference_steps": 5, "micro_batch_size": 2, "output_type": "pt"}
    both = pipeline(seeds=[1, 2, 3], **given).images
    assert torch.equal(pipeline(seeds=[3], **given).images[0], both[2])
    assert not torch.equal(both[0], both[1])
    torch.manual_seed(5)  # the global generator has no part in it
    assert torch.equal(pipeline(seeds=[1, 2, 3], **given).images, both)


def test_sigmoid_betas_have_one_solver():
    with pytest.raises(ValueError, match="sample.scheduler unipc has no scheduler.beta_schedule sigmoid; use --sample"):
        load_config("quickstart", {"scheduler.beta_schedule": "sigmoid"})


def test_steps_that_ddim_does_not_have_are_refused_in_the_config():
    made = load_config("mnist-paper", {"sample.scheduler": "ddim", "sample.num_inference_steps": 50})
    assert made.sample.scheduler == "ddim"
    with pytest.raises(ValueError, match=r"sample.num_inference_steps is 30; .* divide 1000: use 25 or 40, or dpms"):
        load_config("mnist-paper", {"sample.scheduler": "ddim", "sample.num_inference_steps": 30})
    load_config("mnist-paper", {"sample.scheduler": "dpmsolver++", "sample.num_inference_steps": 30})
    load_config("mnist-paper", {"sample.scheduler": "ddim", "sample.num_inference_steps": 2000})  # all there are
    with pytest.raises(ValueError, match="sample.scheduler is 'euler'"):
        load_config("mnist-paper", {"sample.scheduler": "euler"})

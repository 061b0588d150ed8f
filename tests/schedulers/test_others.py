"""Other people's samplers over a folder of ours: drawn with as diffusers does, or refused by name."""

import itertools
import json

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils import is_torchsde_available

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, VariationPipeline
from fastddpm.config import load_config
from fastddpm.pipelines.portable import FastDDPMPipeline as PortablePipeline
from fastddpm.pipelines.portable import takes
from fastddpm.pipelines.steps import set_timesteps_from
from fastddpm.schedulers.named import risk_of, scheduler_named
from fastddpm.training.build_network import build_scheduler
from fastddpm.verbs.sample.open_model import open_pipeline
from tests.conftest import stock_unet
from tests.schedulers.exact import KINDS, RECORD, ExactNetwork, cases, distances, drawn, spreads

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")
SOLVERS = ("ddpm", "ddim", "dpmsolver++", "unipc")
CURVES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


@pytest.fixture
def folder(tmp_path):
    FastDDPMPipeline(stock_unet(), FusedDDPMScheduler()).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def quiet(kind, folder):
    made = kind.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def by_diffusers(stock, scheduler, steps):
    """`DDPMPipeline`; where it does not know what a scheduler wants, the loop of diffusers' other pipelines."""
    generator = torch.Generator().manual_seed(1)
    if float(scheduler.init_noise_sigma) == 1.0 and takes(scheduler.step, "generator"):
        stock.scheduler = scheduler
        images = stock(2, generator, num_inference_steps=steps, output_type="np").images
        return torch.from_numpy(images).permute(0, 3, 1, 2)
    given = {"generator": generator} if takes(scheduler.step, "generator") else {}
    x_t = torch.randn(2, 1, 8, 8, generator=generator)
    scheduler.set_timesteps(steps)
    x_t = x_t * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = stock.unet(scheduler.scale_model_input(x_t, t), t).sample
            x_t = scheduler.step(output, t, x_t, **given).prev_sample
    return (x_t / 2 + 0.5).clamp(0, 1)


def test_every_scheduler_and_spacing_draws_as_through_diffusers(folder):
    ours, stock, seen = quiet(FastDDPMPipeline, folder), quiet(DDPMPipeline, folder), 0
    config = FusedDDPMScheduler(num_train_timesteps=100, beta_end=0.2).config
    for name, spacing, make in cases():
        if name == "DPMSolverSDE":  # which draws by torch's global state
            continue
        ours.scheduler, generator = make(config), torch.Generator().manual_seed(1)
        images = ours(2, generator, num_inference_steps=4, output_type="pt").images
        assert torch.allclose(images, by_diffusers(stock, make(config), 4), atol=1e-4), (name, spacing)
        assert images.std() > 0.02, (name, spacing)
        seen += 1
    assert seen >= 41


def test_a_table_of_an_exact_network_is_what_the_pipeline_draws():
    record = json.loads(RECORD.read_text())
    for name, spacing, make in cases():
        if (name, spacing) in {("DDIM", ""), ("DPMSolverMultistep", "lu"), ("PNDM", "")}:
            assert spreads(make) == pytest.approx(record[name][spacing]["spread"], abs=0.02)
            assert distances(make) == pytest.approx(record[name][spacing]["distance"], abs=0.05)


@pytest.mark.slow
def test_every_row_of_the_table_is_what_the_pipeline_draws():
    record = json.loads(RECORD.read_text())
    assert {name for name, _, _ in cases()} >= set(record) - {"DPMSolverSDE"}
    for name, spacing, make in cases():
        assert spreads(make) == pytest.approx(record[name][spacing]["spread"], abs=0.02), (name, spacing)
        assert distances(make) == pytest.approx(record[name][spacing]["distance"], abs=0.05), (name, spacing)


@pytest.mark.parametrize("steps", [61, 103])
def test_spacings_of_noise_levels_take_as_many_steps_as_asked(folder, steps):
    """Where diffusers' own "trailing" is one too many."""
    pipeline = quiet(FastDDPMPipeline, folder)
    config = pipeline.scheduler.config
    for _, spacing, make in cases():
        if spacing and make.func.__self__ is DPMSolverMultistepScheduler:
            pipeline.scheduler = make(config)
            assert len(pipeline.set_timesteps(steps, None)) == steps, spacing


@pytest.mark.parametrize(
    "scheduler",
    [
        EDMEulerScheduler(),
        EDMDPMSolverMultistepScheduler(),
        FlowMatchEulerDiscreteScheduler(),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_another_process_is_refused_by_name(folder, scheduler):
    name = type(scheduler).__name__
    message = rf"^{name} noises in another way than DDPM \(as EDM or flow matching\).*; use another, such as DDIM.*\w$"
    for kind in (FastDDPMPipeline, PortablePipeline):
        pipeline = quiet(kind, folder)
        pipeline.scheduler = scheduler
        for given in ({}, {"latents": torch.zeros(1, 1, 8, 8)}):
            with pytest.raises(ValueError, match=message):
                pipeline(num_inference_steps=2, **given)
    vary = VariationPipeline(stock_unet(), scheduler)
    with pytest.raises(ValueError, match=message):
        vary(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), seeds=[1], start_timestep=10)


def test_schedulers_without_a_formula_for_x_0_are_refused_by_name_and_no_others_are():
    refused = set()
    for name, spacing, make in cases():
        scheduler = make(FusedDDPMScheduler(prediction_type="sample").config) if not spacing else None
        try:
            if scheduler is not None:
                drawn(scheduler, ExactNetwork("sample", sample_size=2), 5)
        except ValueError:
            refused.add(name)
            nothing = torch.zeros(1, 1, 2, 2)
            scheduler.set_timesteps(5)
            with pytest.raises((NotImplementedError, ValueError)):  # what diffusers says
                scheduler.step(nothing, scheduler.timesteps[0], nothing)
    assert refused - {"DPMSolverSDE"} == {"PNDM", "EulerAncestral", "KDPM2", "KDPM2Ancestral"}
    pndm = PNDMScheduler.from_config(FusedDDPMScheduler(prediction_type="sample").config)
    with pytest.raises(ValueError, match="PNDMScheduler has no formula for a network of prediction_type 'sample'; use"):
        drawn(pndm, ExactNetwork("sample"), 5)


def test_variations_begin_where_the_spacing_has_a_level_or_say_so():
    config = FusedDDPMScheduler().config
    for kind in (EulerDiscreteScheduler, UniPCMultistepScheduler):
        assert set_timesteps_from(kind.from_config(config, use_karras_sigmas=True), 300, 5)[0] == pytest.approx(299)
    for kind, option in (
        (DPMSolverMultistepScheduler, "use_lu_lambdas"),
        (DPMSolverMultistepScheduler, "use_karras_sigmas"),
        (UniPCMultistepScheduler, "use_beta_sigmas"),
    ):
        scheduler = kind.from_config(config, **{option: True})
        assert len(set_timesteps_from(scheduler, 1000, 5)) == 5
        with pytest.raises(ValueError, match=f"{kind.__name__} with {option} spaces .* or start_timestep 1000"):
            set_timesteps_from(scheduler, 300, 5)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_eta_is_that_of_diffusers_ddim(folder, eta):
    stock = quiet(DDPMPipeline, folder)
    config = stock.scheduler.config
    theirs = DDIMPipeline(stock.unet, DDIMScheduler.from_config(config))
    theirs.set_progress_bar_config(disable=True)
    given = {"batch_size": 2, "num_inference_steps": 5, "eta": eta, "output_type": "np"}
    wanted = theirs(generator=torch.Generator().manual_seed(2), **given).images
    for kind in (FastDDPMPipeline, PortablePipeline):
        ours = quiet(kind, folder)
        ours.scheduler = DDIMScheduler.from_config(config)
        assert abs(ours(generator=torch.Generator().manual_seed(2), **given).images - wanted).max() < 1e-5


def test_eta_without_ddim_is_refused_by_name(folder):
    pipeline = quiet(FastDDPMPipeline, folder)
    for scheduler in (pipeline.scheduler, EulerDiscreteScheduler.from_config(pipeline.scheduler.config)):
        pipeline.scheduler = scheduler
        with pytest.raises(ValueError, match=f"eta is 0.0 and the scheduler {type(scheduler).__name__}; eta is DDIM's"):
            pipeline(eta=0.0)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match="eta is 1.2 .* from 0 to 1"):
        pipeline(eta=1.2)


def test_eta_1_is_finite_where_rounding_makes_it_nan():
    """DDIM over cosine betas, 5 steps: less than no variance is left for the direction."""
    trained = FusedDDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    pipeline = FastDDPMPipeline(
        ExactNetwork("v_prediction").trained_with(trained), DDIMScheduler.from_config(trained.config)
    )
    given = {"batch_size": 4, "num_inference_steps": 5, "output_type": "latent"}
    images = pipeline(generator=torch.Generator().manual_seed(0), eta=1.0, **given).images
    assert torch.isfinite(images).all()
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(5)
    x_t = torch.randn(4, 1, 16, 16)
    for t in scheduler.timesteps:
        x_t = scheduler.step(pipeline.unet(x_t, t).sample, t, x_t, eta=1.0).prev_sample
    assert not torch.isfinite(x_t).all(), "diffusers mended it: the guard may go"


@pytest.mark.skipif(not is_torchsde_available(), reason="torchsde is not installed")
def test_the_solver_with_noise_of_its_own_draws_by_generator_and_by_seeds(folder):
    from diffusers import DPMSolverSDEScheduler

    pipeline = quiet(FastDDPMPipeline, folder)
    pipeline.scheduler = DPMSolverSDEScheduler.from_config(pipeline.scheduler.config)
    given = {"num_inference_steps": 4, "output_type": "pt"}
    first, again, other = (pipeline(generator=torch.Generator().manual_seed(n), **given).images for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    both = pipeline(seeds=[5, 7], micro_batch_size=2, **given).images
    assert torch.equal(pipeline(seeds=[7, 5], micro_batch_size=2, **given).images, both.flip(0))


@pytest.mark.parametrize(
    ("variance", "clips"),
    [
        ("fixed_small", False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("fixed_small", True), ("fixed_large", False))),
        pytest.param("fixed_large", True, marks=pytest.mark.slow),
    ],
)
def test_every_config_that_is_taken_can_be_sampled_and_what_is_refused_cannot(variance, clips):
    """All combinations of a config's scheduler and solver are built and stepped."""
    taken = 0
    for curve, kind, zero, solver in itertools.product(CURVES, KINDS, (False, True), SOLVERS):
        settings = {
            "scheduler.beta_schedule": curve, "scheduler.prediction_type": kind, "scheduler.variance_type": variance,
            "scheduler.clip_sample": clips, "scheduler.rescale_betas_zero_snr": zero, "sample.scheduler": solver,
            "sample.num_inference_steps": 10,
        }  # fmt: skip
        try:
            config = load_config("quickstart", settings)
        except ValueError:
            assert (zero and kind == "epsilon") or (curve == "sigmoid" and solver != "ddpm"), settings
            continue
        trained = build_scheduler(config)
        network = ExactNetwork(kind, sample_size=2).trained_with(trained)
        images = drawn(scheduler_named(solver, trained), network, 10)
        assert torch.isfinite(images).all(), settings
        taken += 1
    assert taken == 65


@pytest.mark.parametrize("solver", SOLVERS[1:])
def test_a_solver_without_the_curve_that_the_model_was_trained_with_is_refused_by_name(solver):
    with pytest.raises(ValueError, match=r"^\S+ has no beta_schedule sigmoid, which the model was .*; use ddpm$"):
        scheduler_named(solver, FusedDDPMScheduler(beta_schedule="sigmoid"))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_risk_is_told_exactly_where_a_small_error_grows(solver):
    """Spread drawn at 20 steps by a network 1 % off, for data of 0.3."""
    for curve, kind, clips in itertools.product(CURVES[:3], KINDS, (False, True)):
        trained = FusedDDPMScheduler(beta_schedule=curve, prediction_type=kind, clip_sample=clips)
        network = ExactNetwork(kind, 0.0, 0.3, 1.01).trained_with(trained)
        spread = drawn(scheduler_named(solver, trained), network, 20).std().item() / 0.3
        assert (risk_of(solver, trained) is not None) == (spread > 3), (curve, kind, clips, spread)
    assert risk_of(solver, scheduler_named("unipc", FusedDDPMScheduler(beta_schedule="squaredcos_cap_v2"))) == risk_of(
        solver, FusedDDPMScheduler(beta_schedule="squaredcos_cap_v2")
    )


def test_a_verb_tells_the_risk_of_a_solver_that_is_asked_for(tmp_path):
    FastDDPMPipeline(stock_unet(), FusedDDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"dpmsolver\+\+ over beta_schedule squaredcos_cap_v2 .* use ddpm, unipc"):
        open_pipeline(FastDDPMPipeline, str(tmp_path), "dpmsolver++")

import inspect
import itertools

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from fastddpm import FusedDDPMScheduler, draws
from fastddpm.kernels import denoise_step_cpu
from fastddpm.schedulers.tables import betas_of, trailing_timesteps

EPS = torch.finfo(torch.float32).eps


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)


def test_defaults_are_the_papers():
    config = FusedDDPMScheduler().config
    assert (config.num_train_timesteps, config.beta_start, config.beta_end) == (1000, 1e-4, 0.02)
    assert (config.beta_schedule, config.prediction_type) == ("linear", "epsilon")
    assert (config.variance_type, config.clip_sample) == ("fixed_small", False)


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_reverse_step_is_equation_4(batch, variance_type):
    """x_{t-1} = (x_t - (1 - alpha_t) / sqrt(1 - abar_t) eps) / sqrt(alpha_t) + sigma_t z, written out in float64."""
    sample, output = batch
    scheduler = FusedDDPMScheduler(variance_type=variance_type)
    z = torch.randn(4, 1, 8, 8)
    t = torch.tensor([999, 500, 1, 0])
    got, _ = scheduler.reverse_step(output, t, sample, noise=z)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas, alpha_bar = 1 - betas, torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar])[t]
    at = [x[t].view(-1, 1, 1, 1) for x in (alphas, alpha_bar, betas)] + [before.view(-1, 1, 1, 1)]
    alpha, bar, beta, bar_before = at
    sigma = (beta if variance_type == "fixed_large" else (1 - bar_before) / (1 - bar) * beta).sqrt()
    sigma = torch.where(t.view(-1, 1, 1, 1) > 0, sigma, 0.0)
    want = (sample.double() - (1 - alpha) / (1 - bar).sqrt() * output.double()) / alpha.sqrt() + sigma * z.double()
    for i in range(4):  # at t = 999, x_0 is 157 times the sample, and the mean takes it back: some digits are lost
        assert relative(got[i].double(), want[i]) < 200 * EPS


SPACINGS = [("leading", 50), ("trailing", 50), ("linspace", 61), ("trailing", 1000)]
VARIANCES = ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("variance_type", VARIANCES)
@pytest.mark.parametrize("bounds", [{}, {"clip_sample": True}, {"thresholding": True, "sample_max_value": 1.5}])
@pytest.mark.parametrize(("spacing", "num_steps"), SPACINGS)
def test_step_is_that_of_diffusers(batch, prediction_type, variance_type, bounds, spacing, num_steps):
    sample, output = batch
    settings = {"clip_sample": False, "prediction_type": prediction_type, "variance_type": variance_type, **bounds}
    stock = DDPMScheduler(timestep_spacing=spacing, **settings)
    ours = FusedDDPMScheduler.from_config(stock.config)
    if variance_type.startswith("learned"):  # "learned" is a variance, not a logarithm: above 0
        output = torch.cat([output, sample.abs() / 10], dim=1)
    for scheduler in (stock, ours):
        scheduler.set_timesteps(num_steps)
    assert torch.equal(stock.timesteps, ours.timesteps)
    for t in stock.timesteps[[0, num_steps // 2, -3, -2, -1]]:
        if t == stock.timesteps[-1] and t > 0:  # diffusers leaves noise in the image here: see the next test
            continue
        want = stock.step(output, t, sample, generator=seeded())
        got = ours.step(output, t, sample, generator=seeded())
        assert relative(got.prev_sample, want.prev_sample) < 1e-5
        assert relative(got.pred_original_sample, want.pred_original_sample) < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"trained_betas": [0.001 * i for i in range(1, 101)], "num_train_timesteps": 100},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"clip_sample": True, "clip_sample_range": 2.0},
    ],
    ids=lambda settings: next(iter(settings)) + "-" + str(next(iter(settings.values())))[:20],
)
def test_other_options_are_those_of_diffusers(batch, settings):
    """t from 5 up: below, diffusers computes these noise schedules in float32, which costs the first digits of beta."""
    sample, output = batch
    stock = DDPMScheduler(**{"clip_sample": False, **settings})
    ours = FusedDDPMScheduler.from_config(stock.config)
    for scheduler in (stock, ours):
        scheduler.set_timesteps(20)
    assert torch.equal(stock.timesteps, ours.timesteps)
    assert relative(ours.betas, stock.betas) < 1e-6
    assert relative(ours.alphas_cumprod, stock.alphas_cumprod) < 1e-6
    for t in stock.timesteps[:-1]:
        want = stock.step(output, t, sample, generator=seeded())
        got = ours.step(output, t, sample, generator=seeded())
        assert relative(got.prev_sample, want.prev_sample) < 1e-5
        assert ours.previous_timestep(t) == stock.previous_timestep(t)


def test_step_takes_a_list_of_generators_as_diffusers_does(batch):
    sample, output = batch
    ours, stock = FusedDDPMScheduler(), DDPMScheduler(clip_sample=False)
    got, want = (s.step(output, 500, sample, generator=[seeded(i) for i in range(4)])[0] for s in (ours, stock))
    assert relative(got, want) < 1e-5
    alone = ours.step(output[2:3], 500, sample[2:3], generator=[seeded(2)])[0]
    assert torch.equal(alone[0], got[2])


def test_step_takes_a_timestep_an_image(batch):
    sample, output = batch
    scheduler = FusedDDPMScheduler()
    t, generators = torch.tensor([999, 500, 3, 0]), [seeded(i) for i in range(4)]
    mixed = scheduler.step(output, t, sample, generator=generators).prev_sample
    for i in range(4):
        alone = scheduler.step(output[i : i + 1], int(t[i]), sample[i : i + 1], generator=[seeded(i)]).prev_sample
        assert torch.equal(mixed[i], alone[0])


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_reverse_step_takes_learned_variances_and_a_timestep_an_image(batch, variance_type):
    sample, output = batch
    double = torch.cat([output, sample.abs() / 10], dim=1)
    scheduler = FusedDDPMScheduler(variance_type=variance_type)
    stock = DDPMScheduler(variance_type=variance_type, clip_sample=False)
    t = torch.tensor([999, 500, 10, 0])
    got, _ = scheduler.reverse_step(double, t, sample, generator=[seeded(i) for i in range(4)])
    for i in range(4):
        want = stock.step(double[i : i + 1], int(t[i]), sample[i : i + 1], generator=seeded(i)).prev_sample
        assert relative(got[i], want[0]) < 1e-4, "diffusers' own float32 table"


def test_a_learned_variance_without_its_channels_is_refused(batch):
    sample, output = batch
    with pytest.raises(ValueError, match="output has 1 channels for samples of 1; variance_type 'learned' takes 2"):
        FusedDDPMScheduler(variance_type="learned").step(output, 5, sample)
    with pytest.raises(ValueError, match="'fixed_small' takes 1"):
        FusedDDPMScheduler().step(torch.cat([output, output], dim=1), 5, sample)


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_the_last_step_adds_no_noise_wherever_the_spacing_ends(batch, variance_type):
    sample, output = batch
    scheduler = FusedDDPMScheduler(variance_type=variance_type)
    scheduler.set_timesteps(100)
    assert scheduler.timesteps[-1] == 9
    last = [scheduler.step(output, 9, sample, generator=seeded(seed)).prev_sample for seed in (0, 1)]
    assert torch.equal(*last)
    before = [scheduler.step(output, 19, sample, generator=seeded(seed)).prev_sample for seed in (0, 1)]
    assert not torch.equal(*before)


def test_step_returns_a_tuple_when_asked(batch):
    sample, output = batch
    x_prev, x_0 = FusedDDPMScheduler().step(output, 5, sample, generator=seeded(), return_dict=False)
    assert x_prev.shape == x_0.shape == sample.shape


def test_reverse_step_takes_a_timestep_an_image(batch):
    sample, output = batch
    scheduler = FusedDDPMScheduler()
    scheduler.set_timesteps(50)
    noise = torch.randn(4, 1, 8, 8)
    t = torch.tensor([999, 19, 499, 0 + 19])
    mixed, _ = scheduler.reverse_step(output, t, sample, noise=noise)
    for i in range(4):
        alone, _ = scheduler.reverse_step(output[i : i + 1], int(t[i]), sample[i : i + 1], noise=noise[i : i + 1])
        assert torch.equal(mixed[i], alone[0])


def test_keyed_noise_of_a_step_depends_on_seed_and_timestep_only(batch):
    sample, output = batch
    scheduler = FusedDDPMScheduler()
    seeds = torch.tensor([11, 12, 13, 14])
    t = torch.tensor([700, 700, 3, 0])
    whole, _ = scheduler.reverse_step(output, t, sample, positions=seeds)
    for i in range(4):
        alone, _ = scheduler.reverse_step(
            output[i : i + 1], t[i : i + 1], sample[i : i + 1], positions=seeds[i : i + 1]
        )
        assert torch.equal(whole[i], alone[0])
    other, _ = scheduler.reverse_step(output, t, sample, positions=seeds + 1)
    assert not torch.equal(whole[0], other[0])
    assert torch.equal(whole[3], other[3]), "the last step adds no noise"


def test_reverse_step_keeps_x_in_float32_beside_the_models_input(batch):
    sample, output = batch
    x_prev, model_input = FusedDDPMScheduler().reverse_step(output.bfloat16(), 500, sample, generator=seeded())
    assert (x_prev.dtype, model_input.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(x_prev.bfloat16(), model_input)


def test_reverse_step_refuses_two_sources_of_noise(batch):
    sample, output = batch
    with pytest.raises(ValueError, match="give one source of noise"):
        FusedDDPMScheduler().reverse_step(output, 5, sample, generator=seeded(), noise=sample)


def test_add_noise_has_the_moments_of_equation_2():
    scheduler = FusedDDPMScheduler()
    noise = draws.normal(torch.arange(64), (1, 64, 64), seed=0, stream=draws.Stream.TRAIN_NOISE)
    x_0 = torch.full_like(noise, 0.5)
    x_t = scheduler.add_noise(x_0, noise, torch.full((64,), 300))
    bar = scheduler.alphas_cumprod[300].item()
    n = x_t.numel()
    assert abs(x_t.mean() - 0.5 * bar**0.5) < 5 * ((1 - bar) / n) ** 0.5
    assert abs(x_t.var() - (1 - bar)) < 5 * (1 - bar) * (2 / n) ** 0.5


def test_add_noise_in_bfloat16_loses_no_timesteps_noise():
    """diffusers casts alpha-bar to the sample's dtype: ten timesteps then get no noise at all."""
    scheduler, stock = FusedDDPMScheduler(), DDPMScheduler()
    timesteps = torch.arange(1000)
    zeros, ones = torch.zeros(1000, 1, dtype=torch.bfloat16), torch.ones(1000, 1, dtype=torch.bfloat16)
    assert (stock.add_noise(zeros, ones, timesteps) == 0).sum() == 10
    ours = scheduler.add_noise(zeros, ones, timesteps)
    assert ours.dtype == torch.bfloat16
    assert (ours > 0).all()


def test_add_noise_refuses_other_shapes():
    with pytest.raises(ValueError, match="wanted the shape of original_samples"):
        FusedDDPMScheduler().add_noise(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.tensor([1, 2]))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_recovers_x_0(prediction_type):
    """Inversion: noise an image, predict the exact target, and one step from there to x_0 gives the image."""
    torch.manual_seed(0)
    scheduler = FusedDDPMScheduler(prediction_type=prediction_type)
    x_0, noise = torch.rand(5, 1, 8, 8) * 2 - 1, torch.randn(5, 1, 8, 8)
    t = torch.tensor([0, 10, 299, 700, 999])
    x_t = scheduler.add_noise(x_0, noise, t)
    velocity = scheduler.get_velocity(x_0, noise, t)
    target = {"epsilon": noise, "v_prediction": velocity, "sample": x_0}[prediction_type]
    for i in range(5):
        scheduler.set_timesteps(timesteps=[int(t[i])])
        found, _ = scheduler.reverse_step(target[i : i + 1], int(t[i]), x_t[i : i + 1])
        amplified = 1 / scheduler.alphas_cumprod[t[i]].sqrt() if prediction_type == "epsilon" else 1
        assert (found - x_0[i : i + 1]).abs().max() < 16 * EPS * amplified


def test_velocity_is_that_of_diffusers(batch):
    x_0, noise = batch
    t = torch.tensor([0, 10, 500, 999])
    got = FusedDDPMScheduler().get_velocity(x_0, noise, t)
    assert relative(got, DDPMScheduler().get_velocity(x_0, noise, t)) < 1e-5


def test_trailing_spacing_is_right_for_every_number_of_steps():
    for num_steps in range(1, 1001):
        timesteps = trailing_timesteps(1000, num_steps)
        assert len(timesteps) == num_steps
        assert timesteps[0] == 999
        assert timesteps[-1] >= 0
        assert all(a > b for a, b in itertools.pairwise(timesteps))


@pytest.mark.parametrize("num_steps", [61, 103, 121])
def test_trailing_spacing_where_diffusers_takes_one_step_too_many(num_steps):
    stock, ours = DDPMScheduler(timestep_spacing="trailing"), FusedDDPMScheduler()
    stock.set_timesteps(num_steps)
    ours.set_timesteps(num_steps)
    assert len(stock.timesteps) == num_steps + 1
    assert len(ours.timesteps) == num_steps


def test_leading_spacing_refuses_to_start_in_the_middle():
    scheduler = FusedDDPMScheduler(timestep_spacing="leading")
    with pytest.raises(ValueError, match="use 500 or 1000 steps, or timestep_spacing 'trailing'"):
        scheduler.set_timesteps(600)
    scheduler.set_timesteps(500)
    assert len(scheduler.timesteps) == 500


def test_custom_timesteps_step_to_each_other(batch):
    sample, output = batch
    scheduler = FusedDDPMScheduler()
    scheduler.set_timesteps(timesteps=[299, 100, 7])
    stock = DDPMScheduler.from_config(scheduler.config)
    stock.set_timesteps(timesteps=[299, 100, 7])
    for t in (299, 100, 7):
        want = stock.step(output, t, sample, generator=seeded()).prev_sample
        assert relative(scheduler.step(output, t, sample, generator=seeded()).prev_sample, want) < 1e-5


def test_fixed_large_log_is_the_variance_it_names(batch):
    sample, output = batch
    got = FusedDDPMScheduler(variance_type="fixed_large_log").step(output, 500, sample, generator=seeded()).prev_sample
    want = FusedDDPMScheduler(variance_type="fixed_large").step(output, 500, sample, generator=seeded()).prev_sample
    assert torch.isfinite(got).all()
    assert torch.equal(got, want)


def test_config_goes_both_ways_and_keeps_every_value():
    ours = FusedDDPMScheduler()
    for other in (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler):
        theirs = other.from_config(ours.config)
        assert theirs.config.timestep_spacing == "trailing", other
        assert theirs.config.beta_end == 0.02
        if other is not DPMSolverMultistepScheduler:
            assert theirs.config.clip_sample is False, other
    back = FusedDDPMScheduler.from_config(DDPMScheduler.from_config(ours.config).config)
    assert back.config.clip_sample is False
    assert back.config.timestep_spacing == "trailing"


@pytest.mark.parametrize("other", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
def test_config_survives_the_way_there_and_back(other):
    ours = FusedDDPMScheduler(prediction_type="v_prediction", beta_end=0.03, clip_sample=True, clip_sample_range=1.5)
    back = FusedDDPMScheduler.from_config(other.from_config(ours.config).config)
    names = inspect.signature(FusedDDPMScheduler.__init__).parameters.keys() - {"self"}
    assert {name: back.config[name] for name in names} == {name: ours.config[name] for name in names}
    for given in ({}, {"beta_end": 0.03, "timestep_spacing": "linspace"}):  # what was left out is diffusers' default
        ours, stock = (kind.from_config(other(**given).config) for kind in (FusedDDPMScheduler, DDPMScheduler))
        assert {name: ours.config[name] for name in names} == {name: stock.config[name] for name in names}


def test_a_value_that_diffusers_left_out_means_diffusers_default():
    ours = FusedDDPMScheduler.from_config({"_class_name": "DDPMScheduler", "num_train_timesteps": 100})
    assert ours.config.clip_sample is True
    assert ours.config.timestep_spacing == "leading"
    assert ours.config.num_train_timesteps == 100


def test_save_and_load_keep_the_config(tmp_path):
    FusedDDPMScheduler(prediction_type="v_prediction", clip_sample=True).save_pretrained(tmp_path)
    loaded = FusedDDPMScheduler.from_pretrained(tmp_path)
    assert (loaded.config.prediction_type, loaded.config.clip_sample) == ("v_prediction", True)


def test_zero_terminal_snr_needs_another_prediction(batch):
    scheduler = FusedDDPMScheduler(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="use a model of prediction_type 'v_prediction' or 'sample'"):
        scheduler.set_timesteps(20)
    scheduler.set_timesteps(timesteps=[500, 0])
    sample, output = batch
    for prediction_type in ("v_prediction", "sample"):
        scheduler = FusedDDPMScheduler(rescale_betas_zero_snr=True, prediction_type=prediction_type)
        assert scheduler.snr(torch.tensor([999])) == 0
        scheduler.set_timesteps(20)
        assert torch.isfinite(scheduler.reverse_step(output, 999, sample)[0]).all()


def test_velocity_in_bfloat16_is_computed_in_float32(batch):
    x_0, noise = batch
    t = torch.arange(4)
    scheduler = FusedDDPMScheduler()
    got = scheduler.get_velocity(x_0.bfloat16(), noise.bfloat16(), t)
    want = scheduler.get_velocity(x_0.bfloat16().float(), noise.bfloat16().float(), t)
    assert torch.equal(got, want.bfloat16())


def test_timesteps_that_the_noise_schedule_does_not_reach_are_refused():
    with pytest.raises(ValueError, match="the first of the timesteps is 1000, the last one trained is 999; use steps_"):
        FusedDDPMScheduler(timestep_spacing="leading", steps_offset=1).set_timesteps(1000)
    for count in (0, 1001):
        with pytest.raises(ValueError, match=f"num_inference_steps is {count}; it must be 1 to 1000"):
            FusedDDPMScheduler().set_timesteps(count)


def test_a_learned_variance_is_not_looked_at_in_the_last_step(batch):
    """A negative one gave NaN there, and diffusers does not read it."""
    sample, output = batch
    double = torch.cat([output, -sample.abs()], dim=1)
    stock = DDPMScheduler(variance_type="learned", clip_sample=False).step(double, 0, sample).prev_sample
    ours = FusedDDPMScheduler(variance_type="learned").step(double, 0, sample).prev_sample
    assert relative(ours, stock) < 1e-5


@pytest.mark.parametrize("options", [{}, {"clip_sample": True}, {"thresholding": True}, {"variance_type": "learned"}])
def test_step_has_the_gradients_of_diffusers(batch, options):
    """Guidance by a classifier or a measurement goes backwards through a step."""
    stock, grads = DDPMScheduler(**{"clip_sample": False, **options}), []
    for scheduler in (stock, FusedDDPMScheduler.from_config(stock.config)):
        sample, output = (x.clone().requires_grad_() for x in batch)
        given = torch.cat([output, output**2], dim=1) if options.get("variance_type") else output
        result = scheduler.step(given, 400, sample, generator=seeded())
        (result.prev_sample.square().sum() + result.pred_original_sample.square().sum()).backward()
        grads.append((sample.grad, output.grad))
    for want, got in zip(*grads, strict=True):
        assert want.abs().max() > 0
        assert relative(got, want) < 1e-5


def test_add_noise_and_velocity_have_the_gradients_of_diffusers(batch):
    t, grads = torch.tensor([5, 100, 500, 999]), []
    for scheduler in (DDPMScheduler(), FusedDDPMScheduler()):
        x_0, noise = (x.clone().requires_grad_() for x in batch)
        loss = scheduler.add_noise(x_0, noise, t).square() + scheduler.get_velocity(x_0, noise, t).square()
        loss.sum().backward()
        grads.append((x_0.grad, noise.grad))
    for want, got in zip(*grads, strict=True):
        assert relative(got, want) < 1e-5


def test_alphas_cumprod_follow_the_samples_as_in_diffusers():
    for scheduler in (DDPMScheduler(), FusedDDPMScheduler()):
        x = torch.zeros(1, 1, 2, 2, device="meta")
        scheduler.add_noise(x, x, torch.zeros(1, dtype=torch.int64, device="meta"))
        assert scheduler.alphas_cumprod.device.type == "meta"


def test_a_generator_is_left_as_diffusers_leaves_it(batch):
    """A loop over `scheduler.timesteps` passes tensors; the last step draws nothing."""
    sample, output = batch
    left = []
    for scheduler in (DDPMScheduler(clip_sample=False), FusedDDPMScheduler(timestep_spacing="leading")):
        generator = seeded()
        scheduler.set_timesteps(10)
        for t in scheduler.timesteps:
            scheduler.step(output, t, sample, generator=generator)
        left.append(torch.randn(1, generator=generator))
    assert torch.equal(*left)


def test_what_is_replaced_by_hand_counts(batch):
    sample, output = batch
    t = torch.full((4,), 500)
    for replace in (
        lambda s: s.register_to_config(prediction_type="v_prediction"),
        lambda s: setattr(s, "alphas_cumprod", s.alphas_cumprod**2),
        lambda s: setattr(s, "timesteps", torch.tensor([900, 500, 3])),
    ):
        results = []
        for scheduler in (DDPMScheduler(clip_sample=False), FusedDDPMScheduler()):
            scheduler.set_timesteps(timesteps=[999, 500, 250, 0])
            scheduler.step(output, 500, sample)
            replace(scheduler)
            noised = scheduler.add_noise(sample, output, t)
            results.append((noised, scheduler.step(output, 500, sample, generator=seeded()).prev_sample))
        for want, got in zip(*results, strict=True):
            assert relative(got, want) < 1e-5


def test_steps_that_are_refused_change_nothing(batch):
    sample, output = batch
    scheduler = FusedDDPMScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(10)
    before = scheduler.timesteps, scheduler.step(output, 501, sample, generator=seeded()).prev_sample
    with pytest.raises(ValueError, match="use steps_offset 0"):
        scheduler.set_timesteps(1000)
    assert scheduler.timesteps is before[0]
    assert torch.equal(scheduler.step(output, 501, sample, generator=seeded()).prev_sample, before[1])
    with pytest.raises(ValueError, match="timesteps is empty"):
        scheduler.set_timesteps(timesteps=[])


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "sigmoid"])
def test_betas_are_computed_on_the_cpu_whatever_the_default_device(schedule):
    config = FusedDDPMScheduler(beta_schedule=schedule).config
    with torch.device("meta"):
        assert betas_of(config).device.type == "cpu"


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (3, 1, 7, 7), (2, 3, 150, 152), (1, 3, 151, 151)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("t", [500, 0])
def test_a_generators_noise_is_what_torch_draws_at_once(shape, layout, t):
    """On a CPU it is drawn piece by piece where that gives the same numbers; odd sizes and channels_last are not."""
    torch.manual_seed(1)
    sample, output = (torch.randn(shape).contiguous(memory_format=layout) for _ in range(2))
    scheduler, mine, whole = FusedDDPMScheduler(), seeded(5), seeded(5)
    noise = torch.randn(shape, generator=whole)
    got, _ = scheduler.reverse_step(output, t, sample, generator=mine)
    want, _ = scheduler.reverse_step(output, t, sample, noise=noise)
    assert torch.equal(got, want)
    if t:
        assert torch.equal(mine.get_state(), whole.get_state())
    torch.manual_seed(5)
    assert torch.equal(scheduler.reverse_step(output, t, sample)[0], want)


def test_a_step_of_large_tensors_is_that_of_diffusers():
    """Large enough for many pieces and for huge pages."""
    sample, output = (torch.randn(11, 3, 512, 512, generator=seeded(i)) for i in range(2))
    scheduler, stock = FusedDDPMScheduler(), DDPMScheduler(clip_sample=False)
    got, want = (s.step(output, 500, sample, generator=seeded()) for s in (scheduler, stock))
    assert relative(got.prev_sample, want.prev_sample) < 1e-5
    assert relative(got.pred_original_sample, want.pred_original_sample) < 1e-5


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_noise_that_is_drawn_by_a_thread_of_its_own_is_the_same(two_threads, monkeypatch):
    """For large tensors, if there is more than one thread; inference mode and no_grad do not reach it by themselves."""
    sample, output = (torch.randn(4, 3, 320, 320, generator=seeded(i)) for i in range(2))
    scheduler, names = FusedDDPMScheduler(), set()
    original = denoise_step_cpu.ThreadPoolExecutor

    def counted(*arguments):
        names.add("a thread")
        return original(*arguments)

    monkeypatch.setattr(denoise_step_cpu, "ThreadPoolExecutor", counted)
    torch.set_num_threads(1)
    want = scheduler.step(output, 500, sample, generator=seeded())
    assert not names
    torch.set_num_threads(2)
    mine = seeded()
    got = scheduler.step(output, 500, sample, generator=mine)
    assert names
    assert torch.equal(got.prev_sample, want.prev_sample)
    assert torch.equal(got.pred_original_sample, want.pred_original_sample)
    other = seeded()
    torch.randn(sample.shape, generator=other)
    assert torch.equal(mine.get_state(), other.get_state())
    with torch.inference_mode():
        again = scheduler.step(output, 500, sample, generator=seeded()).prev_sample
    assert again.is_inference()
    assert torch.equal(again.clone(), want.prev_sample)
    noise = torch.randn(sample.shape, generator=seeded(), requires_grad=True)
    given, _ = scheduler.reverse_step(output, 500, sample, noise=noise)
    assert torch.equal(given, scheduler.reverse_step(output, 500, sample, generator=seeded())[0])
    given.sum().backward()
    assert noise.grad is not None


def test_an_error_of_the_other_thread_arrives(two_threads):
    sample = torch.zeros(4, 3, 320, 320)

    def draw(piece, place):
        raise RuntimeError("no numbers left")

    with pytest.raises(RuntimeError, match="no numbers left"):
        denoise_step_cpu.denoise_step_on_cpu(
            sample, sample, torch.full((4,), 5), torch.ones(10, 5), draw, None, with_x_0=False
        )

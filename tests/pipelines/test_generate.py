import functools

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from diffusers.callbacks import PipelineCallback

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel, VariationPipeline
from fastddpm.pipelines.portable import spread
from tests.conftest import stock_unet


@pytest.fixture
def pipeline(unet, scheduler):
    made = FastDDPMPipeline(unet, scheduler)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("num_steps", [4, 10, 20])
def test_images_are_those_of_diffusers_pipeline(pipeline, num_steps):
    stock = DDPMPipeline(pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config))
    stock.set_progress_bar_config(disable=True)
    ours, theirs = (
        p(
            batch_size=3, generator=torch.Generator().manual_seed(1), num_inference_steps=num_steps, output_type="np"
        ).images
        for p in (pipeline, stock)
    )
    assert ours.shape == theirs.shape == (3, 8, 8, 1)
    assert ours.std() > 0.05, "an empty picture would prove nothing"
    assert np.abs(np.round(ours * 255) - np.round(theirs * 255)).max() <= 1


def test_an_image_of_a_seed_does_not_depend_on_its_company(pipeline):
    def draw(seeds):
        return pipeline(seeds=seeds, num_inference_steps=5, micro_batch_size=4, output_type="pt").images

    batch = draw([3, 1, 4, 1, 5, 9])
    assert torch.equal(batch[1], batch[3])
    assert not torch.equal(batch[0], batch[1])
    assert torch.equal(draw([4])[0], batch[2])
    assert torch.equal(draw([9, 5])[0], batch[5])


def test_micro_batches_change_an_image_by_one_level_at_most(pipeline):
    whole = pipeline(seeds=range(6), num_inference_steps=5, output_type="pt").images
    parts = pipeline(seeds=range(6), num_inference_steps=5, micro_batch_size=1, output_type="pt").images
    assert ((whole - parts).abs() * 255).max() <= 1


def test_list_of_generators_draws_each_image_by_itself(pipeline):
    def draw(numbers):
        generators = [torch.Generator().manual_seed(n) for n in numbers]
        return pipeline(
            batch_size=len(numbers), generator=generators, num_inference_steps=4, micro_batch_size=1, output_type="pt"
        ).images

    assert torch.equal(draw([1, 2, 3])[1], draw([2])[0])


@pytest.mark.parametrize(
    ("output_type", "kind", "shape"), [("np", np.ndarray, (2, 8, 8, 1)), ("pt", torch.Tensor, (2, 1, 8, 8))]
)
def test_output_types(pipeline, output_type, kind, shape):
    images = pipeline(batch_size=2, num_inference_steps=2, output_type=output_type).images
    assert isinstance(images, kind)
    assert tuple(images.shape) == shape
    assert 0 <= images.min() <= images.max() <= 1


def test_pil_output_is_the_rounded_image(pipeline):
    images = pipeline(seeds=[1], num_inference_steps=2).images
    exact = pipeline(seeds=[1], num_inference_steps=2, output_type="np").images[0, :, :, 0]
    assert images[0].mode == "L"
    assert np.abs(np.array(images[0]) - exact * 255).max() <= 0.5 + 1e-4


def test_return_dict_false_gives_a_tuple(pipeline):
    (images,) = pipeline(num_inference_steps=2, return_dict=False)
    assert len(images) == 1


def test_callback_sees_each_step_and_may_replace_the_latents(pipeline):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, timestep))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == pipe.num_timesteps - 1 else {}

    image = pipeline(num_inference_steps=5, callback_on_step_end=callback, output_type="pt").images
    assert seen == [(0, 19), (1, 15), (2, 11), (3, 7), (4, 3)]
    assert torch.equal(image, torch.full_like(image, 0.5))


def test_callback_objects_of_diffusers_name_their_own_tensors(pipeline):
    class Halve(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012 - diffusers' own interface

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            assert (self.config.cutoff_step_ratio, timestep >= 0) == (0.5, True)
            callback_kwargs["latents"] = callback_kwargs["latents"] / 2
            return callback_kwargs

    given = {"seeds": [1], "timesteps": [0], "output_type": "latent"}
    halved = pipeline(**given, callback_on_step_end=Halve(cutoff_step_ratio=0.5)).images
    assert torch.equal(halved, pipeline(**given).images / 2)


def test_class_labels_reach_the_model(labelled_unet, scheduler):
    pipeline = FastDDPMPipeline(labelled_unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    one, other, null, none = (
        pipeline(seeds=[4], class_labels=labels, num_inference_steps=5, output_type="pt").images
        for labels in ([0], [1], [3], None)
    )
    assert not torch.equal(one, other)
    assert not torch.equal(other, null)
    assert torch.equal(none, other), "seed 4 of three classes: class 1"


@pytest.fixture
def by_class(labelled_unet, scheduler):
    made = FastDDPMPipeline(labelled_unet, scheduler, None, ["a", "none", "c"], 1.5, 5)
    made.set_progress_bar_config(disable=True)
    return made


def test_classes_are_spread_over_a_call_and_over_calls():
    def labels(seed, count):
        return spread(3, count, torch.Generator().manual_seed(seed))

    for seed in range(5):
        assert sorted(labels(seed, 7).bincount(minlength=3).tolist()) == [2, 2, 3]
    assert {int(labels(seed, 1)) for seed in range(20)} == {0, 1, 2}, "a batch of one is not always of the same class"
    assert len({tuple(labels(seed, 3).tolist()) for seed in range(40)}) == 6, "every order comes"
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5, 4)]
    first, other, again = spread(3, 3, generators).tolist()
    assert (first, other) == (int(labels(4, 1)), int(labels(5, 1)))
    assert first == again, "an image of a list of generators depends on its own alone"


def test_a_call_without_arguments_draws_by_class_guidance_and_steps_of_its_own(by_class):
    def draw(**given):
        return by_class(batch_size=4, generator=torch.Generator().manual_seed(0), output_type="pt", **given).images

    generator = torch.Generator().manual_seed(0)
    labels = spread(3, 4, generator)  # before the noise
    asked = by_class(
        batch_size=4, generator=generator, class_labels=labels, guidance_scale=1.5, num_inference_steps=5,
        output_type="pt",
    ).images  # fmt: skip
    assert torch.equal(draw(), asked)
    assert not torch.equal(draw(), draw(guidance_scale=1.0))
    by_class.scheduler = DDIMScheduler.from_config(by_class.scheduler.config)
    assert by_class.default_steps == 20, "the saved steps are those of the saved solver"


def test_any_class_is_asked_for_by_name_and_is_not_guided(by_class):
    by_class.register_to_config(label_names=["a", "b", "c"])
    draw = functools.partial(by_class, seeds=[1, 2], output_type="pt")
    assert torch.equal(draw(class_labels="none").images, draw(class_labels=[3, 3], guidance_scale=1.0).images)
    assert torch.equal(draw(class_labels="b").images, draw(class_labels=[1, 1]).images)
    by_class.register_to_config(label_names=["a", "none", "c"])
    assert by_class.class_number("none") == 1, "a class of this name goes first"


@pytest.mark.parametrize("kind", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_other_schedulers_are_kept_and_take_seeds(unet, scheduler, kind):
    pipeline = FastDDPMPipeline(unet, kind.from_config(scheduler.config))
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline.scheduler) is kind
    both = pipeline(seeds=[1, 2], num_inference_steps=5, micro_batch_size=1, output_type="pt").images
    assert torch.equal(
        pipeline(seeds=[2], num_inference_steps=5, micro_batch_size=1, output_type="pt").images[0], both[1]
    )


def test_stock_unet_takes_our_place(scheduler):
    pipeline = FastDDPMPipeline(stock_unet(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(seeds=[1], num_inference_steps=2, output_type="pt").images.shape == (1, 1, 8, 8)


def test_stock_ddpm_scheduler_becomes_ours(unet):
    pipeline = FastDDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20))
    assert type(pipeline.scheduler) is FusedDDPMScheduler
    assert pipeline.scheduler.config.clip_sample is True, "diffusers' default, which that scheduler had"


def test_thresholding_scheduler_draws_what_diffusers_draws(unet):
    stock = DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20, thresholding=True))
    ours = FastDDPMPipeline(unet, stock.scheduler)
    assert type(ours.scheduler) is FusedDDPMScheduler
    drawn = []
    for pipeline in (stock, ours):
        pipeline.set_progress_bar_config(disable=True)
        drawn.append(pipeline(2, torch.Generator().manual_seed(1), num_inference_steps=20, output_type="np").images)
    assert drawn[0].std() > 0.05
    assert np.abs(drawn[0] - drawn[1]).max() * 255 <= 1


def test_learned_variances_are_drawn_with(scheduler):
    torch.manual_seed(0)
    unet = PaperUNet2DModel(sample_size=8, out_channels=2, block_out_channels=(4, 8), time_embedding_dim=8).eval()
    learned = FusedDDPMScheduler.from_config(scheduler.config, variance_type="learned_range")
    images = FastDDPMPipeline(unet, learned)(seeds=[1, 2], num_inference_steps=5, output_type="pt").images
    assert images.shape == (2, 1, 8, 8)
    assert images.std() > 0.05


def test_stock_conditional_unet_keeps_all_its_classes(scheduler):
    pipeline = FastDDPMPipeline(stock_unet(num_class_embeds=3), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.num_classes == 3
    assert pipeline(seeds=[2, 3], num_inference_steps=2, output_type="pt").images.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="class_labels must be 0 to 2$"):
        pipeline(class_labels=[3])


def test_bfloat16_model_keeps_the_sample_in_float32(unet, scheduler):
    pipeline = FastDDPMPipeline(unet.to(torch.bfloat16), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    kinds = set()

    def callback(_, __, ___, tensors):
        kinds.add(tensors["latents"].dtype)
        return {}

    pipeline(num_inference_steps=3, callback_on_step_end=callback)
    assert kinds == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [1], "generator": torch.Generator()}, "give seeds .* or a generator"),
        ({"seeds": [1], "batch_size": 2}, "got 1 seeds for 2 images"),
        ({"seeds": [-1]}, "seeds must be integers from 0"),
        ({"batch_size": 0}, "ask for at least one image"),
        ({"micro_batch_size": -1}, "micro_batch_size is -1; it must be at least 1"),
        ({"timesteps": []}, "timesteps is empty"),
        ({"batch_size": 2, "generator": [torch.Generator()]}, "got 1 generators for 2 images"),
        ({"class_labels": [1]}, "not class-conditional"),
        ({"num_inference_steps": 21}, "num_inference_steps is 21; it must be 1 to 20"),
        ({"num_inference_steps": 2, "timesteps": [3, 1]}, "got both timesteps and num_inference_steps"),
        ({"output_type": "jpg", "num_inference_steps": 1}, "use 'pil', 'np', 'pt' or 'latent'"),
        ({"latents": torch.zeros(1, 1, 4, 4)}, r"latents are \(1, 1, 4, 4\); .* want \(1, 1, 8, 8\)"),
        ({"guidance_scale": 2.0}, "guidance_scale is 2.0, but there are no class labels"),
        (
            {"callback_on_step_end": print, "callback_on_step_end_tensor_inputs": ["sample"]},
            "has sample; known: latents",
        ),
    ],
)
def test_bad_arguments_are_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**arguments)


def test_labels_that_do_not_fit_are_refused(labelled_unet, scheduler):
    pipeline = FastDDPMPipeline(labelled_unet, scheduler)
    with pytest.raises(ValueError, match="class_labels must be 0 to 2, or 3 or 'none' for any class"):
        pipeline(class_labels=[4])
    with pytest.raises(ValueError, match="got 2 class_labels for 3 images; give one an image"):
        pipeline(batch_size=3, class_labels=[1, 2])


def test_number_of_images_follows_from_what_is_given_for_each(labelled_unet, scheduler):
    pipeline = FastDDPMPipeline(labelled_unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    given = [{"seeds": [1, 2]}, {"class_labels": [1, 2]}, {"latents": torch.zeros(2, 1, 8, 8)}, {"batch_size": 2}]
    for arguments in given:
        assert len(pipeline(**arguments, num_inference_steps=1).images) == 2


def test_custom_timesteps_are_visited(pipeline):
    stock = DDPMPipeline(pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config))
    seen = []

    def callback(_, __, timestep, ___):
        seen.append(timestep)
        return {}

    images = pipeline(
        generator=torch.Generator().manual_seed(3), timesteps=[19, 11, 4, 0], callback_on_step_end=callback,
        output_type="latent",
    ).images  # fmt: skip
    assert seen == [19, 11, 4, 0]
    generator = torch.Generator().manual_seed(3)
    x_t = torch.randn(1, 1, 8, 8, generator=generator)
    stock.scheduler.set_timesteps(timesteps=[19, 11, 4, 0])
    with torch.no_grad():
        for t in stock.scheduler.timesteps:
            x_t = stock.scheduler.step(stock.unet(x_t, t).sample, t, x_t, generator=generator).prev_sample
    assert torch.allclose(images, x_t, atol=1e-4)
    with pytest.raises(ValueError, match="DDIMScheduler takes no list of timesteps"):
        FastDDPMPipeline(pipeline.unet, DDIMScheduler())(timesteps=[5, 1])


def test_latents_are_what_it_starts_from(pipeline):
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    last = {"timesteps": [0], "output_type": "latent"}  # the last step draws no noise
    images = pipeline(latents=noise, **last).images
    assert torch.equal(images, pipeline(generator=torch.Generator().manual_seed(5), batch_size=2, **last).images)
    parts = pipeline(latents=noise, seeds=[1, 2], micro_batch_size=3, **last).images
    assert torch.allclose(parts, images, atol=1e-5)


def test_schedulers_of_noise_levels_start_at_theirs_and_keep_fractions_of_timesteps(pipeline):
    """Euler's first noise level is far from 1, and its linspace has timesteps such as 832.5."""
    euler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    noise, seen = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5)), []
    drawn = FastDDPMPipeline(pipeline.unet, euler)(latents=noise, num_inference_steps=7, output_type="latent").images
    euler.set_timesteps(7)
    x_t = noise * euler.init_noise_sigma
    with torch.no_grad():
        for t in euler.timesteps:
            seen.append(float(t))
            output = pipeline.unet(euler.scale_model_input(x_t, t), t).sample
            x_t = euler.step(output, t, x_t).prev_sample
    assert any(t % 1 for t in seen)
    assert torch.allclose(drawn, x_t, atol=1e-4)


def test_output_types_are_refused_before_the_work_and_numpy_has_three_names(pipeline):
    steps = []
    with pytest.raises(ValueError, match="use 'pil', 'np', 'pt' or 'latent'"):
        pipeline(num_inference_steps=2, output_type="png", callback_on_step_end=lambda *_: steps.append(1) or {})
    assert not steps
    for name in ("np", "numpy", None):
        assert isinstance(pipeline(num_inference_steps=1, output_type=name).images, np.ndarray)


def test_guidance_is_the_line_through_both_predictions(labelled_unet, scheduler):
    """eps(null) + scale (eps(class) - eps(null)), by hand for one step to x_0."""
    pipeline = FastDDPMPipeline(labelled_unet, scheduler)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    given = {"latents": noise, "timesteps": [19], "output_type": "latent"}
    with torch.no_grad():
        wanted, null = (labelled_unet(noise, 19, torch.tensor(labels)).sample for labels in ([0, 2], [3, 3]))
    for scale in (1.0, 0.0, 2.5):
        images = pipeline(class_labels=[0, 2], guidance_scale=scale, **given).images
        scheduler.set_timesteps(timesteps=[19])
        by_hand, _ = scheduler.reverse_step(null + scale * (wanted - null), 19, noise)
        assert torch.allclose(images, by_hand, rtol=1e-5, atol=1e-5), scale
    assert not torch.allclose(wanted, null, atol=1e-3), "equal predictions would prove nothing"


def test_guidance_needs_a_null_class(scheduler):
    pipeline = FastDDPMPipeline(stock_unet(num_class_embeds=3), scheduler)
    with pytest.raises(ValueError, match="trained without a null class"):
        pipeline(guidance_scale=2.0)
    with_null = FastDDPMPipeline(stock_unet(num_class_embeds=4), scheduler, null_class=3)
    assert with_null.num_classes == 3
    assert len(with_null(class_labels=[0, 3], guidance_scale=2.0, num_inference_steps=2).images) == 2


def test_float16_model_draws(unet, scheduler):
    pipeline = FastDDPMPipeline(unet.half(), scheduler)
    images = pipeline(seeds=[1], num_inference_steps=3, output_type="np").images
    assert images.dtype == np.float32
    assert np.isfinite(images).all()


def test_offload_hooks_do_not_change_the_images(unet, scheduler):
    def draw():
        pipeline = FastDDPMPipeline(unet, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(seeds=[1, 2], num_inference_steps=3, output_type="pt").images

    want = draw()
    cpu_offload(unet, execution_device=torch.device("cpu"))
    assert next(unet.parameters()).device.type == "meta", "the weights wait elsewhere between two layers"
    assert torch.equal(draw(), want)


def test_progress_bar_counts_the_steps_of_all_micro_batches(pipeline, capsys):
    pipeline.set_progress_bar_config(disable=False)
    pipeline(batch_size=4, num_inference_steps=5, micro_batch_size=2)
    assert "10/10" in capsys.readouterr().err


def test_components_and_from_pipe_share_the_parts(pipeline, scheduler):
    assert set(pipeline.components) == {"unet", "scheduler"}
    assert VariationPipeline(**pipeline.components).unet is pipeline.unet
    assert VariationPipeline.from_pipe(pipeline).unet is pipeline.unet
    stock = DDPMPipeline.from_pipe(pipeline, unet=pipeline.unet)  # which takes a UNet2DModel only, unless told to
    assert stock.unet is pipeline.unet
    conditional = FastDDPMPipeline(stock_unet(num_class_embeds=4), scheduler, null_class=3)
    assert VariationPipeline.from_pipe(conditional).null_class == 3
    back = FastDDPMPipeline.from_pipe(DDPMPipeline(stock_unet(), DDPMScheduler()))
    assert type(back.scheduler) is FusedDDPMScheduler

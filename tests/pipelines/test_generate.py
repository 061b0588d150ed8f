import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler


@pytest.fixture
def pipeline(unet, scheduler):
    made = FastDDPMPipeline(unet, scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def stock_unet(**options):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), **options,
    ).eval()  # fmt: skip


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


def test_callback_sees_each_step_and_may_replace_the_sample(pipeline):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, timestep))
        return {"sample": torch.zeros_like(tensors["sample"])} if step == 4 else {}

    image = pipeline(num_inference_steps=5, callback_on_step_end=callback, output_type="pt").images
    assert seen == [(0, 19), (1, 15), (2, 11), (3, 7), (4, 3)]
    assert torch.equal(image, torch.full_like(image, 0.5))


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
    by_place = pipeline(
        batch_size=3, generator=torch.Generator().manual_seed(0), num_inference_steps=5, output_type="pt"
    )
    asked = pipeline(
        class_labels=[0, 1, 2], batch_size=3, generator=torch.Generator().manual_seed(0), num_inference_steps=5,
        output_type="pt",
    )  # fmt: skip
    assert torch.equal(by_place.images, asked.images)


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


def test_thresholding_scheduler_is_kept_and_works(unet):
    pipeline = FastDDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20, thresholding=True))
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline.scheduler) is DDPMScheduler
    assert pipeline(seeds=[1], num_inference_steps=4, output_type="pt").images.std() > 0


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
        kinds.add(tensors["sample"].dtype)
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
        ({"batch_size": 2, "generator": [torch.Generator()]}, "got 1 generators for 2 images"),
        ({"class_labels": [1]}, "not class-conditional"),
        ({"num_inference_steps": 21}, "num_inference_steps is 21; from start_timestep 20 it must be 1 to 20"),
        ({"output_type": "jpg", "num_inference_steps": 1}, "use 'pil', 'np' or 'pt'"),
    ],
)
def test_bad_arguments_are_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**arguments)


def test_labels_that_do_not_fit_are_refused(labelled_unet, scheduler):
    pipeline = FastDDPMPipeline(labelled_unet, scheduler)
    with pytest.raises(ValueError, match="class_labels must be 0 to 2, or 3 for any class"):
        pipeline(class_labels=[4])
    with pytest.raises(ValueError, match="give one an image"):
        pipeline(class_labels=[1, 2])

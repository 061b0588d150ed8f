import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, UniPCMultistepScheduler
from PIL import Image

from fastddpm import FusedDDPMScheduler, VariationPipeline
from fastddpm.data import to_unit_range
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.renoise import predicted_noise
from fastddpm.pipelines.steps import set_timesteps_from
from fastddpm.schedulers.named import scheduler_named
from tests.pipelines.knowing import Knows


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(3, 1, 8, 8)


@pytest.fixture
def pipeline(unet, scheduler):
    made = VariationPipeline(unet, scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def knowing_pipeline(unet, x_0, scheduler):
    knows = Knows(unet.config, scheduler, x_0)
    made = VariationPipeline.__new__(VariationPipeline)
    made.__init__(unet, scheduler)
    made.unet = knows
    made.set_progress_bar_config(disable=True)
    return made, knows


def test_start_timestep_300_is_index_299_and_300_steps(unet, images):
    scheduler = FusedDDPMScheduler()
    pipeline, knows = knowing_pipeline(unet, images * 2 - 1, scheduler)
    result = pipeline(images, start_timestep=300, output_type="pt", seeds=range(3))
    assert knows.timesteps == list(range(299, -1, -1))
    assert (result.images - images).abs().max() < 0.01, "a model that knows the noise gives the image back"
    assert (result.noised - images).abs().max() > 0.1


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmsolver++", "UniPC"])
def test_every_solver_noises_by_the_training_schedule(unet, images, name):
    """diffusers' multistep solvers do so at their own steps only, after `set_timesteps`: before, t means 999 - t."""
    trained_with = FusedDDPMScheduler()
    unipc = UniPCMultistepScheduler(timestep_spacing="trailing")
    pipeline = VariationPipeline(unet, unipc if name == "UniPC" else scheduler_named(name, trained_with))
    alpha_bar = trained_with.alphas_cumprod[299]
    for _ in range(2):
        noised = pipeline.noised(images, 300, 30, [0, 1, 2])
        noise = NoiseSource.of(3, [0, 1, 2], None).initial(tuple(images.shape), images.device)
        assert torch.allclose(noised, alpha_bar.sqrt() * images + (1 - alpha_bar).sqrt() * noise, atol=1e-4)


class KnowsClasses(Knows):
    """Knows an image of each class, and takes what it is given for one of the class that it is told."""

    null_class = 3

    def __init__(self, config, scheduler, of_classes):
        super().__init__(config, scheduler, of_classes)
        self.of_classes, self.labels = of_classes, []

    def forward(self, sample, timestep, class_labels=None):
        self.labels.append(class_labels.tolist())
        self.x_0 = self.of_classes[class_labels]
        return super().forward(sample, timestep)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_an_image_is_varied_as_its_own_class_with_the_runs_guidance(labelled_unet, scheduler, kind):
    scheduler = FusedDDPMScheduler.from_config(scheduler.config, prediction_type=kind)
    pipeline = VariationPipeline(labelled_unet, scheduler, guidance_scale=1.5, num_inference_steps=10)
    of_classes = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pipeline.unet = knows = KnowsClasses(labelled_unet.config, scheduler, of_classes)
    pipeline.set_progress_bar_config(disable=True)
    nearly = of_classes[[2, 0, 1]] + 0.2 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert pipeline.told_classes(nearly).tolist() == [2, 0, 1]
    knows.labels.clear()
    result = pipeline((nearly / 2 + 0.5).clamp(0, 1), start_timestep=10, num_variations=2, output_type="latent")
    steps = [labels for labels in knows.labels if len(labels) == 12]
    assert steps == [[2, 2, 0, 0, 1, 1, 3, 3, 3, 3, 3, 3]] * pipeline.steps_from(10), "each beside any class"
    assert pipeline.guidance_scale == 1.5
    assert result.images.shape == (6, 1, 8, 8)
    knows.labels.clear()
    pipeline((nearly / 2 + 0.5).clamp(0, 1), start_timestep=10, class_labels="none", output_type="pt")
    assert knows.labels == [[3, 3, 3]] * pipeline.steps_from(10)


def test_start_timestep_0_is_the_image_itself(pipeline, images):
    result = pipeline(images, start_timestep=0, output_type="pt")
    assert torch.allclose(result.images, images, atol=1e-6)


def test_similarity_falls_with_the_start_timestep(unet, images):
    pipeline = VariationPipeline(unet, FusedDDPMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    distances = [
        (pipeline(images, start_timestep=t, num_inference_steps=1, seeds=range(3), output_type="pt").noised - images)
        .abs()
        .mean()
        for t in (1, 100, 300, 1000)
    ]
    assert distances == sorted(distances)
    assert distances[-1] > 5 * distances[0]


def test_variations_of_one_image_stand_together_and_differ(pipeline, images):
    result = pipeline(images, start_timestep=10, num_variations=4, seeds=range(12), output_type="pt").images
    assert result.shape == (12, 1, 8, 8)
    alone = pipeline(images[1:2], start_timestep=10, num_variations=4, seeds=range(4, 8), output_type="pt").images
    assert ((result[4:8] - alone).abs() * 255).max() <= 1
    assert not torch.equal(result[4], result[5])


def test_several_start_timesteps_stand_within_an_image(pipeline, images):
    seeds = list(range(18))
    drawn = pipeline(
        images, start_timestep=[0, 5, 10], num_variations=2, seeds=seeds, output_type="pt", micro_batch_size=4
    )
    assert drawn.images.shape == (18, 1, 8, 8)
    assert torch.allclose(drawn.images[[0, 1, 6, 7, 12, 13]], images.repeat_interleave(2, dim=0), atol=1e-6), "start 0"
    for first, start in ((2, 5), (4, 10)):
        places = [6 * image + first + k for image in range(3) for k in range(2)]
        alone = pipeline(
            images, start_timestep=start, num_variations=2, seeds=[seeds[i] for i in places], output_type="pt",
            micro_batch_size=4,
        )  # fmt: skip
        assert torch.equal(drawn.images[places], alone.images)
        assert torch.equal(drawn.noised[places], alone.noised)


def test_a_variation_is_reproducible_on_its_own(pipeline, images):
    seeds, noise_seeds = list(range(100, 112)), [7, 8, 9]
    for given in (None, noise_seeds):
        drawn = pipeline(
            images, start_timestep=10, num_variations=4, seeds=seeds, noise_seeds=given, output_type="pt",
            micro_batch_size=4,
        )  # fmt: skip
        alone = pipeline(
            images[1:2], start_timestep=10, seeds=[seeds[6]], noise_seeds=None if given is None else [8],
            output_type="pt", micro_batch_size=4,
        )  # fmt: skip
        assert torch.equal(alone.images[0], drawn.images[6])


def test_noise_is_shared_among_the_variations_of_an_image_if_asked(pipeline, images):
    def noised(**options):
        found = pipeline(images, start_timestep=10, num_variations=4, output_type="pt", **options)
        assert not torch.equal(found.images[0], found.images[1]), "the reverse steps' noise stays their own"
        return found.noised.view(3, 4, -1)

    shared = noised(seeds=range(12), noise_seeds=[5, 5, 6])
    assert (shared == shared[:, :1]).all()
    assert not torch.equal(shared[1, 0], shared[2, 0])
    own = noised(seeds=range(12))
    assert not torch.equal(own[0, 0], own[0, 1])
    assert torch.equal(noised(seeds=range(12), noise_seeds=range(12)), own), "by default a result's own seed"
    by_generator = noised(generator=torch.Generator().manual_seed(0), noise_seeds=[5, 5, 6])
    assert torch.equal(by_generator, shared)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_seeds": [1, 2]}, "got 2 noise_seeds for 3 inputs and 6 results"),
        ({"noise_seeds": [1, 2, -3]}, "seeds must be integers from 0"),
        ({"start_timestep": []}, "start_timestep is empty"),
        ({"start_timestep": [5, 21]}, "start_timestep is 21; it counts denoising steps, from 0 to 20"),
        (
            {"start_timestep": [5, 10], "num_inference_steps": 6, "seeds": range(12)},
            "num_inference_steps is 6; from start",
        ),
    ],
)
def test_noise_and_starts_that_do_not_fit_are_refused(pipeline, images, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(images, **{"num_variations": 2, "seeds": range(6), "start_timestep": 5, **options})


def test_images_may_be_pil_arrays_or_tensors(pipeline, images):
    levels = (images * 255).round().to(torch.uint8)
    given = [
        [Image.fromarray(image[0].numpy()) for image in levels],
        levels,
        levels.numpy(),
        levels.float() / 255,
    ]
    drawn = [pipeline(g, start_timestep=5, seeds=range(3), output_type="pt").images for g in given]
    for other in drawn[1:]:
        assert torch.allclose(other, drawn[0], atol=1e-6)
    one = pipeline(given[0][0], start_timestep=5, seeds=[0]).images
    assert len(one) == 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (Image.new("RGB", (8, 8)), r"mode RGB; the model takes L: use image\.convert\('L'\)"),
        (Image.new("L", (9, 8)), r"images are \(1, 8, 9\) .*the model makes \(1, 8, 8\): resize first"),
        (np.full((1, 1, 8, 8), 2.0), r"outside of \[0, 1\]"),
        (np.full((1, 1, 8, 8), np.nan), r"outside of \[0, 1\]"),
        (np.zeros((8, 8)), r"wanted \(B, C, H, W\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(pipeline, images, message):
    with pytest.raises(ValueError, match=message):
        pipeline(images, start_timestep=5)


@pytest.mark.parametrize("start", [-1, 21])
def test_start_timesteps_outside_of_the_chain_are_refused(pipeline, images, start):
    with pytest.raises(ValueError, match=f"start_timestep is {start}; it counts denoising steps, from 0 to 20"):
        pipeline(images, start_timestep=start)


def test_schedulers_without_whole_steps_are_refused():
    """PNDM counts its Runge-Kutta half steps: starting in their middle gave numbers of 1e9."""
    with pytest.raises(ValueError, match="PNDMScheduler cannot start at timestep 500"):
        set_timesteps_from(PNDMScheduler(), 500, 5)
    with pytest.raises(ValueError, match="use num_inference_steps") as error:
        set_timesteps_from(DDIMScheduler(timestep_spacing="trailing"), 300, 7)
    offered = [int(word.rstrip(",")) for word in str(error.value).rpartition("num_inference_steps ")[2].split()]
    for steps in offered:
        assert len(set_timesteps_from(DDIMScheduler(timestep_spacing="trailing"), 300, steps)) == steps


def test_fewer_steps_are_evenly_spaced_from_the_start():
    assert set_timesteps_from(FusedDDPMScheduler(), 300, 3) == [299, 199, 99]
    assert set_timesteps_from(FusedDDPMScheduler(), 1000, 4) == [999, 749, 499, 249]
    assert set_timesteps_from(FusedDDPMScheduler(), 7, None) == [6, 5, 4, 3, 2, 1, 0]


def test_ddim_takes_the_steps_its_grid_has_and_names_them_otherwise():
    ddim = DDIMScheduler.from_config(FusedDDPMScheduler().config)
    assert set_timesteps_from(ddim, 300, 30) == list(range(299, 0, -10))
    with pytest.raises(ValueError, match=r"has no 50 steps from start_timestep 300 .* use num_inference_steps .*60"):
        set_timesteps_from(ddim, 300, 50)


def test_each_from_its_own_start_is_what_each_gets_alone(unet, scheduler):
    """In one pass, an image waits until the chain has come down to its start."""
    pipeline = VariationPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8))
    starts, seeds = [3, 20, 7, 1, 7], torch.arange(5)
    options = {"labels": None, "micro_batch_size": 4, "report": lambda *_: None}
    x_0, noise = to_unit_range(images), NoiseSource(seeds, None)
    with torch.no_grad():
        together = pipeline.renoise_each(x_0, starts, noise, **options)
        alone, _ = pipeline.renoise(x_0, starts, None, noise, None, **options)
    assert torch.equal(together, alone)


def test_solvers_that_know_earlier_steps_cannot_wait(unet, scheduler):
    pipeline = VariationPipeline(unet, scheduler_named("dpmsolver++", scheduler))
    with pytest.raises(ValueError, match="needs all steps of the ddpm solver, got DPMSolverMultistepScheduler; list"):
        pipeline.renoise_each(torch.zeros(1, 1, 8, 8), [3], NoiseSource(torch.zeros(1, dtype=torch.int64), None),
                              labels=None, micro_batch_size=1, report=lambda *_: None)  # fmt: skip


def test_predicted_noise_undoes_each_parameterization():
    draw = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 3, 1, 4, 4, generator=draw)
    bar = torch.tensor(0.3)
    x_t = bar.sqrt() * x_0 + (1 - bar).sqrt() * noise
    outputs = {"epsilon": noise, "sample": x_0, "v_prediction": bar.sqrt() * noise - (1 - bar).sqrt() * x_0}
    for kind, output in outputs.items():
        assert torch.allclose(predicted_noise(output, x_t, bar, kind), noise, atol=1e-6)

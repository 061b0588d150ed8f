"""How a model is asked about images, and what is made of its answers."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from PIL import Image

from fastddpm import AnomalyPipeline, FusedDDPMScheduler
from fastddpm.measures.calibration import Calibration
from fastddpm.measures.neighbours import coarse
from fastddpm.pipelines.anomaly import feature_layers, tapped
from tests.conftest import tiny_unet
from tests.pipelines.knowing import Knows


def knowing(unet, x_0):
    made = quiet(AnomalyPipeline(unet, FusedDDPMScheduler()))
    made.unet = Knows(unet.config, made.scheduler, x_0)
    return made


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(unet):
    return quiet(AnomalyPipeline(unet, FusedDDPMScheduler()))


@pytest.fixture
def normal():
    return torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_start_timestep_300_asks_at_index_299_without_noise(pipeline, normal):
    asked = []
    pipeline.unet.register_forward_pre_hook(lambda _, given: asked.append((given[0], int(given[1]))))
    pipeline._seen(normal[:2] / 127.5 - 1, (50, 300), 2)
    assert [timestep for _, timestep in asked] == [49, 299]
    for x_t, timestep in asked:
        wanted = pipeline.scheduler.alphas_cumprod[timestep].sqrt() * (normal[:2] / 127.5 - 1)
        assert torch.allclose(x_t, wanted, atol=1e-6)


def test_an_image_is_judged_alike_whatever_it_is_judged_with(pipeline, normal):
    calibration = pipeline.calibrate(normal, micro_batch_size=8)
    together = pipeline(normal, calibration, micro_batch_size=8)
    alone = pipeline(normal[5:6], calibration, micro_batch_size=8)
    assert torch.equal(alone.scores[0], together.scores[5])
    assert torch.equal(alone.maps[0], together.maps[5])
    assert torch.equal(alone.p_values[0], together.p_values[5])


def test_the_same_twice_and_other_starts_see_otherwise(pipeline, normal):
    calibration = pipeline.calibrate(normal)
    assert calibration.to_bytes() == pipeline.calibrate(normal, (50, 300)).to_bytes()
    assert calibration.to_bytes() != pipeline.calibrate(normal, (50, 200)).to_bytes()


@pytest.mark.parametrize("scheduler_class", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_other_solvers_will_do(unet, normal, scheduler_class):
    asked = quiet(AnomalyPipeline(unet, scheduler_class()))
    assert torch.isfinite(asked(normal, asked.calibrate(normal)).scores).all()


def test_a_stock_unet_and_classes_will_do(normal):
    stock = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    for unet in (stock.eval(), tiny_unet(num_class_embeds=4)):
        asked = quiet(AnomalyPipeline(unet, FusedDDPMScheduler()))
        calibration = asked.calibrate(normal)
        assert len(calibration.bank.rows) == len(feature_layers(unet)) > 1
        assert torch.isfinite(asked(normal, calibration).scores).all()


def test_features_are_the_outputs_of_layers_one_start_after_the_other(pipeline, normal):
    x_0 = normal[:3] / 127.5 - 1
    seen = pipeline._seen(x_0, (50, 300), 2)
    first, second = (pipeline._seen(x_0, (start,), 3) for start in (50, 300))
    with torch.no_grad(), tapped(feature_layers(pipeline.unet)) as outputs:
        pipeline.unet(x_0 * pipeline.scheduler.alphas_cumprod[49].sqrt(), 49)
        for level, output in zip(first, outputs, strict=True):
            assert torch.allclose(level, coarse(output), atol=1e-5)
    for level, *both in zip(seen, first, second, strict=True):
        assert torch.allclose(level, torch.cat(both, 1), atol=1e-5)
        assert not torch.equal(*both)
    assert not any(layer._forward_hooks for layer in pipeline.unet.modules()), "nothing is left in the network"


def test_images_are_compared_with_known_ones_too_and_never_with_themselves(pipeline, normal):
    others = torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    alone = pipeline.calibrate(normal)
    more = pipeline.calibrate(normal, known_images=torch.cat([others, normal[:5]]))
    assert (alone.facts["num_known"], more.facts["num_known"]) == (0, 24), "normal ones among the known are left out"
    near = others.clone()
    near[:, :, 0, 0] ^= 1
    assert pipeline(near, more).scores.max() < pipeline(near, alone).scores.min()
    own = pipeline(others, more)
    assert own.is_calibrated_on.all()
    assert not pipeline(near, more).is_calibrated_on.any()
    assert own.scores.min() > pipeline(near, more).scores.max()
    assert pipeline.calibrate(normal, known_images=normal).to_bytes() == alone.to_bytes()


def test_known_images_fix_what_normal_and_fresh_ones_are_measured_by(pipeline, normal):
    """Else the normal ones would be treated otherwise than fresh ones, which the promise forbids."""
    known = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    first, second = (pipeline.calibrate(of, known_images=known) for of in (normal, 255 - normal))
    assert first.bank.scales == second.bank.scales
    for a, b in zip(first.bank.projections, second.bank.projections, strict=True):
        assert torch.equal(a.matrix, b.matrix)
    assert pipeline.calibrate(normal).bank.scales != pipeline.calibrate(255 - normal).bank.scales


def test_outputs_are_diffusers_like(pipeline, normal):
    calibration = pipeline.calibrate(normal)
    found = pipeline([Image.fromarray(image[0].numpy()) for image in normal[:2]], calibration)
    scores, p_values, flags, maps, regions, own = pipeline(normal[:2], calibration, return_dict=False)
    assert torch.equal(scores, found.scores)
    assert torch.equal(flags, p_values <= 0.05)
    assert torch.equal(flags, scores > calibration.image_threshold)
    assert torch.equal(regions, maps > calibration.pixel_threshold)
    assert own.all()


def test_a_calibration_of_other_weights_is_refused(pipeline, normal, tmp_path):
    calibration = pipeline.calibrate(normal)
    (tmp_path / "c.safetensors").write_bytes(calibration.to_bytes())
    pipeline(normal, Calibration.load(tmp_path / "c.safetensors"))
    with torch.no_grad():
        next(pipeline.unet.parameters()).add_(1)
    with pytest.raises(ValueError, match="the calibration is of another model, other weights"):
        pipeline(normal, calibration)


def test_a_shorter_chain_is_asked_at_the_same_shares(unet, scheduler, normal):
    short = quiet(AnomalyPipeline(unet, scheduler))
    assert scheduler.config.num_train_timesteps == 20
    assert short.calibrate(normal).start_timesteps == (1, 6)


def test_what_cannot_be_asked_is_refused(unet, pipeline, normal):
    with pytest.raises(ValueError, match="start_timestep is 1001"):
        pipeline.calibrate(normal, (1001,))
    for starts in ((), (0, 5), (5, 5)):
        with pytest.raises(ValueError, match="wanted numbers of steps left to go, from 1, each once"):
            pipeline.calibrate(normal, starts)
    for other in (FlowMatchEulerDiscreteScheduler(), EulerDiscreteScheduler()):
        with pytest.raises(ValueError, match=f"{type(other).__name__} noises in another way"):
            quiet(AnomalyPipeline(unet, other)).calibrate(normal)
    with pytest.raises(ValueError, match="Knows has neither mid_block nor up_blocks"):
        knowing(unet, torch.zeros(1, 1, 8, 8)).calibrate(normal)
    with pytest.raises(ValueError, match="images are \\(1, 9, 8\\)"):
        pipeline.calibrate(torch.zeros(20, 1, 9, 8))

"""How a model is asked about images, and what is made of its answers."""

import numpy as np
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
from fastddpm.measures.calibration import Calibration, Probe
from fastddpm.pipelines.anomaly import feature_layers, predicted_noise, tapped
from tests.conftest import tiny_unet
from tests.pipelines.knowing import Knows

PROBE = Probe(start_timesteps=(50, 300), num_noises=2, reconstruct_from=(100,), num_inference_steps=3)
ERRORS = Probe(**{**vars(PROBE), "kinds": ("noise", "pixel")})
"""what a network without layers can be asked"""


def knowing(unet, x_0, prediction_type="epsilon"):
    made = quiet(AnomalyPipeline(unet, FusedDDPMScheduler(prediction_type=prediction_type)))
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


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_residuals_are_what_the_model_gets_wrong(unet, prediction_type):
    """A model that takes every image for one it knows is wrong by the difference, times sqrt(bar / (1 - bar))."""
    x_0 = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    others = torch.cat([x_0, x_0.flip(-1)])
    asked = knowing(unet, x_0, prediction_type)
    answers, made = asked._answers(others, ERRORS, (), 2)
    found = answers.residuals
    bars = asked.scheduler.alphas_cumprod[[49, 49, 299, 299]].reshape(1, 4, 1, 1, 1)
    wanted = (bars / (1 - bars)).sqrt() * (others - x_0)[:, None]
    assert torch.allclose(found["noise"], wanted, atol=1e-3)
    assert torch.allclose(found["pixel"][:, 0], x_0 - others, atol=0.02), "denoised to the image that it knows"
    assert torch.allclose(made[:, 0], x_0.expand_as(others), atol=0.02)


def test_start_timestep_300_asks_at_index_299(unet):
    asked = knowing(unet, torch.zeros(1, 1, 8, 8))
    asked._answers(torch.zeros(1, 1, 8, 8), ERRORS, (), 1)
    assert asked.unet.timesteps[:4] == [49, 49, 299, 299]
    assert asked.unet.timesteps[4] == 99
    assert len(asked.unet.timesteps) == 4 + 3


def test_predicted_noise_undoes_each_parameterization():
    draw = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 3, 1, 4, 4, generator=draw)
    bar = torch.tensor(0.3)
    x_t = bar.sqrt() * x_0 + (1 - bar).sqrt() * noise
    outputs = {"epsilon": noise, "sample": x_0, "v_prediction": bar.sqrt() * noise - (1 - bar).sqrt() * x_0}
    for kind, output in outputs.items():
        assert torch.allclose(predicted_noise(output, x_t, bar, kind), noise, atol=1e-6)


def test_a_known_kind_of_image_is_told_from_another(unet):
    """Normal images are one picture with grain; a part of another one is found, and where it is."""
    draw = torch.Generator().manual_seed(0)
    x_0 = torch.rand(1, 1, 8, 8, generator=draw) * 1.6 - 0.8
    grainy = (x_0 + 0.05 * torch.randn(60, 1, 8, 8, generator=draw)).clamp(-1, 1) / 2 + 0.5
    asked = knowing(unet, x_0)
    calibration = asked.calibrate(grainy[:40], ERRORS, false_alarms=0.1)
    defect = grainy[40:].clone()
    defect[:10, :, 4:7, 1:4] = 1 - defect[:10, :, 4:7, 1:4]
    found = asked(defect, calibration, output_type="pt")
    assert found.scores[:10].min() > found.scores[10:].max()
    assert bool(found.is_anomaly[:10].all())
    assert found.is_anomaly[10:].float().mean() < 0.5
    inside = found.maps[:10, 4:7, 1:4].mean((1, 2))
    assert bool((inside > 5 * found.maps[:10, :3].mean((1, 2))).all())
    assert set(found.kind_scores) == {"noise", "pixel"}
    assert found.reconstructions.shape == (20, 1, 8, 8)


def test_an_image_is_judged_alike_whatever_it_is_judged_with(pipeline, normal):
    calibration = pipeline.calibrate(normal, PROBE, micro_batch_size=8)
    together = pipeline(normal, calibration, micro_batch_size=8)
    alone = pipeline(normal[5:6], calibration, micro_batch_size=8)
    assert torch.equal(alone.scores[0], together.scores[5])
    assert torch.equal(alone.maps[0], together.maps[5])
    assert alone.reconstructions[0].tobytes() == together.reconstructions[5].tobytes()


def test_the_same_twice_and_another_seed_asks_otherwise(pipeline, normal):
    calibration = pipeline.calibrate(normal, PROBE)
    again = pipeline.calibrate(normal, PROBE)
    assert calibration.to_bytes() == again.to_bytes()
    other = pipeline.calibrate(normal, Probe(**{**vars(PROBE), "seed": 77}))
    assert other.to_bytes() != again.to_bytes()


@pytest.mark.parametrize("scheduler_class", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_other_solvers_reconstruct(unet, normal, scheduler_class):
    asked = quiet(AnomalyPipeline(unet, scheduler_class()))
    calibration = asked.calibrate(normal, Probe(reconstruct_from=(300,), num_inference_steps=5, kinds=("pixel",)))
    assert torch.isfinite(asked(normal, calibration).scores).all()


def test_a_stock_unet_and_classes_will_do(normal):
    stock = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    for unet in (stock.eval(), tiny_unet(num_class_embeds=4)):
        asked = quiet(AnomalyPipeline(unet, FusedDDPMScheduler()))
        calibration = asked.calibrate(normal, PROBE)
        assert len(calibration.neighbours.banks) == len(feature_layers(unet)) > 1
        assert torch.isfinite(asked(normal, calibration).scores).all()


def test_features_are_the_outputs_of_layers_averaged_over_noises(pipeline, normal):
    x_0 = normal[:3] / 127.5 - 1
    _, seen = pipeline._seen(x_0, PROBE)
    _, one = pipeline._seen(x_0, Probe(**{**vars(PROBE), "start_timesteps": (50,), "num_noises": 1}))
    _, second = pipeline._seen(x_0, Probe(**{**vars(PROBE), "start_timesteps": (50,), "num_noises": 1, "seed": 1}))
    with torch.no_grad(), tapped(feature_layers(pipeline.unet)) as outputs:
        pipeline.unet(x_0, 49)
        widths = [output.shape[1] for output in outputs]
    assert [level.shape[:2] for level in seen] == [(3, 2 * width) for width in widths], (
        "the starts, one after the other"
    )
    for level, a, b in zip(seen, one, second, strict=True):
        assert torch.allclose(level[:, : a.shape[1]], (a + b) / 2, atol=1e-5)
        assert not torch.equal(a, b)
    assert not any(layer._forward_hooks for layer in pipeline.unet.modules()), "nothing is left in the network"


def test_features_are_compared_with_known_images_too(pipeline, normal):
    probe = Probe(**{**vars(PROBE), "kinds": ("feature",)})
    others = torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    alone = pipeline.calibrate(normal, probe)
    more = pipeline.calibrate(normal, probe, known_images=torch.cat([others, normal[:5]]))
    assert (alone.facts["num_known"], more.facts["num_known"]) == (0, 9), "normal ones among the known are left out"
    near = others.clone()
    near[:, :, 0, 0] ^= 1
    assert pipeline(near, more).scores.max() < pipeline(near, alone).scores.min()
    own = pipeline(others, more)
    assert own.is_calibrated_on.all()
    assert not pipeline(near, more).is_calibrated_on.any()
    assert own.scores.min() > pipeline(near, more).scores.max(), "an image is not compared with itself"
    assert pipeline.calibrate(normal, probe, known_images=normal).to_bytes() == alone.to_bytes()
    found = pipeline(normal, more)
    assert set(found.kind_scores) == {"feature"}
    assert found.reconstructions == []


def test_only_noise_is_predicted_where_nothing_else_is_asked(pipeline, normal):
    calibration = pipeline.calibrate(normal, Probe(**{**vars(PROBE), "kinds": ("noise",)}))
    assert pipeline(normal, calibration).reconstructions == []


def test_outputs_are_diffusers_like(pipeline, normal):
    calibration = pipeline.calibrate(normal, PROBE)
    as_pil = [Image.fromarray(image[0].numpy()) for image in normal[:2]]
    found = pipeline(as_pil, calibration)
    assert isinstance(found.reconstructions[0], Image.Image)
    assert isinstance(pipeline(as_pil, calibration, output_type="np").reconstructions, np.ndarray)
    scores, flags, maps, regions, *_ = pipeline(as_pil, calibration, return_dict=False)
    assert torch.equal(scores, found.scores)
    assert torch.equal(flags, scores > calibration.image_threshold)
    assert torch.equal(regions, maps > calibration.pixel_threshold)


def test_a_calibration_of_other_weights_is_refused(pipeline, normal, tmp_path):
    calibration = pipeline.calibrate(normal, PROBE)
    (tmp_path / "c.safetensors").write_bytes(calibration.to_bytes())
    pipeline(normal, Calibration.load(tmp_path / "c.safetensors"))
    with torch.no_grad():
        next(pipeline.unet.parameters()).add_(1)
    with pytest.raises(ValueError, match="the calibration is of another model, other weights"):
        pipeline(normal, calibration)


def test_a_shorter_chain_is_asked_at_the_same_shares(unet, scheduler, normal):
    short = quiet(AnomalyPipeline(unet, scheduler))
    assert scheduler.config.num_train_timesteps == 20
    assert short.calibrate(normal).probe == Probe(start_timesteps=(1, 2, 4, 6), reconstruct_from=(4, 8))


def test_what_cannot_be_asked_is_refused(unet, pipeline, normal):
    with pytest.raises(ValueError, match="start_timestep is 1001"):
        pipeline.calibrate(normal, Probe(start_timesteps=(1001,)))
    for other in (FlowMatchEulerDiscreteScheduler(), EulerDiscreteScheduler()):
        with pytest.raises(ValueError, match=f"{type(other).__name__} with prediction_type 'epsilon' noises"):
            quiet(AnomalyPipeline(unet, other)).calibrate(normal)
    with pytest.raises(ValueError, match="Knows has neither mid_block nor up_blocks"):
        knowing(unet, torch.zeros(1, 1, 8, 8)).calibrate(normal)
    with pytest.raises(ValueError, match="images are \\(1, 9, 8\\)"):
        pipeline.calibrate(torch.zeros(20, 1, 9, 8))

"""Sampling on a card: what waits, and how often a reverse step launches."""

import pytest
import torch

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.training.draw import draw_samples, pipeline_of
from tests.conftest import tiny_unet
from tests.gpu.card import CARD, inserted, needs_card
from tests.gpu.tiny import opened

pytestmark = needs_card
MOST_LAUNCHES = {"mnist-paper": 74, "quickstart": 93}


@pytest.mark.parametrize("name", MOST_LAUNCHES)
def test_launches_of_a_reverse_step(name, tmp_path):
    settings = {"sample.scheduler": "ddpm", "sample.guidance_scale": "1.0"}
    with inserted() as card, opened(name, tmp_path, "bf16", **settings) as run:
        pipeline, counts = pipeline_of(run), []
        for steps in (2, 3):
            card.forget()
            with run.accelerator.autocast():
                pipeline(seeds=[0, 1], num_inference_steps=steps, output_type="pt")
            counts.append(card.num_launches)
        assert counts[1] - counts[0] <= MOST_LAUNCHES[name], card.launches.most_common()


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3]])
def test_a_micro_batch_waits_for_its_labels_at_most(labels):
    with inserted() as card:
        unet = tiny_unet(num_class_embeds=4 if labels else None).to(CARD)
        pipeline = FastDDPMPipeline(unet, FusedDDPMScheduler(num_train_timesteps=20), 3 if labels else None)
        card.forget()
        pipeline(seeds=range(4), class_labels=labels, micro_batch_size=2, num_inference_steps=4, output_type="pt")
        assert len(card.waits) <= (2 if labels else 0), card.waits


def test_a_preview_waits_for_its_pictures_alone(tmp_path):
    with inserted() as card, opened("mnist-paper", tmp_path, "bf16") as run:
        card.forget()
        assert draw_samples(run, 4, "preview", num_inference_steps=2).shape == (4, 1, 28, 28)
        assert card.waits == ["copy to the host of a small tensor (4, 1, 28, 28)"]
        assert torch.isfinite(next(run.state.ema.model.parameters()).cpu()).all()

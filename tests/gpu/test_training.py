"""Training on a card: nothing waits between two rows of the log, and how often it launches."""

import contextlib

import pytest
import torch
from accelerate.state import AcceleratorState

from fastddpm.config import DataConfig
from fastddpm.studies.dcgan.settings import DCGANConfig, DCGANTrainConfig
from fastddpm.studies.dcgan.training import open_dcgan
from fastddpm.training.gradients import CastTogether
from fastddpm.training.loop import train_step
from tests.gpu.card import CARD, inserted, needs_card
from tests.gpu.tiny import images, opened

pytestmark = needs_card
PRECISIONS = ("bf16", "fp16", "no")
QUICK = ("mnist-paper", "quickstart")
SLOW = ("celeba64-paper", "recommended-32", "recommended-64", "recommended-128", "train-unconditional")


def cases():
    slow = [pytest.param(name, precision, marks=pytest.mark.slow) for name in SLOW for precision in PRECISIONS]
    return [(name, precision) for name in QUICK for precision in PRECISIONS] + slow


def steps_of(run, count: int) -> torch.Tensor:
    for _ in range(count):
        norm = train_step(run)
        run.state.step += 1
    return norm


@pytest.mark.parametrize(("name", "precision"), cases())
def test_no_step_waits_for_the_device(name, precision, tmp_path):
    with inserted() as card, opened(name, tmp_path, precision, **{"train.micro_batch_size": "2"}) as run:
        assert run.accelerator.device.type == "cuda"
        card.forget()
        norm = steps_of(run, 3)
        assert card.waits == []
        assert torch.isfinite(norm.cpu()), "it learns"


def test_a_dcgan_step_does_not_wait_for_the_device(tmp_path):
    data = DataConfig(source=images(tmp_path, (16, 16)), cache_dir=str(tmp_path / "cache"), num_held_out=4)
    train = DCGANTrainConfig(batch_size=8, num_images_seen=16, width=4)
    config = DCGANConfig(output_dir=str(tmp_path / "run"), data=data, train=train)
    with inserted() as card, open_dcgan(config) as run:
        run.step()
        card.forget()
        run.step()
        assert card.waits == []


MOST_LAUNCHES = {("mnist-paper", "bf16"): 196, ("quickstart", "bf16"): 250, ("mnist-paper", "no"): 184}


@pytest.mark.parametrize(("name", "precision"), MOST_LAUNCHES)
def test_launches_of_a_step(name, precision, tmp_path):
    with inserted() as card, opened(name, tmp_path, precision) as run:
        steps_of(run, 2)
        card.forget()
        steps_of(run, 1)
        assert card.num_launches <= MOST_LAUNCHES[name, precision], card.launches.most_common()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", QUICK)
def test_weights_cast_together_give_the_bits_of_autocast(name, precision, tmp_path):
    with inserted(), opened(name, tmp_path, precision) as run:
        (positions, images, labels), parameters = run.batches.of_step(0)[0], list(run.state.unet.parameters())
        found, statistics = [], [buffer.clone() for buffer in run.state.unet.buffers()]
        for network in (run.gradients.unet, run.gradients.network):
            weighted, _, _ = run.objective.training(network, images, labels, positions.to(CARD))
            weighted.mean().backward()
            found.append([p.grad.cpu() for p in parameters])
            run.state.unet.zero_grad()
            for buffer, before in zip(run.state.unet.buffers(), statistics, strict=True):
                buffer.copy_(before)
        assert isinstance(run.gradients.network, CastTogether)
        assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(*found, strict=True))
        assert all(p is q for p, q in zip(parameters, run.state.unet.parameters(), strict=True)), "put back"


def test_the_first_step_is_that_of_the_cpu(tmp_path):
    """In float32, to the rounding of other kernels' random numbers."""
    norms = []
    for place in ("card", "cpu"):
        with (
            inserted() if place == "card" else contextlib.nullcontext(),
            opened("mnist-paper", tmp_path, "no", output_dir=str(tmp_path / place)) as run,
        ):
            norms.append(float(steps_of(run, 1)))
        AcceleratorState._reset_state(reset_partial_state=True)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)

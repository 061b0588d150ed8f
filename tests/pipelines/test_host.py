"""The reverse loop does not touch the host: nothing waits for a number from the device, or sends one there."""

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import reverse
from fastddpm.pipelines.steps import take_step_of
from fastddpm.schedulers.named import scheduler_named
from tests.conftest import stock_unet, tiny_unet

READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero")


class Watched(TorchDispatchMode):
    """Counts what reads a tensor's value, and what goes from one device to another."""

    def __init__(self):
        super().__init__()
        self.reads, self.transfers = Counter(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        if any(name.startswith(read) for read in READS):
            self.reads[name] += 1
        result = function(*args, **(kwargs or {}))
        given = [x for x in args if isinstance(x, torch.Tensor)]
        copies = name.startswith(("aten::_to_copy", "aten::copy_"))
        if copies and len({x.device.type for x in (*given, result)}) > 1:
            self.transfers.append(name)
        return result


class Made(TorchFunctionMode):
    """Notes tensors that are made of numbers of the host; torch dispatches no operator for it."""

    def __init__(self, transfers):
        super().__init__()
        self.transfers = transfers

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor):
            self.transfers.append(function.__name__)
        return function(*args, **(kwargs or {}))


def reads_of_the_loop(pipeline, **given):
    """Of a whole call: what is read from the first forward pass of each micro-batch to its last step."""
    watched, found, steps = Watched(), Counter(), given["num_inference_steps"]
    seen = []

    def first_pass(*_):
        if len(seen) % steps == 0:  # the set-up of a micro-batch ends here
            watched.reads.clear()

    def after_step(_, index, __, ___):
        seen.append(index)
        if index == steps - 1:
            found.update(watched.reads)
        return {}

    hook = pipeline.unet.register_forward_pre_hook(first_pass)
    with watched:
        pipeline(**given, callback_on_step_end=after_step, output_type="latent")
    hook.remove()
    assert len(seen) in (steps, 2 * steps), "one micro-batch or two"
    return found


def made(unet, name="ddpm", **options):
    trained_with = FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5, **options)
    pipeline = FastDDPMPipeline(unet, scheduler_named(name, trained_with))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_seeds():
    return {"seeds": [1, 2, 3], "micro_batch_size": 2}


def with_a_generator():
    return {"batch_size": 2, "generator": torch.Generator().manual_seed(0)}


@pytest.mark.parametrize("given", [with_seeds, with_a_generator])
@pytest.mark.parametrize("unet", [tiny_unet, stock_unet])
def test_loop_reads_nothing(given, unet):
    assert reads_of_the_loop(made(unet()), **given(), num_inference_steps=5) == {}


@pytest.mark.parametrize("options", [{"clip_sample": True}, {"thresholding": True}, {"variance_type": "fixed_large"}])
def test_loop_reads_nothing_whatever_the_scheduler_does(options):
    assert reads_of_the_loop(made(tiny_unet(), **options), **with_seeds(), num_inference_steps=5) == {}


def test_loop_reads_nothing_with_guidance():
    pipeline = made(tiny_unet(num_class_embeds=4))
    assert reads_of_the_loop(pipeline, **with_seeds(), guidance_scale=2.0, num_inference_steps=5) == {}


def test_stock_solvers_read_at_most_their_first_place():
    """DPM-Solver++ looks its first timestep up in a list that lies on the host; DDIM reads nothing."""
    for name, most in (("ddim", 0), ("dpmsolver++", 2)):
        for steps in (5, 10):
            found = reads_of_the_loop(made(tiny_unet(), name), seeds=[1, 2], num_inference_steps=steps)
            assert sum(found.values()) <= most, (name, found)


def test_a_planted_read_is_seen(monkeypatch):
    pipeline, original = made(tiny_unet()), FusedDDPMScheduler.reverse_step

    def reverse_step(self, model_output, *arguments, **options):
        model_output.mean().item()
        bool(model_output.sum() > 0)
        return original(self, model_output, *arguments, **options)

    monkeypatch.setattr(FusedDDPMScheduler, "reverse_step", reverse_step)
    found = reads_of_the_loop(pipeline, **with_seeds(), num_inference_steps=5)
    assert found["aten::_local_scalar_dense"] == 2 * 2 * 5


@pytest.mark.parametrize("seeds", [True, False])
@pytest.mark.parametrize("kind", [tiny_unet, stock_unet])
def test_nothing_is_sent_to_the_device_after_the_first_step(seeds, kind):
    """On the device "meta", whose tensors have no values: reading one is an error, and every transfer is seen."""
    scheduler, device = FusedDDPMScheduler(num_train_timesteps=20, beta_end=0.5), torch.device("meta")
    scheduler.set_timesteps(5)
    sent, watched = [], Watched()
    with watched, Made(watched.transfers):
        pipeline = FastDDPMPipeline(kind().to(device), scheduler)
        x_t = torch.empty(2, 1, 8, 8, device=device)
        noise = NoiseSource(torch.ones(2, dtype=torch.int64) if seeds else None, None)
        x_0 = reverse(
            pipeline.predictor(None), take_step_of(scheduler, noise, torch.float32, device), x_t,
            scheduler.timesteps.tolist(), torch.float32, lambda *_: sent.append(len(watched.transfers)),
        )  # fmt: skip
        assert x_0.device == device
        before = len(watched.transfers)
        torch.as_tensor(5, device=device)
        torch.ones(2).to(device)
        assert len(watched.transfers) == before + 2, "transfers are seen"
        with pytest.raises(RuntimeError, match="meta"):
            x_0.mean().item()
    assert len(sent) == 5
    assert sent[0] > 0, "the tables are sent once"
    assert sent[-1] == sent[0]

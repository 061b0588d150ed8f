"""What each of diffusers' schedulers makes of a network that is exact for known data: the table of docs/sample.md.

`python -m tests.schedulers.exact` measures and writes exact.json; `python -m tests.generated_tables` puts it there.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import ConfigMixin, DDPMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import is_torchsde_available

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.pipelines.portable import takes

RECORD = Path(__file__).with_suffix(".json")
STEPS = (5, 10, 20, 50)
WIDTH = 0.1
KINDS = ("epsilon", "v_prediction", "sample")
SPACINGS = {
    "": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}


class ExactNetwork(ModelMixin, ConfigMixin):
    """The best prediction for pictures of N(mean, width^2): of one picture where the width is 0.

    It goes by the timestep that it is told, as a trained one does; between two it goes by the noise level between them.
    Its answer is multiplied by `factor`: 1.01 is 1 % off.
    """

    @register_to_config
    def __init__(
        self, kind="epsilon", mean=0.0, width=WIDTH, factor=1.0, sample_size=16, in_channels=1, num_class_embeds=None
    ):
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1))
        self.trained_with(FusedDDPMScheduler())

    def trained_with(self, scheduler):
        alpha_bar = scheduler.alphas_cumprod.double()
        self.log_snr = (alpha_bar / (1 - alpha_bar)).clamp(min=1e-12).log()
        return self

    def forward(self, x_t, t, class_labels=None):
        t = torch.as_tensor(t).double().reshape(-1)[0].clamp(0, 999)
        below, above = self.log_snr[int(t)], self.log_snr[min(int(t) + 1, 999)]
        alpha_bar = torch.sigmoid(below + (above - below) * (t % 1))
        signal, noise, x_t = alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), x_t.double()
        width, mean = self.config.width, self.config.mean
        x_0 = mean + signal * width**2 / (alpha_bar * width**2 + noise**2) * (x_t - signal * mean)
        epsilon = (x_t - signal * x_0) / noise
        predicted = {"epsilon": epsilon, "v_prediction": signal * epsilon - noise * x_0, "sample": x_0}
        return SimpleNamespace(sample=self.config.factor * predicted[self.config.kind].float())


def cases() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """(name, spacing, maker from another's config) of all that can be built here and is of DDPM's process."""
    for kind in sorted(DDPMScheduler().compatibles, key=lambda kind: kind.__name__):
        name = kind.__name__.removesuffix("Scheduler").removesuffix("Discrete")
        if name == "EDMEuler" or (name == "DPMSolverSDE" and not is_torchsde_available()):
            continue
        for spacing, option in SPACINGS.items():
            if all(takes(kind.__init__, word) for word in option):
                yield name, spacing, functools.partial(kind.from_config, **option)


def drawn(scheduler: Any, network: ExactNetwork, steps: int) -> torch.Tensor:
    """16 pictures, by our pipeline, from the same noise for all."""
    pipeline = FastDDPMPipeline(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    side = network.config.sample_size
    return pipeline(
        latents=torch.randn(16, 1, side, side, generator=torch.Generator().manual_seed(3)),
        generator=torch.Generator().manual_seed(4), num_inference_steps=steps, output_type="latent",
    ).images  # fmt: skip


def spreads(make: Callable[..., Any]) -> list[float]:
    """Share of the spread that is kept, at each of `STEPS`."""
    trained = FusedDDPMScheduler()
    return [drawn(make(trained.config), ExactNetwork(), steps).std().item() / WIDTH for steps in STEPS]


def distances(make: Callable[..., Any]) -> list[float | None]:
    """Distance, in levels of 255, from the one picture that a network knows, of 0.5, at 20 steps, for each of `KINDS`;
    None: refused."""
    found: list[float | None] = []
    for kind in KINDS:
        try:
            images = drawn(make(FusedDDPMScheduler(prediction_type=kind).config), ExactNetwork(kind, 0.5, 0.0), 20)
            found.append((images - 0.5).square().mean().sqrt().item() * 127.5)
        except ValueError:
            found.append(None)
    return found


def measured() -> dict[str, Any]:
    """{name: {spacing: {"distance": [...], "spread": [...]}}}"""
    found: dict[str, Any] = {}
    for name, spacing, make in cases():
        row = {"distance": distances(make), "spread": spreads(make)}
        found.setdefault(name, {})[spacing] = {
            key: [None if value is None else round(value, 2) for value in values] for key, values in row.items()
        }
    return found


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    RECORD.write_text(json.dumps(measured(), indent=1) + "\n")

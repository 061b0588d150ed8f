"""Training of a DCGAN: the data, the processes, the checkpoints and the log of a DDPM run, another step.
(Goodfellow et al. 2014, Alg. 1, with the generator's loss that does not saturate)"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from fastddpm import report
from fastddpm.agreement import check_alike
from fastddpm.data import Batches, DeviceImages, to_uint8, to_unit_range
from fastddpm.files import write_json
from fastddpm.pipelines.dcgan import DCGANDiscriminator, DCGANGenerator, DCGANPipeline, latents
from fastddpm.process import borrowed_process, make_accelerator, program
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.training.folder import locked, resume, save, write_data_report
from fastddpm.training.loop import is_due, training_bar
from fastddpm.training.metrics import MetricsLog
from fastddpm.training.run import read_pictures
from fastddpm.training.split import Split
from fastddpm.training.state import load_module, load_optimizer, save_module, save_optimizer


@dataclass
class GanState:
    """State that changes as a run goes on; all of it is in a checkpoint."""

    generator: nn.Module
    discriminator: nn.Module
    of_generator: torch.optim.Optimizer
    of_discriminator: torch.optim.Optimizer
    step: int = 0

    def _parts(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        return {
            "generator": (self.generator, self.of_generator),
            "discriminator": (self.discriminator, self.of_discriminator),
        }

    def write(self, folder: Path) -> None:
        """The checkpoint's files: safetensors and JSON only."""
        groups = {}
        for name, (module, optimizer) in self._parts().items():
            save_module(module, folder / f"{name}.safetensors")
            groups[name] = save_optimizer(optimizer, folder / f"{name}-optimizer.safetensors")
        write_json(folder / "state.json", {"step": self.step, "param_groups": groups})

    def read(self, folder: Path) -> None:
        """Take over a checkpoint's files."""
        record = json.loads((folder / "state.json").read_text())
        for name, (module, optimizer) in self._parts().items():
            load_module(module, folder / f"{name}.safetensors")
            load_optimizer(optimizer, folder / f"{name}-optimizer.safetensors", record["param_groups"][name])
        self.step = record["step"]


def train_dcgan(config: DCGANConfig) -> Path:
    """Train to the end, going on from the folder's newest checkpoint; save the pipeline, draw samples.png.

    Every process of a launcher calls it.

    Returns: the run folder, which `fastddpm sample` and `fastddpm evaluate` take.
    Raises: ValueError: settings, data or processes that do not fit.
    """
    with borrowed_process(), open_dcgan(config) as run:
        run.fit()
        run.finish()
    return Path(config.output_dir)


@contextmanager
def open_dcgan(config: DCGANConfig) -> Iterator["GanRun"]:
    """Build a run, or go on with the one in `config.output_dir`; holds the folder's lock meanwhile.

    Raises: ValueError: settings, data or processes that do not fit; a folder whose run differs in what matters.
    """
    train = config.train
    accelerator = make_accelerator(
        mixed_precision=train.mixed_precision, num_threads=train.num_threads, num_processes=train.num_processes
    )
    check_alike(accelerator, config)
    split = Split.of(config.train, accelerator.process_index, accelerator.num_processes)
    splits = read_pictures(config, accelerator)
    with locked(Path(config.output_dir), accelerator) as folder:
        run = GanRun(config, accelerator, split, splits, folder)
        try:
            yield run
        finally:
            run.batches.close()


class GanRun:
    """The parts of a run."""

    def __init__(self, config: DCGANConfig, accelerator: Accelerator, split: Split, splits: Any, folder: Path):
        channels, height, width = splits.train.image_shape
        if height != width:
            raise ValueError(f"images are {width}x{height}; a DCGAN makes squares: set --data.image_size")
        self.config, self.accelerator, self.folder, self.splits = config, accelerator, folder, splits
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            generator = DCGANGenerator(height, channels, config.train.latent_dim, config.train.width)
            discriminator = DCGANDiscriminator(height, channels, config.train.width)
        networks: tuple[nn.Module, nn.Module] = (generator, discriminator)
        for network in networks:
            network.to(accelerator.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        train = config.train
        optimizers = [
            torch.optim.AdamW(of.parameters(), train.learning_rate, train.adam_betas, weight_decay=0.0, fused=True)
            for of in networks
        ]
        self.state = GanState(generator, discriminator, optimizers[0], optimizers[1])
        self.generator, self.discriminator = accelerator.prepare(generator), accelerator.prepare(discriminator)
        self.of_generator, self.of_discriminator = (accelerator.prepare(optimizer) for optimizer in optimizers)
        self.num_steps = -(-config.train.num_images_seen // config.train.batch_size)
        images = DeviceImages(splits.train, accelerator.device)
        self.batches = Batches(images, split.positions, seed=config.seed, last_step=self.num_steps)
        self.log = MetricsLog(folder / "metrics.jsonl", accelerator.is_main_process)
        resume(config, folder, splits, self.state, self.log, accelerator)
        if accelerator.is_main_process:
            write_data_report(splits, folder)

    def fit(self) -> None:
        """Train to the end."""
        train, state = self.config.train, self.state
        self.log.start_clock(state.step * train.batch_size)
        with training_bar(self.accelerator, train.batch_size, state.step, self.num_steps) as bar:
            while state.step < self.num_steps:
                losses = self.step()
                bar.update(train.batch_size)
                is_last = state.step == self.num_steps
                if is_due(state.step, train.log_every) or is_last:
                    self._log(losses)
                if is_due(state.step, train.checkpoint_every) or is_last:
                    self.save()

    def step(self) -> dict[str, Tensor]:
        """The discriminator's step on real and drawn images, then the generator's; returns what a row logs."""
        (positions, pixels, _) = self.batches.of_step(self.state.step)[0]
        positions = positions.to(self.accelerator.device, non_blocking=True)
        reals = to_unit_range(pixels).contiguous(memory_format=torch.channels_last)
        drawn = self.generator(latents(positions, self.config.train.latent_dim, self.config.seed))
        of_reals, of_drawn = self.discriminator(reals), self.discriminator(drawn.detach())
        apart = _loss(of_reals, 1.0) + _loss(of_drawn, 0.0)
        self._take(apart, self.of_discriminator)
        fooled = _loss(self.discriminator(drawn), 1.0)
        self._take(fooled, self.of_generator)
        self.state.step += 1
        found = {"discriminator_loss": apart, "generator_loss": fooled}
        return {**found, "reals_right": (of_reals > 0).float().mean(), "drawn_right": (of_drawn < 0).float().mean()}

    def _take(self, loss: Tensor, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        optimizer.step()

    def _log(self, found: dict[str, Tensor]) -> None:
        seen = self.state.step * self.config.train.batch_size
        rate, share = self.log.throughput(seen, self.batches.waited_seconds)
        means = self.accelerator.reduce(torch.stack([value.detach().float() for value in found.values()]), "mean")
        row = dict(zip(found, means.tolist(), strict=True))
        self.log.write(
            step=self.state.step, images_seen=seen, **row, images_per_second=round(rate, 2),
            data_wait_share=round(share, 4),
        )  # fmt: skip

    def save(self) -> None:
        """Commit a checkpoint; every rank calls it, the main one writes."""
        save(self.config, self.folder, self.splits, self.state, self.accelerator, self.config.train.keep_checkpoints)

    def finish(self) -> None:
        """Save the pipeline and draw some images."""
        if self.accelerator.is_main_process:
            generator = self.state.generator.eval()
            pipeline = DCGANPipeline(generator)  # type: ignore[arg-type]
            pipeline.save_pretrained(self.folder)
            images = pipeline(seeds=range(self.config.num_samples), output_type="pt").images
            report.save_grid(to_uint8(images * 2 - 1).cpu().numpy(), self.folder / "samples.png")
            print(f"{self.folder}: samples.png, metrics.jsonl; draw more with {program()} sample {self.folder}")
        self.accelerator.wait_for_everyone()


def _loss(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))

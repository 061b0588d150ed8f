"""A run: its parts, built from a config or found again in its folder."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler

from fastddpm.agreement import check_alike, check_same
from fastddpm.config import DataConfig, RunConfig, load_run, newest_manifest
from fastddpm.config.bounded_text import read_facts
from fastddpm.data import Batches, DeviceImages, Splits
from fastddpm.data.summary import CUT, GRAY_IN_COLOUR
from fastddpm.launcher import as_launched
from fastddpm.models.attention import use_attention_backend
from fastddpm.pipelines.base import fingerprint
from fastddpm.pipelines.portable import numbered
from fastddpm.process import counted, make_accelerator, runs_on_cpu, say, use_deterministic_kernels
from fastddpm.schedulers.named import risk_of, scheduler_named
from fastddpm.training import checkpoint
from fastddpm.training.build_network import (
    UNet,
    build_scheduler,
    build_unet,
    check_network,
    dtype_of,
    null_class_of,
    tells_augmentation,
)
from fastddpm.training.compiling import settle_compile
from fastddpm.training.cost import Cost, kept_memory
from fastddpm.training.ema import EMA
from fastddpm.training.folder import locked, resume, save, splits_of
from fastddpm.training.given_weights import follow_process
from fastddpm.training.gradients import Gradients, gradients_of
from fastddpm.training.guard import Guard
from fastddpm.training.length import length_in_words
from fastddpm.training.loss import Objective
from fastddpm.training.metrics import LossMeter, MetricsLog
from fastddpm.training.microbatch import settle
from fastddpm.training.records import record_in_words
from fastddpm.training.split import Split
from fastddpm.training.state import TrainState, load_averaged
from fastddpm.training.trackers import send_row, tracked, tracking_options


@dataclass(frozen=True)
class Run:
    """The parts of a run; what changes as it goes on is in `state`."""

    config: RunConfig
    accelerator: Accelerator
    folder: Path
    split: Split
    splits: Splits
    batches: Batches
    held_out: DeviceImages | None
    objective: Objective
    gradients: Gradients  # holds the network as Accelerate prepared it: DDP, autocast
    optimizer: Any  # as Accelerate prepared it
    state: TrainState
    lr_schedule: torch.optim.lr_scheduler.LambdaLR
    log: MetricsLog
    cost: Cost

    @property
    def images(self) -> DeviceImages:
        """The training images."""
        return self.batches.images

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return max(num_steps(self.config), self.state.step)  # a length made shorter than what is done

    @property
    def images_seen(self) -> int:
        """So far, over all ranks."""
        return self.state.step * self.config.train.batch_size

    def save(self) -> None:
        """Commit a checkpoint; every rank calls it, the main one writes."""
        self.state.meter.gather(self.accelerator)
        norms = torch._foreach_norm([p.detach() for p in self.state.unet.parameters()])  # the same on all ranks
        if not torch.isfinite(torch.stack(norms)).all():
            raise FloatingPointError(
                f"the weights are not finite at step {self.state.step}, and were not saved; start in another "
                f"--out, with a lower train.learning_rate, a longer train.lr_warmup_steps, or "
                f"train.mixed_precision no"
            )
        save(self.config, self.folder, self.splits, self.state, self.accelerator, self.config.train.keep_checkpoints)


def num_steps(config: RunConfig) -> int:
    """Optimizer steps of a whole run."""
    return -(-config.train.num_images_seen // config.train.batch_size)


@contextmanager
def open_run(config: RunConfig) -> Iterator[Run]:
    """Build a run, or go on with the one in `config.output_dir`; holds the folder's lock meanwhile.

    Raises: ValueError: settings, data or processes that do not fit; a folder whose run differs in what matters.
    """
    config = follow_process(replace(config, train=as_launched(config.train)))
    check_network(config)
    _prepare_determinism(config)
    train = config.train
    accelerator = make_accelerator(
        mixed_precision=train.mixed_precision, num_threads=train.num_threads, num_processes=train.num_processes,
        takes_compile=True, **tracking_options(config),
    )  # fmt: skip
    check_alike(accelerator, config, promises_bits=train.determinism == "elastic")
    split = Split.of(config.train, accelerator.process_index, accelerator.num_processes)
    splits = read_pictures(config, accelerator)
    with accelerator.main_process_first():
        unet = build_unet(config, splits, checkpoint.network_of_newest(Path(config.output_dir) / "checkpoints"))
    if config.model.init_from is not None:
        check_same(
            accelerator, "the network of model.init_from (its checksum)", fingerprint(unet, None),
            "give all machines the same weights",
        )  # fmt: skip
    _use_options(unet, config, accelerator)
    with locked(Path(config.output_dir), accelerator) as folder:
        run = _build(config, accelerator, folder, split, splits, unet)
        try:
            with tracked(accelerator, config, run.images_seen):
                yield run
        finally:
            run.batches.close()


def _prepare_determinism(config: RunConfig) -> None:
    determinism, num_threads = config.train.determinism, config.train.num_threads
    if determinism == "elastic" and num_threads is None and runs_on_cpu():
        raise ValueError(
            "train.determinism elastic wants --train.num_threads: left out, it is this machine's cores shared among "
            "its processes, and sums over another number of threads round differently; use 1 for several processes"
        )
    if determinism is not None:
        use_deterministic_kernels()


def read_pictures(config: Any, accelerator: Accelerator) -> Splits:
    """Pictures of a run, the same on all ranks; every rank calls it.

    Raises: ValueError: other ones on some rank, too few for a batch, and what `splits_of` raises.
    """
    with accelerator.main_process_first():
        splits = splits_of(config, is_main_process=accelerator.is_main_process)
    source = splits.train.source
    check_same(
        accelerator, "what data.source holds",
        f"{counted(len(source.images), 'image')} (checksum {splits.fingerprint[:12]})",
        "give all machines the same pictures, or one --data.cache_dir that they share",
    )  # fmt: skip
    _check_enough_images(config.data, config.train.batch_size, splits)
    return splits


def _check_enough_images(data: DataConfig, batch_size: int, splits: Splits) -> None:
    """Raises: ValueError: fewer training images than a batch has."""
    if (have := len(splits.train)) < batch_size:
        raise ValueError(
            f"{data.source} has {counted(have, 'training image')} ({len(splits.held_out)} held out), and "
            f"train.batch_size wants {batch_size} different ones a step; give more images, or --train.batch_size {have}"
        )


def pipeline_parts(config: RunConfig, unet: UNet, label_names: Sequence[str] | None) -> tuple[Any, ...]:
    """The arguments of a pipeline that draws as `config.sample` says."""
    sample, names = config.sample, label_names if config.model.class_conditional else None
    solver = scheduler_named(sample.scheduler, build_scheduler(config))
    steps = min(sample.num_inference_steps, config.scheduler.num_train_timesteps)
    return unet, solver, null_class_of(unet), names, sample.guidance_scale, steps


def open_unfinished(folder: Path) -> tuple[Any, ...]:
    """`pipeline_parts` of the averaged weights of the newest whole checkpoint of a run.

    Raises: ValueError: the run has no checkpoint yet.
    """
    found = checkpoint.newest(folder / "checkpoints")
    if found is None:
        raise ValueError(f"the run in {folder} has no checkpoint yet; wait for its first")
    config, data = load_run(folder), folder / "data.json"
    names = read_facts(data).get("label_names") if data.exists() else None
    return pipeline_parts(config, load_averaged(found[0]), names)


def _build(config: RunConfig, accelerator: Accelerator, folder: Path, split: Split, splits: Splits, unet: UNet) -> Run:
    device = accelerator.device
    unet.to(device, memory_format=torch.channels_last)
    split = settle(split, config, accelerator, folder, unet, splits)
    config = settle_compile(config, folder, unet, split, splits, accelerator)
    cost = Cost.of(unet, config, splits, split, accelerator.mixed_precision)
    train = config.train
    plain_optimizer = torch.optim.AdamW(
        unet.parameters(), train.learning_rate, train.adam_betas, train.adam_epsilon, train.weight_decay, fused=True
    )
    scheduler = build_scheduler(config)
    averages = tuple(EMA(unet, decay) for decay in train.ema_decays)
    gradients = gradients_of(unet, train, split, accelerator)
    optimizer = accelerator.prepare(plain_optimizer)
    meter = LossMeter(scheduler.config.num_train_timesteps, device)
    state = TrainState(unet, averages, plain_optimizer, meter, Guard(train, accelerator), accelerator)
    send = functools.partial(send_row, accelerator)
    log = MetricsLog(folder / "metrics.jsonl", accelerator.is_main_process, send)
    before = (newest_manifest(folder) or {}).get("config")
    resume(config, folder, splits, state, log, accelerator)
    _say_new_rate(before, config, state.step, accelerator)
    if accelerator.is_main_process and state.step < num_steps(config):  # what is half-written is removed by now
        kept = kept_memory(unet, config, splits)
        checkpoint.check_space(
            folder / "checkpoints", kept.weights + kept.averages + kept.optimizer, train.keep_checkpoints
        )
    say(accelerator, f"{_summary(config, accelerator, split, splits, unet)}\n{cost}")
    say(accelerator, length_in_words(len(splits.train), train.num_images_seen, train.horizontal_flip))
    if record := record_in_words(config):
        say(accelerator, record)
    _hint(config, accelerator, splits, unet)
    return Run(
        config=config,
        accelerator=accelerator,
        folder=folder,
        split=split,
        splits=splits,
        batches=Batches(
            DeviceImages(splits.train, device), split.positions, seed=config.seed, last_step=num_steps(config)
        ),
        held_out=DeviceImages(splits.held_out, device) if len(splits.held_out) else None,
        objective=Objective(
            scheduler, train, null_class_of(unet), config.seed, config.data.augment, tells_augmentation(unet)
        ),
        gradients=gradients,
        optimizer=optimizer,
        state=state,
        lr_schedule=_lr_schedule(config, plain_optimizer, state.step),
        log=log,
        cost=cost,
    )


def _hint(config: RunConfig, accelerator: Accelerator, splits: Splits, unet: UNet) -> None:
    """Say what is allowed and probably not meant."""
    train = config.train
    if (risk := risk_of(config.sample.scheduler, build_scheduler(config))) is not None:
        say(accelerator, f"sample.scheduler {risk}")
    facts = splits.train.source.facts
    if facts.get("is_gray_in_colour"):
        say(accelerator, GRAY_IN_COLOUR)
    if num_cut := facts["num_cut_over_quarter"]:
        say(accelerator, f"{num_cut:,} {CUT}")
    if config.data.augment.is_on and not tells_augmentation(unet):
        say(
            accelerator,
            "data.augment is on and a UNet2DModel is not told of it: it learns to draw shifted, turned and changed "
            "images too; the paper's network does not",
        )
    if train.lr_warmup_steps >= num_steps(config):
        say(
            accelerator,
            f"train.lr_warmup_steps is {train.lr_warmup_steps} and the run has {num_steps(config)} steps: the learning "
            f"rate never reaches its peak; use fewer, or a larger train.num_images_seen",
        )


def _say_new_rate(before: dict[str, Any] | None, config: RunConfig, step: int, accelerator: Accelerator) -> None:
    """Say how the learning rate jumps in a run of another length than its checkpoint's settings have."""
    if not step or before is None:
        return
    length = before["train"]["num_images_seen"]
    old, new = (
        _lr_schedule(of, torch.optim.SGD([torch.zeros(1)], config.train.learning_rate), step).get_last_lr()[0]
        for of in (replace(config, train=replace(config.train, num_images_seen=length)), config)
    )
    if old != new:
        say(
            accelerator,
            f"the learning rate goes on at {new:.3g}, where the run of {length:,} images had come to {old:.3g}: "
            f"lr_schedule {config.train.lr_schedule} spans the whole run. To train on at a rate of your own, begin in "
            f"another --out with --model.init_from {config.output_dir}",
        )


def _summary(config: RunConfig, accelerator: Accelerator, split: Split, splits: Splits, unet: UNet) -> str:
    """Summary in a line of what is about to be computed; in another one, which number is which class."""
    threads = f" of {counted(torch.get_num_threads(), 'thread')}" if accelerator.device.type == "cpu" else ""
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    names = splits.train.source.label_names if config.model.class_conditional else None
    classes = f"\nclasses: {numbered(names)}" if names else ""
    held_out = f" and {len(splits.held_out):,} held out" if len(splits.held_out) else ""
    layout = splits.train.source.facts["layout"]
    return (f"{config.data.source}: {layout}\n" if layout else "") + (
        f"{config.output_dir}: {sum(p.numel() for p in unet.parameters()):,} parameters, "
        f"{len(splits.train):,} images{held_out}; "
        f"{accelerator.device.type}, {counted(accelerator.num_processes, 'process')}{threads}, {precision}; "
        f"batch {split.batch_size} in {split.num_micro_batches} of {split.micro_batch_size}{classes}"
    )


def _use_options(unet: UNet, config: RunConfig, accelerator: Accelerator) -> None:
    """Make the same network faster or smaller; none of it is saved with the weights."""
    backend = config.model.attention_backend
    if backend is not None:
        dtype = dtype_of(accelerator.mixed_precision)
        count = use_attention_backend(unet, backend, accelerator.device, dtype)
        say(accelerator, f"{backend} computes {counted(count, 'attention layer')}")
    if config.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()


def _lr_schedule(config: RunConfig, optimizer: torch.optim.Optimizer, step: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Counts optimizer steps; not prepared by Accelerate, which would step it once a process."""
    train = config.train
    name = "constant_with_warmup" if train.lr_schedule == "constant" else train.lr_schedule
    for group in optimizer.param_groups:
        group["initial_lr"] = train.learning_rate
    return get_scheduler(
        name, optimizer, num_warmup_steps=train.lr_warmup_steps, num_training_steps=num_steps(config),
        num_cycles=train.lr_num_cycles, last_epoch=step - 1,
    )  # fmt: skip

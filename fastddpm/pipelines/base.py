"""What the pipelines share: their two components, their noise, micro-batches, output formats and the saved folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL import Image
from torch import Tensor

from fastddpm import hub
from fastddpm.data import to_uint8
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.reverse import reverse
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler, has_fixed_variance

Callback = Callable[[DiffusionPipeline, int, Any, dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class StepReport:
    """Who is told of each step: diffusers' `callback_on_step_end`."""

    callback: Callback | None
    tensor_inputs: Sequence[str]


class UNetPipeline(DiffusionPipeline):
    """A U-Net and a scheduler; base of the pipelines of this package.

    A scheduler of exact type `diffusers.DDPMScheduler` becomes the equal `FusedDDPMScheduler` (unless its variance is
    learned or it thresholds); any other is kept.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ("sample",)

    def __init__(self, unet: torch.nn.Module, scheduler: Any):
        super().__init__()
        if type(scheduler) is DDPMScheduler and has_fixed_variance(scheduler.config):
            scheduler = FusedDDPMScheduler.from_config(scheduler.config)
        self.register_modules(unet=unet, scheduler=scheduler)

    def save_pretrained(self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As in diffusers, in the layout that loads with and without this package (see `fastddpm.hub`)."""
        hub_arguments = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "token") if k in kwargs}
        super().save_pretrained(str(save_directory), *args, **kwargs)
        hub.finish_folder(Path(save_directory), self.unet, self.scheduler)
        if push_to_hub:
            self.push_to_hub(hub_arguments.pop("repo_id", Path(save_directory).name), **hub_arguments)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image.  Raises: ValueError: the U-Net's config has no sample_size."""
        size = self.unet.config.sample_size
        if size is None:
            raise ValueError("the U-Net's config has no sample_size; set it to the height and width of its images")
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def num_classes(self) -> int | None:
        """Classes the U-Net tells apart, without the null class of `PaperUNet2DModel`; None: it knows none."""
        embeds = getattr(self.unet.config, "num_class_embeds", None)
        return embeds - 1 if embeds is not None and isinstance(self.unet, PaperUNet2DModel) else embeds

    def check_labels(self, class_labels: Sequence[int] | Tensor | None, batch_size: int) -> Tensor | None:
        """(B,) int64 labels, or None.  Raises: ValueError: not one an image, or not one of the classes."""
        if class_labels is None:
            return None
        if self.num_classes is None:
            raise ValueError("got class_labels, but the model is not class-conditional: leave class_labels out")
        labels = torch.as_tensor(class_labels, dtype=torch.int64)
        if labels.shape != (batch_size,):
            raise ValueError(
                f"got class_labels of shape {tuple(labels.shape)} for {batch_size} images; give one an image"
            )
        largest = self.unet.config.num_class_embeds - 1
        if bool(((labels < 0) | (labels > largest)).any()):
            any_class = f", or {largest} for any class" if largest == self.num_classes else ""
            raise ValueError(f"class_labels must be 0 to {self.num_classes - 1}{any_class}")
        return labels

    def denoise(
        self,
        start: Callable[[slice, NoiseSource], Tensor],
        choose: Callable[[], list[Any]],
        noise: NoiseSource,
        batch_size: int,
        *,
        labels: Tensor | None,
        micro_batch_size: int | None,
        report: StepReport,
    ) -> Tensor:
        """Make x_t of each micro-batch and reverse it.

        Args:
            start: (which images, their noise) -> x_t, (b, C, H, W), float32.
            choose: sets the scheduler's timesteps anew and returns them; some schedulers count their steps.
            noise, labels: of all images.
            micro_batch_size: images of one forward pass; with seeds, the last micro-batch is padded to it, so that an
                image's bits do not depend on how many there are. None: all at once.
        Returns: x_0, (batch_size, C, H, W), float32.
        """
        size = (
            min(micro_batch_size or batch_size, batch_size) if noise.seeds is None else micro_batch_size or batch_size
        )
        firsts = range(0, batch_size, size)
        results: list[Tensor] = []
        with self.progress_bar(total=len(firsts) * len(choose())) as bar:

            def on_step(index: int, t: Any, x_t: Tensor) -> Tensor | None:
                bar.update()
                return self._tell(report, index, t, x_t)

            for first in firsts:
                places = slice(first, min(first + size, batch_size))
                part = noise.part(places, size)
                x_t = start(places, part)
                some = None if labels is None else padded(labels[places], len(x_t)).to(x_t.device)
                x_0 = reverse(self.unet, self.scheduler, x_t, choose(), part, class_labels=some, on_step=on_step)
                results.append(x_0[: places.stop - first])
        self.maybe_free_model_hooks()
        return torch.cat(results)

    def _tell(self, report: StepReport, index: int, t: Any, x_t: Tensor) -> Tensor | None:
        if report.callback is None:
            return None
        unknown = set(report.tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; known: sample")
        given = {"sample": x_t} if "sample" in report.tensor_inputs else {}
        return (report.callback(self, index, t, given) or {}).get("sample")


def to_output(x_0: Tensor, output_type: str) -> list[Image.Image] | np.ndarray | Tensor:
    """Images in diffusers' output formats.

    Args:
        x_0: (B, C, H, W), float, in [-1, 1]; clipped.
        output_type: "pil" (a list), "np" ((B, H, W, C), float32, in [0, 1]) or "pt" ((B, C, H, W), likewise).
    Raises: ValueError: another output_type.
    """
    if output_type == "pil":
        return [to_pil(image) for image in to_uint8(x_0).cpu()]
    if output_type not in ("np", "pt"):
        raise ValueError(f"output_type is {output_type!r}; use 'pil', 'np' or 'pt'")
    scaled = (x_0.float() / 2 + 0.5).clamp(0, 1)
    return scaled.cpu().permute(0, 2, 3, 1).numpy() if output_type == "np" else scaled


def to_pil(image: Tensor) -> Image.Image:
    """A (C, H, W) uint8 image as PIL: mode L for one channel, RGB for three."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def padded(rows: Tensor, size: int) -> Tensor:
    """`rows`, followed by copies of the last one up to `size`."""
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])

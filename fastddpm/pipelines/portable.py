"""The pipeline that travels with the weights: a copy of this file is `pipeline.py` in a saved folder.

It imports torch and diffusers only, and holds one pipeline: generation with everything that diffusers' pipelines take.
`fastddpm.FastDDPMPipeline` builds on it and adds what needs the package: seeds, micro-batches, the fused step.
"""

import inspect
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

Predict = Callable[[Tensor, Any], Tensor]
"""(x_t in the model's dtype, timestep) -> the model's output"""
TakeStep = Callable[[Tensor, Any, Tensor], tuple[Tensor, Tensor]]
"""(the model's output, timestep, x_t) -> x_{t-1} in float32, and the model's next input"""
OnStep = Callable[[int, Any, Tensor], Tensor | None]
"""(index of the step, timestep, x_{t-1}) -> another x_{t-1}, or None to keep it"""
Callback = Callable[[DiffusionPipeline, int, Any, dict[str, Tensor]], dict[str, Tensor]]
Labels = Sequence[int | str] | Tensor | str | int
Generator = torch.Generator | list[torch.Generator] | None


@torch.no_grad()
def reverse(
    predict: Predict,
    take_step: TakeStep,
    x_t: Tensor,
    timesteps: Iterable[Any],
    model_dtype: torch.dtype,
    on_step: OnStep,
) -> Tensor:
    """The reverse process: the one loop that every pipeline runs.  (Ho et al. 2020, Alg. 2; the paper's Eq. 4)

    Args:
        x_t: (B, C, H, W), float32; kept in float32 all along, whatever the model's dtype.
        timesteps: descending.
    Returns: x_0, (B, C, H, W), float32.
    """
    model_input = x_t.to(model_dtype)
    for index, t in enumerate(timesteps):
        x_t, model_input = take_step(predict(model_input, t), t, x_t)
        replaced = on_step(index, t, x_t)
        if replaced is not None:
            x_t, model_input = replaced, replaced.to(model_dtype)
    return x_t


class FastDDPMPipeline(DiffusionPipeline):
    """Draw images from noise: without arguments the run's best, a class an image, by its own solver and guidance.

    Args:
        unet: predicts from (x_t, t, class_labels).
        scheduler: any of diffusers' that noise and denoise images.
        null_class: for a class-conditional `UNet2DModel`: the class that stands for "any", if it was trained with one.
            `PaperUNet2DModel` knows its own.
        label_names: names of the classes, in the order of their numbers; None: they have none.
        guidance_scale: of calls that name none, where images have a class.
        num_inference_steps: of calls that name none, with a scheduler of this kind; None: all T, as with any other.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012 - diffusers' own interface

    def __init__(
        self,
        unet: torch.nn.Module,
        scheduler: Any,
        null_class: int | None = None,
        label_names: Sequence[str] | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            null_class=null_class, label_names=label_names and list(label_names), guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )  # fmt: skip
        self._guidance_scale, self._num_timesteps, self._own_solver = 1.0, 0, type(scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        generator: Generator = None,
        num_inference_steps: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        *,
        timesteps: Sequence[int] | None = None,
        latents: Tensor | None = None,
        class_labels: Labels | None = None,
        guidance_scale: float | None = None,
        eta: float | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **others: Any,
    ) -> Any:
        """Draw images.

        Args:
            batch_size, generator, num_inference_steps, output_type, return_dict: as in `diffusers.DDPMPipeline`. None:
                one image, or one a class label; the run's own steps. Also "pt" ((B, C, H, W) in [0, 1]) and "latent"
                (x_0).
            timesteps: the descending timesteps to visit, instead of `num_inference_steps`.
            latents: the noise to start from, (B, C, H, W); None: drawn.
            class_labels: of a class-conditional model, numbers or names, one an image or one for all; "none": any
                class. None: all classes as often as each other, their order drawn from the generator, before the noise.
            guidance_scale: 1: none; above: further from the prediction without a label (Ho & Salimans 2022, Eq. 6).
                None: the run's own; for images of any class, 1.
            eta: noise of each step of DDIM, from 0, none, to 1, DDPM's (Song et al. 2021, Eq. 16); None: 0.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": x_t}); may return other "latents".
        Returns: an `ImagePipelineOutput` whose `images` are in the format asked for, or a tuple of them.
        Raises: ValueError: arguments that contradict each other or the model, or that need the package fastddpm.
        """
        if others:
            raise ValueError(
                f"got {', '.join(sorted(others))}: seeds, micro-batches and variations need the package; "
                "pip install fastddpm, and use fastddpm.FastDDPMPipeline or fastddpm.VariationPipeline"
            )
        check_output_type(output_type)
        count = image_count(batch_size, class_labels, latents)
        labels = self.labels_or_each_class(class_labels, count, generator)
        self.set_guidance(guidance_scale, labels)
        report = self.reporter(callback_on_step_end, callback_on_step_end_tensor_inputs)
        take_step = diffusers_step(self.scheduler, generator, self.unet.dtype, eta)
        chosen = self.set_timesteps(num_inference_steps, timesteps)
        shape, dtype = (count, *self.image_shape), self.unet.dtype
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device)
        x_t = self.start(latents, shape)
        x_0 = reverse(self.predictor(labels), take_step, x_t, self.progress_bar(chosen), dtype, report)
        self.maybe_free_model_hooks()
        images = in_format(x_0, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    # -- what the model is ----------------------------------------------------------------------------------------

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image.  Raises: ValueError: the U-Net's config has no sample_size."""
        size = self.unet.config.sample_size
        if size is None:
            raise ValueError("the U-Net's config has no sample_size; set it to the height and width of its images")
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def null_class(self) -> int | None:
        """The label that stands for "any class"; None: the U-Net knows no such label."""
        own = getattr(self.unet, "null_class", None)
        return self.config.null_class if own is None else own

    @property
    def num_classes(self) -> int | None:
        """Classes the U-Net tells apart, without the null class; None: it knows none."""
        embeds = getattr(self.unet.config, "num_class_embeds", None)
        return embeds if embeds is None or self.null_class is None else embeds - 1

    @property
    def guidance_scale(self) -> float:
        """Guidance of the call that goes on; a callback may set `_guidance_scale`."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps of the call that goes on."""
        return self._num_timesteps

    @property
    def default_steps(self) -> int:
        """Steps of a call that names none: those saved, with the kind of scheduler that was saved; else all T."""
        saved, num_train = self.config.num_inference_steps, self.scheduler.config.num_train_timesteps
        return num_train if saved is None or type(self.scheduler) is not self._own_solver else saved

    # -- labels and guidance --------------------------------------------------------------------------------------

    def check_labels(self, class_labels: Labels | None, count: int) -> Tensor | None:
        """(count,) int64 labels, or None.  Raises: ValueError: not one an image, or not one of the classes."""
        if class_labels is None:
            return None
        if self.num_classes is None:
            raise ValueError("got class_labels, but the model is not class-conditional: leave class_labels out")
        if isinstance(class_labels, str | int):
            class_labels = [class_labels] * count
        if not isinstance(class_labels, Tensor):
            class_labels = [self.class_number(label) for label in class_labels]
        labels = torch.as_tensor(class_labels, dtype=torch.int64).reshape(-1)
        if labels.shape != (count,):
            raise ValueError(f"got {labels.numel()} class_labels for {count} images; give one an image")
        largest = self.unet.config.num_class_embeds - 1
        if bool(((labels < 0) | (labels > largest)).any()):
            raise ValueError(f"class_labels must be {self.classes_in_words()}")
        return labels

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the classes, in the order of their numbers; None: they have none here."""
        names = self.config.label_names
        return None if names is None else tuple(names)

    def class_number(self, label: int | str) -> int:
        """The number of a class: of text, that of the class of this name, else "none", or the number that it says.

        Raises: ValueError: no class of this name.
        """
        if not isinstance(label, str):
            return int(label)
        if label in (self.label_names or ()):
            return (self.label_names or ()).index(label)
        if label == "none" and self.null_class is not None:
            return self.null_class
        if not label.isdecimal():
            raise ValueError(f"there is no class {label!r}; class_labels must be {self.classes_in_words()}")
        return int(label)

    def classes_in_words(self) -> str:
        """Numbers and names of the classes, in words."""
        assert self.num_classes is not None
        any_class = f", or {self.null_class} or 'none' for any class" if self.null_class is not None else ""
        numbers = f"0 to {self.num_classes - 1}"
        named = numbered(self.label_names or ())
        return f"{numbers}{any_class}" + (f": {named}" if named not in ("", numbers) else "")

    def labels_or_each_class(
        self, class_labels: Labels | None, count: int, generator: Generator = None, seeds: Tensor | None = None
    ) -> Tensor | None:
        """The labels given; else, for a class-conditional model, a class an image.

        Args:
            generator: draws the order of the classes.
            seeds: (count,), int64, instead: the class of an image is its seed modulo the number of classes.
        """
        if class_labels is not None or self.num_classes is None:
            return self.check_labels(class_labels, count)
        return spread(self.num_classes, count, generator) if seeds is None else seeds % self.num_classes

    def set_guidance(self, guidance_scale: float | None, labels: Tensor | None) -> None:
        """Guide by this scale; None: by the run's own, where there are images of a class.

        Raises: ValueError: guidance for a model that does not know the class "any", or without labels.
        """
        if guidance_scale is None:
            is_of_class = labels is not None and self.null_class is not None and bool((labels != self.null_class).any())
            guidance_scale = self.config.guidance_scale if is_of_class else 1.0
        if guidance_scale != 1.0 and (self.null_class is None or labels is None):
            raise ValueError(
                f"guidance_scale is {guidance_scale}, but there are no class labels, or the model was trained without "
                "a null class to be guided away from: use guidance_scale 1"
            )
        self._guidance_scale = guidance_scale

    def predictor(self, labels: Tensor | None) -> Predict:
        """The U-Net for these labels, guided by `guidance_scale`.  (Ho & Salimans 2022, Eq. 6, with scale = 1 + w)"""
        labels = None if labels is None else labels.to(self._execution_device)
        null_class = self.null_class

        def predict(x_t: Tensor, t: Any) -> Tensor:
            model_input, scale = self.scheduler.scale_model_input(x_t, t), self._guidance_scale
            # filled on the device: a network makes a tensor of a number by a copy from the host, which waits
            place = t if isinstance(t, Tensor) else torch.full((1,), t, device=x_t.device)
            if labels is None or null_class is None or scale == 1.0:
                return self.unet(model_input, place, class_labels=labels).sample
            null = torch.full_like(labels, null_class)
            both = self.unet(torch.cat([model_input] * 2), place, class_labels=torch.cat([labels, null])).sample
            wanted, any_class = both.chunk(2)
            channels = x_t.shape[1]  # those of a learned variance, behind them, are not guided
            guided = any_class[:, :channels] + scale * (wanted - any_class)[:, :channels]
            return torch.cat([guided, wanted[:, channels:]], dim=1)

        return predict

    # -- steps ----------------------------------------------------------------------------------------------------

    def set_timesteps(self, num_inference_steps: int | None, timesteps: Sequence[int] | None) -> list[Any]:
        """Set the scheduler's steps and return them, on the host.

        Raises: ValueError: both are given, the scheduler takes no list of timesteps, or it is none for this model.
        """
        check_scheduler(self.scheduler)
        if timesteps is None:
            self.set_even_timesteps(self.default_steps if num_inference_steps is None else num_inference_steps)
        elif num_inference_steps is not None:
            raise ValueError("got both timesteps and num_inference_steps; give one of them")
        elif not takes(self.scheduler.set_timesteps, "timesteps"):
            raise ValueError(f"{type(self.scheduler).__name__} takes no list of timesteps; use num_inference_steps")
        else:
            self.scheduler.set_timesteps(timesteps=list(timesteps))
        begin(self.scheduler)
        chosen = on_the_host(self.scheduler.timesteps)
        self._num_timesteps = len(chosen)
        return chosen

    def set_even_timesteps(self, num_inference_steps: int) -> None:
        """Space the timesteps as the scheduler does."""
        self.scheduler.set_timesteps(num_inference_steps)

    def start(self, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Noise as x_T: float32, on the device, of the scheduler's size.  Raises: ValueError: another shape."""
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents are {tuple(latents.shape)}; the model and the number of images want {shape}")
        return latents.to(self._execution_device, torch.float32) * self.scheduler.init_noise_sigma

    def reporter(self, callback: Callback | None, tensor_inputs: Sequence[str]) -> OnStep:
        """Reporter of a step to the user's callback. Raises: ValueError: it asks for tensors there are not."""
        asked = getattr(callback, "tensor_inputs", None) or tensor_inputs
        unknown = sorted(set(asked) - set(self._callback_tensor_inputs))
        if unknown:
            known = ", ".join(self._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs has {', '.join(unknown)}; known: {known}")

        def report(index: int, t: Any, x_t: Tensor) -> Tensor | None:
            if callback is None:
                return None
            return (callback(self, index, t, {"latents": x_t} if "latents" in asked else {}) or {}).get("latents")

        return report

    # -- the saved folder -----------------------------------------------------------------------------------------

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read the saved config as diffusers does. Names of classes are saved as a dict, because it takes lists for
        parts of the pipeline, and as a private value, as is all that a stock pipeline would warn of."""
        own: dict[str, Any] = {}
        if "_num_inference_steps" in config_dict:
            own["num_inference_steps"] = config_dict["_num_inference_steps"]
        if (names := config_dict.get("_label_names")) is not None:
            own["label_names"] = list(names.values())
        if "_solver" in config_dict:
            own["scheduler"] = ["diffusers", config_dict["_solver"]]
        return super().extract_init_dict({**config_dict, **own}, **kwargs)

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the config as diffusers does, in the layout that loads with and without the package; `save_pretrained`
        comes here last."""
        super().save_config(save_directory, push_to_hub=push_to_hub, **kwargs)
        self.finish_folder(Path(save_directory))

    def finish_folder(self, folder: Path) -> None:
        """Name in model_index.json what a stranger's diffusers can load, and add the code that this takes.

        A `UNet2DModel` without classes loads into the stock `DDPMPipeline`, with `DDPMScheduler`, and the run's own
        solver is a private value, for us; all others name `pipeline.py`, which lies beside it.
        """
        index = json.loads((folder / "model_index.json").read_text())
        index.pop("_name_or_path", None)  # a path of the machine it was loaded on
        if (names := index.pop("label_names", None)) is not None:
            index["_label_names"] = dict(enumerate(names))
        if self.num_classes is None and not hasattr(self.unet, "null_class"):
            index["_num_inference_steps"] = index.pop("num_inference_steps")
            index = {name: value for name, value in index.items() if name not in ("null_class", "guidance_scale")}
            if index["scheduler"][0] == "diffusers":
                index["_solver"] = index["scheduler"][1]
            index |= {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"]}
        else:
            index["_class_name"] = ["pipeline", "FastDDPMPipeline"]
            if Path(__file__) != folder / "pipeline.py":
                shutil.copyfile(__file__, folder / "pipeline.py")
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def spread(num_classes: int, count: int, generator: Generator) -> Tensor:
    """A class an image, (count,) int64, each of them count / num_classes times, rounded down or up; their order is
    drawn from the generator, and so is which come once more. Of a list of generators, each draws its image's class.

    Raises: ValueError: a list of another length.
    """
    if isinstance(generator, list):
        if len(generator) != count:
            raise ValueError(f"got {len(generator)} generators for {count} images; give one, or one an image")
        return torch.cat([spread(num_classes, 1, each) for each in generator])
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(num_classes, generator=generator, device=device).cpu()
    return order[torch.arange(count) % num_classes]


def begin(scheduler: Any) -> None:
    """Say that the first step comes first: a scheduler that looks its place up by the timestep skips one where two
    have the same."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


def numbered(label_names: Sequence[str], most: int = 20) -> str:
    """Names of classes after their numbers, as `0 dark, 1 light`; `0 to 9` where the names are the numbers."""
    if label_names and list(label_names) == [str(number) for number in range(len(label_names))]:
        return f"0 to {len(label_names) - 1}"
    named = ", ".join(f"{number} {name}" for number, name in enumerate(label_names[:most]))
    return named + (f" and {len(label_names) - most} more" if len(label_names) > most else "")


def image_count(batch_size: int | None, *rows: Sequence[Any] | Tensor | int | None) -> int:
    """Number of images asked for: batch_size, else as many as the first of `rows` that is given, else one."""
    given = [len(row) for row in rows if row is not None and not isinstance(row, str | int)]
    count = batch_size if batch_size is not None else given[0] if given else 1
    if count < 1:
        raise ValueError(f"batch_size is {count}; ask for at least one image")
    return count


def check_output_type(output_type: str | None) -> None:
    """Before the work, not after it.  Raises: ValueError: none of diffusers' (among them "numpy" and None, as "np")."""
    if output_type not in ("pil", "np", "numpy", None, "pt", "latent"):
        raise ValueError(f"output_type is {output_type!r}; use 'pil', 'np', 'pt' or 'latent'")


def in_format(x_0: Tensor, output_type: str | None) -> Any:
    """Images in diffusers' output formats.

    Args:
        x_0: (B, C, H, W), float, in [-1, 1]; clipped, but for "latent".
        output_type: as in `FastDDPMPipeline.__call__`.
    """
    if output_type == "latent":
        return x_0
    if output_type == "pil":  # rounded half to even, once
        levels = x_0.float().clamp(-1, 1).add(1).mul(127.5).round().div(255)
        return DiffusionPipeline.numpy_to_pil(levels.cpu().permute(0, 2, 3, 1).numpy())
    scaled = (x_0.float() / 2 + 0.5).clamp(0, 1)
    return scaled if output_type == "pt" else scaled.cpu().permute(0, 2, 3, 1).numpy()


def on_the_host(timesteps: Tensor) -> list[Any]:
    """Timesteps one by one: numbers, so that the loop needs no transfer; or, where they have fractions, 0-d tensors,
    which a U-Net does not cut off. diffusers' "trailing" may end at -1, which is none."""
    if timesteps.is_floating_point():
        return list(timesteps.cpu())
    return [t for t in timesteps.tolist() if t >= 0]


def takes(function: Callable, name: str) -> bool:
    """True for a function that has a parameter of this name."""
    return name in inspect.signature(function).parameters


def check_scheduler(scheduler: Any) -> None:
    """Raises: ValueError: a scheduler of another noise process than DDPM's, or that cannot read what the network says.

    Without it EDM's schedulers draw noise, and those of flow matching end somewhere inside of diffusers.
    """
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
    if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas"):
        why = "noises in another way than DDPM (as EDM or flow matching), by which the network was trained"
    elif kind not in ("epsilon", "v_prediction", "sample") or (kind == "sample" and name in _WITHOUT_SAMPLE):
        why = f"has no formula for a network of prediction_type {kind!r}"
    else:
        return
    raise ValueError(
        f"{name} {why}; use another, such as DDIMScheduler, EulerDiscreteScheduler or DPMSolverMultistepScheduler"
    )


_WITHOUT_SAMPLE = (
    "PNDMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)  # fmt: skip


def diffusers_step(
    scheduler: Any, generator: Generator, model_dtype: torch.dtype, eta: float | None = None
) -> TakeStep:
    """A scheduler's own `step`, which is given a generator if it draws noise.

    Raises: ValueError: an eta that it does not take.
    """
    options: dict[str, Any] = {"generator": generator} if takes(scheduler.step, "generator") else {}
    if eta is not None:
        if not takes(scheduler.step, "eta") or not 0 <= eta <= 1:
            raise ValueError(
                f"eta is {eta} and the scheduler {type(scheduler).__name__}; eta is DDIM's, from 0 to 1: leave it out, "
                "or set pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)"
            )
        options["eta"] = min(eta, 1 - 1e-6)  # at 1, rounding may leave less than no variance for the rest: NaN
    if hasattr(scheduler, "noise_sampler_seed") and generator is not None:  # DPM-Solver SDE knows no generators
        each = generator if isinstance(generator, list) else [generator]
        seeds = [int(torch.randint(2**62, (1,), generator=one, device=one.device)) for one in each]
        scheduler.noise_sampler_seed = seeds if isinstance(generator, list) else seeds[0]

    def take_step(model_output: Tensor, t: Any, x_t: Tensor) -> tuple[Tensor, Tensor]:
        x_prev = scheduler.step(model_output.float(), t, x_t, **options).prev_sample
        return x_prev, x_prev.to(model_dtype)

    return take_step

"""The paper's scheduler on diffusers' interface, with a timestep for each image."""

from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import FrozenDict, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from torch import Tensor

from fastddpm import draws
from fastddpm.config.checks import nearest_divisors
from fastddpm.kernels.add_noise import add_noise
from fastddpm.kernels.denoising_mse import denoising_mse
from fastddpm.kernels.layout import is_channels_last
from fastddpm.kernels.philox import as_int64
from fastddpm.schedulers.step_noise import Dtypes, Generator, StepNoise
from fastddpm.schedulers.tables import ReverseTable, betas_of, trailing_timesteps


class FusedDDPMScheduler(DDPMScheduler):
    """Noise schedule and reverse process of DDPM.  (Ho et al. 2020; the paper's Eq. 2 and 4)

    Config-compatible with `diffusers.DDPMScheduler` in both directions; only the defaults differ: they are the paper's,
    which does not clip. Tables are built once in float64, kept in float32, and applied in float32; `step` alone uses
    diffusers' own float32 alpha-bar, in order to equal it: its coefficients at small t are off by up to 4e-4.

    Differences from diffusers, each on purpose: `add_noise` computes in float32 whatever the sample's dtype (in
    bfloat16 diffusers' coefficients make the noise of ten timesteps exactly zero); "trailing" spacing counts in
    integers; the last step adds no noise, also where a spacing ends above t = 0; "leading" spacing refuses a number of
    steps that does not divide T, where diffusers starts pure noise in the middle of the chain; "fixed_large_log" is the
    variance it names instead of NaN.
    """

    alphas_cumprod: Tensor
    betas: Tensor
    timesteps: Tensor
    num_inference_steps: int | None
    custom_timesteps: bool

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        variance_type: str = "fixed_small",
        clip_sample: bool = False,
        prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "trailing",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ):
        super().__init__(**{name: self.config[name] for name in _STOCK_DEFAULTS})
        # diffusers replaces values listed here by the defaults of the class that reads the config: list none
        if "_use_default_values" in self.config:
            self.register_to_config(_use_default_values=[])
        self._build_from(torch.cumprod(1.0 - betas_of(self.config), dim=0))

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Make from a config as diffusers does; what a diffusers scheduler left at, or out for, its default keeps that
        default, not ours."""
        if not isinstance(config, dict):
            return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)
        values = {**config, "_use_default_values": []}
        # a config in use carries no class name, and has every value of ours: another's defaults add nothing
        if config["_class_name"] != cls.__name__ if "_class_name" in config else isinstance(config, FrozenDict):
            left_at_default = config.get("_use_default_values", [])
            values = {**_STOCK_DEFAULTS, **{k: v for k, v in values.items() if k not in left_at_default}}
        scheduler, unused = super().from_config(values, return_unused_kwargs=True, **kwargs)
        if "_use_default_values" in config:  # a config in use, not one read from a file
            scheduler.register_to_config(_use_default_values=[])
        return (scheduler, unused) if return_unused_kwargs else scheduler

    # -- forward ----------------------------------------------------------------------------------------------------

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Sample x_t ~ q(x_t | x_0).  (Ho et al. 2020, Eq. 4; the paper's Eq. 2)

        Args:
            original_samples: x_0, (B, ...), float, in [-1, 1].
            noise: standard normal, same shape as `original_samples`.
            timesteps: (B,) or 0-d, int64, 0 <= t < num_train_timesteps; 0 is the least noise.
        Returns: x_t, shape and dtype of `original_samples`; coefficients are applied in float32.
        Raises: ValueError: shapes differ.
        """
        if original_samples.shape != noise.shape:
            raise ValueError(
                f"noise is {tuple(noise.shape)}; wanted the shape of original_samples, {tuple(original_samples.shape)}"
            )
        x_0, table = original_samples, self._forward_table_of(original_samples)
        t = self._timestep_per_image(timesteps, x_0)
        return add_noise(x_0, t, table, noise, None, 0, 0, 0, x_0.dtype, is_channels_last(x_0))[0]

    def q_sample(
        self,
        x_0: Tensor,
        timesteps: Tensor,
        positions: Tensor,
        *,
        seed: int,
        stream: draws.Stream,
        draw: int = 0,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Sample x_t ~ q(x_t | x_0) with keyed noise.  (Ho et al. 2020, Eq. 4; the paper's Eq. 2)

        Args:
            x_0: (B, ...), uint8 pixels or float in [-1, 1].
            timesteps: (B,), int64.
            positions, seed, stream, draw: whose noise; see `draws.normal`.
            dtype: of x_t, which is computed in float32.
            channels_last: memory format of the results.
        Returns: x_t, and the noise in float32, both (B, ...).
        """
        table, key = self._forward_table_of(x_0), (as_int64(seed), int(stream), draw)
        return add_noise(x_0, timesteps, table, None, positions, *key, dtype, channels_last)

    def denoising_mse(self, prediction: Tensor, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The mean squared error of each image's prediction, by `prediction_type`.  (The paper's Eq. 3)

        Args:
            prediction: the model's output, (B, ...), float.
            x_0: (B, ...), uint8 pixels or float in [-1, 1].
            noise: what x_t was made with, (B, ...), float.
            timesteps: (B,), int64.
        Returns: (B,), float32.
        """
        table = self._forward_table_of(x_0)
        return denoising_mse(prediction, x_0, noise, timesteps, table, self.config.prediction_type)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0.  (Salimans & Ho 2022, App. D)

        Args:
            sample: x_0, and the other arguments: as in `add_noise`.
        Returns: v, shape and dtype of `sample`; coefficients are applied in float32.
        """
        return self.add_noise(noise.to(sample.dtype), -sample, timesteps)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio abar_t / (1 - abar_t): (B,), float32."""
        signal, spread = self._jump.to(timesteps.device, non_blocking=True)[:, timesteps]
        return (signal / spread).square()

    # -- reverse ----------------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the reverse steps: a number of them by `timestep_spacing`, or their descending list.

        Raises: ValueError: "leading" spacing and a number that does not divide T; more steps than T; both or neither
            argument given; timesteps that do not descend or that the noise schedule does not reach; a start at zero
            SNR with epsilon prediction, which divides by zero there.
        """
        num_train = self.config.num_train_timesteps
        spacing, steps = self.config.timestep_spacing, num_inference_steps or 0
        if timesteps is not None and not len(timesteps):
            raise ValueError("timesteps is empty; give at least one, descending")
        if timesteps is None and not 1 <= steps <= num_train:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1 to {num_train}")
        if timesteps is None and spacing == "leading" and num_train % steps:
            near = " or ".join(map(str, nearest_divisors(num_train, steps)))
            raise ValueError(
                f"timestep_spacing 'leading' with {steps} steps would start pure noise below the last of {num_train} "
                f"timesteps; use {near} steps, or timestep_spacing 'trailing'"
            )
        before = self.timesteps, self.num_inference_steps, self.custom_timesteps
        try:
            super().set_timesteps(num_inference_steps, device, timesteps)
            if timesteps is None and spacing == "trailing":
                self.timesteps = torch.tensor(trailing_timesteps(num_train, steps), device=device)
            self._check_timesteps()
        except ValueError:
            self.timesteps, self.num_inference_steps, self.custom_timesteps = before
            raise
        self._refresh_tables()

    def _check_timesteps(self) -> None:
        self._refresh_alpha_bar()
        last = int(self.timesteps[0])
        if last >= len(self.betas):
            raise ValueError(
                f"the first of the timesteps is {last}, the last one trained is {len(self.betas) - 1}; use "
                "steps_offset 0, or fewer steps"
            )
        if self.config.prediction_type == "epsilon" and float(self._alpha_bar[last]) == 0.0:
            raise ValueError(
                f"rescale_betas_zero_snr leaves no signal at timestep {last}, where prediction_type 'epsilon' cannot "
                "tell x_0; use a model of prediction_type 'v_prediction' or 'sample', or start below that timestep"
            )

    def reverse_step(
        self,
        model_output: Tensor,
        timesteps: int | Tensor,
        sample: Tensor,
        *,
        positions: Tensor | None = None,
        generator: Generator = None,
        noise: Tensor | None = None,
        model_dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sample x_{t-1} ~ p(x_{t-1} | x_t), each image at its own t.  (Ho et al. 2020, Alg. 2; the paper's Eq. 4)

        The step goes to the next lower timestep chosen by `set_timesteps`, from the lowest of them to x_0.

        Args:
            model_output: the model's prediction, (B, C, ...), float; (B, 2 C, ...) where the variance is learned.
            timesteps: t, a number, a 0-d or a (B,) tensor.
            sample: x_t, (B, C, ...), float.
            positions: (B,), int64, seeds of keyed noise; or
            generator: draws the noise; or
            noise: the noise itself, shape of `sample`. None of the three: torch's global generator.
            model_dtype: dtype of the second result; None: that of `model_output`.
        Returns: x_{t-1} in float32, and the same in `model_dtype`: the next input of the model.
        Raises: ValueError: more than one source of noise; a learned variance without its channels.
        """
        if sum(source is not None for source in (positions, generator, noise)) > 1:
            raise ValueError("got more than one of positions, generator and noise; give one source of noise")
        self._refresh_tables()
        model_dtype = model_dtype or model_output.dtype
        dtypes = torch.float32, None if model_dtype is torch.float32 else model_dtype, None
        source = StepNoise(positions, generator, noise)
        x_prev, model_input, _ = self._denoise(self._table, model_output, sample, timesteps, source, dtypes)
        return x_prev, x_prev if dtypes[1] is None else model_input

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """`DDPMScheduler.step`, computed in float32: arguments, results and dtypes are those of diffusers.

        Beyond it, `timestep` may be (B,): one an image.
        """
        self._refresh_tables()
        dtypes = sample.dtype, None, sample.dtype
        source = StepNoise(generator=generator, dtype=model_output.dtype)
        x_prev, _, x_0 = self._denoise(self._stock_table, model_output, sample, timestep, source, dtypes)
        return DDPMSchedulerOutput(prev_sample=x_prev, pred_original_sample=x_0) if return_dict else (x_prev, x_0)

    def _denoise(
        self,
        table: ReverseTable,
        model_output: Tensor,
        sample: Tensor,
        timesteps: int | Tensor,
        source: StepNoise,
        dtypes: Dtypes,
    ) -> tuple[Tensor, Tensor, Tensor]:
        table.move_to(sample.device)
        per_image = self._timestep_per_image(timesteps, sample)
        model_output, predicted_variance = self._split(model_output, sample)
        if predicted_variance is not None:
            sigma = table.learned_sigma(predicted_variance, per_image, self.config.variance_type)
            source = StepNoise(given=sigma * source.drawn(sample, timesteps, per_image))
        coefficients = table.coefficients
        if self.config.thresholding:  # over all pixels of an image: x_0 is made first, the rest is as if predicted
            x_0 = table.predicted_x_0(model_output, sample, per_image)
            model_output, coefficients = self._threshold_sample(x_0), table.coefficients_from_x_0
        clip = self.config.clip_sample and not self.config.thresholding
        clip_range = self.config.clip_sample_range if clip else None
        return source.step(model_output, sample, timesteps, per_image, coefficients, clip_range, dtypes)

    def _split(self, model_output: Tensor, sample: Tensor) -> tuple[Tensor, Tensor | None]:
        learned = self.config.variance_type in ("learned", "learned_range")
        wanted = sample.shape[1] * (2 if learned else 1)
        if model_output.shape[1] != wanted:
            raise ValueError(
                f"the model's output has {model_output.shape[1]} channels for samples of {sample.shape[1]}; "
                f"variance_type {self.config.variance_type!r} takes {wanted}: use the scheduler it was trained with"
            )
        if not learned:
            return model_output, None
        prediction, predicted_variance = model_output.chunk(2, dim=1)
        return prediction, predicted_variance

    def _timestep_per_image(self, timesteps: int | Tensor, sample: Tensor) -> Tensor:
        if isinstance(timesteps, int):  # filled on the device: a copy from the host would wait
            timesteps = torch.full((1,), timesteps, device=sample.device)
        per_image = torch.as_tensor(timesteps, device=sample.device).long().reshape(-1)
        if per_image.numel() not in (1, sample.shape[0]):
            raise ValueError(
                f"got {per_image.numel()} timesteps for {sample.shape[0]} images; give one, or one an image"
            )
        return per_image.expand(sample.shape[0])

    # -- tables -----------------------------------------------------------------------------------------------------

    def _build_from(self, alpha_bar: Tensor) -> None:
        """Build every table anew from alpha-bar, (T,), float64, on the CPU."""
        self._alpha_bar = alpha_bar
        self._jump = torch.stack([alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()]).float()
        num_train = len(alpha_bar)  # as many as trained_betas, whatever num_train_timesteps says
        chosen = self.timesteps.cpu().flip(0)  # ascending
        below = torch.searchsorted(chosen, torch.arange(num_train, device="cpu"))
        previous = torch.where(below > 0, chosen[(below - 1).clamp(min=0)], -1)
        self._table = ReverseTable(alpha_bar, previous, self.config)
        self._stock_table = ReverseTable(self.alphas_cumprod.cpu(), previous, self.config)
        self._built_from = (self.alphas_cumprod, self.timesteps, *self._kinds())

    def _kinds(self) -> tuple[str, str]:
        return self.config.prediction_type, self.config.variance_type

    def _refresh_alpha_bar(self) -> None:
        """People replace `alphas_cumprod`, which is public: what they put there counts."""
        if self.alphas_cumprod is not self._built_from[0]:
            self._alpha_bar = self.alphas_cumprod.double().cpu()

    def _refresh_tables(self) -> None:
        """Build the tables again if what they come from was replaced, by a method or by hand."""
        alphas, timesteps, *kinds = self._built_from
        if alphas is self.alphas_cumprod and timesteps is self.timesteps and tuple(kinds) == self._kinds():
            return
        self._refresh_alpha_bar()
        self._build_from(self._alpha_bar)

    def _forward_table_of(self, samples: Tensor) -> Tensor:
        """(2, T), where the samples are; `alphas_cumprod` follows them, as in diffusers."""
        self._refresh_tables()
        device = samples.device
        if self.alphas_cumprod.device != device:
            self.alphas_cumprod = self.alphas_cumprod.to(device, non_blocking=True)
            self._built_from = (self.alphas_cumprod, *self._built_from[1:])
        if self._jump.device != device:
            self._jump = self._jump.to(device, non_blocking=True)
        return self._jump


_STOCK_DEFAULTS = {name: value for name, value in DDPMScheduler().config.items() if not name.startswith("_")}

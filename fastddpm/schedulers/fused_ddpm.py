"""The paper's scheduler on diffusers' interface, with a timestep for each image."""

from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput, betas_for_alpha_bar, rescale_zero_terminal_snr
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastddpm import draws
from fastddpm.kernels.add_noise import add_noise
from fastddpm.kernels.denoise_step import denoise_step

Generator = torch.Generator | list[torch.Generator] | None


class FusedDDPMScheduler(DDPMScheduler):
    """Noise schedule and reverse process of DDPM.  (Ho et al. 2020; the paper's Eq. 2 and 4)

    Config-compatible with `diffusers.DDPMScheduler` in both directions; only the defaults differ: they are the paper's,
    which does not clip. Tables are built once in float64, kept in float32, and applied in float32.

    Differences from diffusers, each on purpose: `add_noise` computes in float32 whatever the sample's dtype (in
    bfloat16 diffusers' coefficients make the noise of ten timesteps exactly zero); "trailing" spacing counts in
    integers; the last step adds no noise, also where a spacing ends above t = 0; "leading" spacing refuses a number of
    steps that does not divide T, where diffusers starts pure noise in the middle of the chain; "fixed_large_log" is the
    variance it names instead of NaN.

    Raises: ValueError: zero terminal SNR with epsilon prediction, which divides by zero at t = T - 1.
    """

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
        if rescale_betas_zero_snr and prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr leaves no signal at the last timestep, where prediction_type 'epsilon' "
                "cannot tell x_0; use prediction_type 'v_prediction' or 'sample'"
            )
        super().__init__(**{name: self.config[name] for name in _STOCK_DEFAULTS})
        # diffusers replaces values listed here by the defaults of the class that reads the config: list none
        self.register_to_config(_use_default_values=[])
        alpha_bar = torch.cumprod(1.0 - _betas(self.config), dim=0)  # float64
        self._alpha_bar = alpha_bar
        self._jump = torch.stack([alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()]).float()
        self._build_reverse_table()

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As in diffusers; what a diffusers scheduler left at, or out for, its default keeps that default, not ours."""
        if isinstance(config, dict):
            others = config.get("_class_name", cls.__name__) != cls.__name__
            config = {**(_STOCK_DEFAULTS if others else {}), **config, "_use_default_values": []}
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

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
        self._jump = self._jump.to(original_samples.device)
        per_image = self._timestep_per_image(timesteps, original_samples)
        return add_noise(original_samples, noise, per_image, *self._jump).to(original_samples.dtype)

    def target(self, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model learns to predict, by `prediction_type`: the noise, the velocity or x_0.

        Args: as in `add_noise`.
        Returns: (B, ...), float32.  (velocity: Salimans & Ho 2022, App. D)
        """
        if self.config.prediction_type == "epsilon":
            return noise.float()
        if self.config.prediction_type == "sample":
            return x_0.float()
        return self.add_noise(noise.float(), -x_0.float(), timesteps)  # sqrt(abar) noise - sqrt(1 - abar) x_0

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio abar_t / (1 - abar_t): (B,), float32."""
        signal, spread = self._jump.to(timesteps.device)[:, timesteps]
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
            argument given.
        """
        num_train = self.config.num_train_timesteps
        if num_inference_steps is not None and timesteps is None and num_inference_steps <= num_train:
            if self.config.timestep_spacing == "leading" and num_train % num_inference_steps:
                raise ValueError(
                    f"timestep_spacing 'leading' with {num_inference_steps} steps would start pure noise below the "
                    f"last of {num_train} timesteps; use {_nearest_divisors(num_train, num_inference_steps)} steps, "
                    "or timestep_spacing 'trailing'"
                )
            super().set_timesteps(num_inference_steps, device)
            if self.config.timestep_spacing == "trailing":
                self.timesteps = torch.tensor(trailing_timesteps(num_train, num_inference_steps), device=device)
        else:
            super().set_timesteps(num_inference_steps, device, timesteps)
        self._build_reverse_table()

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
            model_output: the model's prediction, (B, ...), float.
            timesteps: t, a number, a 0-d or a (B,) tensor.
            sample: x_t, (B, ...), float.
            positions: (B,), int64, seeds of keyed noise; or
            generator: draws the noise; or
            noise: the noise itself, shape of `sample`. None of the three: torch's global generator.
            model_dtype: dtype of the second result; None: that of `model_output`.
        Returns: x_{t-1} in float32, and the same in `model_dtype`: the next input of the model.
        Raises: ValueError: more than one source of noise; learned variance or thresholding (use `step`).
        """
        if sum(source is not None for source in (positions, generator, noise)) > 1:
            raise ValueError("got more than one of positions, generator and noise; give one source of noise")
        if not has_fixed_variance(self.config):
            raise ValueError(
                f"reverse_step knows fixed variances without thresholding; got variance_type "
                f"{self.config.variance_type!r}, thresholding {self.config.thresholding}: use step"
            )
        per_image = self._timestep_per_image(timesteps, sample)
        if noise is None:
            noise = self._step_noise(sample, timesteps, per_image, positions, generator, torch.float32)
        x_prev, model_input, _ = self._denoise(
            model_output, sample, noise, per_image, model_dtype or model_output.dtype
        )
        return x_prev, model_input

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """`DDPMScheduler.step`, computed in float32: arguments, results and dtypes are those of diffusers."""
        if not has_fixed_variance(self.config):
            return super().step(model_output, timestep, sample, generator, return_dict)
        per_image = self._timestep_per_image(timestep, sample)
        noise = self._step_noise(sample, timestep, per_image, None, generator, model_output.dtype)
        x_prev, _, x_0 = self._denoise(model_output, sample, noise, per_image, sample.dtype)
        x_prev, x_0 = x_prev.to(sample.dtype), x_0.to(sample.dtype)
        return DDPMSchedulerOutput(prev_sample=x_prev, pred_original_sample=x_0) if return_dict else (x_prev, x_0)

    def _denoise(
        self, model_output: Tensor, sample: Tensor, noise: Tensor, per_image: Tensor, model_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._reverse_table: Tensor = self._reverse_table.to(sample.device)
        clip_range = self.config.clip_sample_range if self.config.clip_sample else None
        return denoise_step(model_output, sample, noise, per_image, self._reverse_table, clip_range, model_dtype)

    def _step_noise(
        self,
        sample: Tensor,
        timesteps: int | Tensor,
        per_image: Tensor,
        positions: Tensor | None,
        generator: Generator,
        dtype: torch.dtype,
    ) -> Tensor:
        if isinstance(timesteps, int) and timesteps == 0:  # the last step adds none, and diffusers draws none for it
            return torch.zeros_like(sample, dtype=dtype)
        if positions is None:
            return randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=dtype)
        return draws.normal(
            positions, sample.shape[1:], seed=draws.SAMPLING_KEY, stream=draws.Stream.STEP_NOISE, draw=per_image
        )

    def _timestep_per_image(self, timesteps: int | Tensor, sample: Tensor) -> Tensor:
        per_image = torch.as_tensor(timesteps, device=sample.device).long().reshape(-1)
        if per_image.numel() not in (1, sample.shape[0]):
            raise ValueError(
                f"got {per_image.numel()} timesteps for {sample.shape[0]} images; give one, or one an image"
            )
        return per_image.expand(sample.shape[0])

    def _build_reverse_table(self) -> None:
        chosen = torch.as_tensor(self.timesteps).cpu().flip(0)  # ascending
        below = torch.searchsorted(chosen, torch.arange(self.config.num_train_timesteps))
        previous = torch.where(below > 0, chosen[(below - 1).clamp(min=0)], -1)
        self._reverse_table = _reverse_table(self._alpha_bar, previous, self.config)


def has_fixed_variance(config: Any) -> bool:
    """Whether a step is one linear formula: no learned variance, and no thresholding over an image's pixels."""
    return not config.thresholding and config.variance_type not in ("learned", "learned_range")


def trailing_timesteps(start: int, num_steps: int) -> list[int]:
    """`num_steps` descending timesteps, evenly spaced in integers, the first of them `start - 1`, the last at least 0.

    Raises: ValueError: more steps than timesteps.
    """
    if not 1 <= num_steps <= start:
        raise ValueError(f"num_inference_steps is {num_steps}; from timestep {start} it must be 1 to {start}")
    return [((num_steps - i) * start + num_steps // 2) // num_steps - 1 for i in range(num_steps)]


def _reverse_table(alpha_bar: Tensor, previous: Tensor, config: Any) -> Tensor:
    """Coefficients of `denoise_step` for a step from each t to previous[t] (-1: to x_0): (T, 5), float32."""
    one = torch.ones_like(alpha_bar)
    before = torch.where(previous >= 0, alpha_bar[previous.clamp(min=0)], one)
    alpha = alpha_bar / before
    beta = 1.0 - alpha
    if config.prediction_type == "epsilon":
        from_sample, from_output = alpha_bar.rsqrt(), -((1.0 - alpha_bar) / alpha_bar).sqrt()
    elif config.prediction_type == "v_prediction":
        from_sample, from_output = alpha_bar.sqrt(), -(1.0 - alpha_bar).sqrt()
    else:
        from_sample, from_output = torch.zeros_like(one), one
    mean_x_0 = before.sqrt() * beta / (1.0 - alpha_bar)  # Eq. 7
    mean_sample = alpha.sqrt() * (1.0 - before) / (1.0 - alpha_bar)
    large = config.variance_type in ("fixed_large", "fixed_large_log")
    variance = beta if large else (1.0 - before) / (1.0 - alpha_bar) * beta
    sigma = torch.where(
        previous >= 0, variance.clamp(min=1e-20).sqrt(), torch.zeros_like(one)
    )  # z = 0 in the last step
    return torch.stack([from_sample, from_output, mean_x_0, mean_sample, sigma], dim=1).float()


def _betas(config: Any) -> Tensor:
    """beta_t in float64."""
    num, first, last = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.trained_betas is not None:
        betas = torch.tensor(config.trained_betas, dtype=torch.float64)
    elif config.beta_schedule == "linear":
        betas = torch.linspace(first, last, num, dtype=torch.float64)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, num, dtype=torch.float64) ** 2
    elif config.beta_schedule == "sigmoid":
        betas = torch.sigmoid(torch.linspace(-6, 6, num, dtype=torch.float64)) * (last - first) + first
    else:
        transform = "laplace" if config.beta_schedule == "laplace" else "cosine"
        betas = betas_for_alpha_bar(num, alpha_transform_type=transform).double()
    return rescale_zero_terminal_snr(betas) if config.rescale_betas_zero_snr else betas


def _nearest_divisors(total: int, wanted: int) -> str:
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    near = [max(n for n in divisors if n < wanted), min(n for n in divisors if n > wanted)]
    return " or ".join(str(n) for n in near)


_STOCK_DEFAULTS = {name: value for name, value in DDPMScheduler().config.items() if not name.startswith("_")}

"""Numbers of a noise schedule: betas, evenly spaced timesteps, and the coefficients of each reverse step."""

from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar, rescale_zero_terminal_snr
from torch import Tensor


def betas_of(config: Any) -> Tensor:
    """beta_t of a DDPM scheduler's config: (T,), float64.  (Ho et al. 2020, Sec. 4)"""
    num, first, last = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.trained_betas is not None:
        betas = torch.tensor(config.trained_betas, dtype=torch.float64, device="cpu")
    elif config.beta_schedule == "linear":
        betas = torch.linspace(first, last, num, dtype=torch.float64, device="cpu")
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, num, dtype=torch.float64, device="cpu") ** 2
    elif config.beta_schedule == "sigmoid":
        betas = torch.sigmoid(torch.linspace(-6, 6, num, dtype=torch.float64, device="cpu")) * (last - first) + first
    else:
        transform = "laplace" if config.beta_schedule == "laplace" else "cosine"
        betas = betas_for_alpha_bar(num, alpha_transform_type=transform).double()
    return rescale_zero_terminal_snr(betas) if config.rescale_betas_zero_snr else betas


def trailing_timesteps(start: int, num_steps: int) -> list[int]:
    """`num_steps` descending timesteps, evenly spaced in integers, the first of them `start - 1`, the last at least 0.

    Raises: ValueError: more steps than timesteps.
    """
    if not 1 <= num_steps <= start:
        raise ValueError(f"num_inference_steps is {num_steps}; from timestep {start} it must be 1 to {start}")
    return [((num_steps - i) * start + num_steps // 2) // num_steps - 1 for i in range(num_steps)]


class ReverseTable:
    """Coefficients of `denoise_step` for a step from each t to previous[t] (-1: to x_0).

    Args:
        alpha_bar: (T,), float64, or float32 to compute as diffusers does.
        previous: (T,), int64.
        config: a DDPM scheduler's.
    """

    def __init__(self, alpha_bar: Tensor, previous: Tensor, config: Any):
        one, zero = torch.ones_like(alpha_bar), torch.zeros_like(alpha_bar)
        before = torch.where(previous >= 0, alpha_bar[previous.clamp(min=0)], one)
        alpha = alpha_bar / before
        beta = 1.0 - alpha
        mean_x_0 = before.sqrt() * beta / (1.0 - alpha_bar)  # Eq. 7
        mean_sample = alpha.sqrt() * (1.0 - before) / (1.0 - alpha_bar)
        small = ((1.0 - before) / (1.0 - alpha_bar) * beta).clamp(min=1e-20)
        variance = {"fixed_large": beta, "fixed_large_log": beta, "learned": one, "learned_range": one}
        sigma = torch.where(previous >= 0, variance.get(config.variance_type, small).sqrt(), zero)  # the last: z = 0
        to_x_0 = _x_0_coefficients(alpha_bar, config.prediction_type)
        self.coefficients = torch.stack([*to_x_0, mean_x_0, mean_sample, sigma], dim=1).float()  # (T, 5)
        self.coefficients_from_x_0 = torch.stack([zero, one, mean_x_0, mean_sample, sigma], dim=1).float()
        self._log_variances = torch.stack([small, beta]).log().float()  # (2, T): the bounds of "learned_range"

    def move_to(self, device: torch.device) -> None:
        """Keep the table on a device from now on; does nothing if it is there."""
        if self.coefficients.device != device:
            tables = self.coefficients, self.coefficients_from_x_0, self._log_variances
            self.coefficients, self.coefficients_from_x_0, self._log_variances = (
                t.to(device, non_blocking=True) for t in tables
            )

    def predicted_x_0(self, model_output: Tensor, sample: Tensor, timesteps: Tensor) -> Tensor:
        """x_0 by the model, not clipped: shape of `sample`, float32."""
        from_sample, from_output = self.coefficients[timesteps, :2].T.view(2, -1, *[1] * (sample.dim() - 1))
        return from_sample * sample.float() + from_output * model_output.float()

    def learned_sigma(self, predicted: Tensor, timesteps: Tensor, variance_type: str) -> Tensor:
        """The standard deviation that a model predicts for each pixel.  (Nichol & Dhariwal 2021, Eq. 15)

        Args:
            predicted: the model's second half of channels, (B, ...): sigma^2 itself for "learned", a place between the
                logarithms of the two fixed variances, from -1 to 1, for "learned_range".
            timesteps: (B,), int64.
        Returns: shape of `predicted`, float32; 0 in the last step, whatever is predicted for it.
        """
        per_image = (-1, *[1] * (predicted.dim() - 1))
        if variance_type == "learned":
            sigma = predicted.float().sqrt()
        else:
            low, high = self._log_variances[:, timesteps].view(2, *per_image)
            share = (predicted.float() + 1) / 2
            sigma = torch.exp(0.5 * (share * high + (1 - share) * low))
        is_last = (self.coefficients[timesteps, -1] == 0).view(per_image)
        return sigma.masked_fill(is_last, 0.0)


def _x_0_coefficients(alpha_bar: Tensor, prediction_type: str) -> tuple[Tensor, Tensor]:
    """x_0 = first x_t + second model_output."""
    if prediction_type == "epsilon":
        return alpha_bar.rsqrt(), -(1.0 - alpha_bar).sqrt() / alpha_bar.sqrt()
    if prediction_type == "v_prediction":
        return alpha_bar.sqrt(), -(1.0 - alpha_bar).sqrt()
    if prediction_type == "sample":
        return torch.zeros_like(alpha_bar), torch.ones_like(alpha_bar)
    raise ValueError(f"prediction_type is {prediction_type!r}; use 'epsilon', 'v_prediction' or 'sample'")

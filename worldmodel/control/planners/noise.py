"""Noise that is correlated over time. Legend: B problems, N sequences, H horizon, A action size."""

from __future__ import annotations

import torch
from torch import Tensor


class Noise:
    """Normal noise over ``horizon`` steps whose power falls with frequency as f^-beta (iCEM, Pinneri et al. 2020).

    It is the beginning of a series twice as long, so that the last step knows nothing of the first, and white noise
    mixed by the Cholesky factor of the covariance, so that a draw costs one small product. Each step has variance 1.

    Args:
        horizon: steps H.
        beta: 0 is white; at 1 and above actions hold their course for some steps.

    Raises:
        ValueError: beta is below 0.
    """

    def __init__(self, horizon: int, beta: float) -> None:
        if beta < 0:
            raise ValueError(f"beta, the exponent of the noise, must be at least 0, got {beta}")
        self.beta = beta
        length = 2 * horizon
        frequency = torch.fft.rfftfreq(length, dtype=torch.float64).clamp_min(1 / length)
        covariance = torch.fft.irfft(frequency**-beta, n=length)[:horizon]  # of steps 0, 1, 2... apart
        step = torch.arange(horizon)
        self.mix = torch.linalg.cholesky((covariance / covariance[0])[(step[:, None] - step).abs()])  # (H, H)

    def __call__(self, problems: int, count: int, size: int, like: Tensor) -> Tensor:
        """A draw (B, N, H, A) with the device and type of ``like``."""
        white = torch.randn(problems, count, len(self.mix), size, device=like.device, dtype=like.dtype)
        return self.mix.to(like) @ white if self.beta else white

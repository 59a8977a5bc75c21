"""What the caller of a vector environment gives, as the model takes it. N dreams, A action size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.errors import UserError, one_line
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec


def as_mask(given: Any, num: int, device: torch.device) -> Tensor:
    """Which dreams to begin, (N,) bool, of a ``reset_mask``: all of them if it is None.

    Raises:
        TypeError: it is no array of bool.
        ValueError: it is not (N,), or none is to begin.
    """
    if given is None:
        return torch.ones(num, dtype=torch.bool, device=device)
    if not isinstance(given, np.ndarray | Tensor):
        raise TypeError(f"reset_mask must be an array of bool, got {type(given).__name__}")
    mask = torch.as_tensor(given, device=device)
    if mask.dtype != torch.bool:
        raise TypeError(f"reset_mask must be an array of bool, got {given.dtype}")
    if mask.shape != (num,) or not mask.any():
        raise ValueError(f"reset_mask must be ({num},) with a dream to begin, got {given.tolist()}")
    return mask.clone()  # the caller may change it


def as_actions(given: Any, num: int, action: ActionSpec, device: torch.device) -> Tensor:
    """Actions (N, A) float32 of what a learner gives: clipped to [-1, 1], or one-hot of whole numbers (N,).

    Raises:
        ValueError: they are of another shape, out of range, or not finite.
    """
    actions = torch.as_tensor(given, device=device)
    shape = (num,) if action.discrete else (num, action.size)
    if actions.shape != shape:
        raise ValueError(f"actions of {num} dreams are {shape}, got {tuple(actions.shape)}")
    if action.discrete:
        if actions.is_floating_point() or (actions < 0).any() or (actions >= action.size).any():
            raise ValueError(f"actions are whole numbers from 0 to {action.size - 1}, got {actions.tolist()}")
        return F.one_hot(actions.long(), action.size).float()
    if not actions.isfinite().all():
        raise ValueError(f"actions must be finite, got {actions.tolist()}")
    return actions.float().clamp(-1, 1)


def moved(world_model: WorldModel, device: str | torch.device) -> WorldModel:
    """The model on a device.

    Raises:
        UserError: there is no such device.
    """
    try:
        return world_model.to(device)
    except (RuntimeError, AssertionError) as cause:  # torch's, where a device is unknown, or CUDA is not compiled in
        raise UserError(f"cannot dream on {device}: {one_line(cause)}") from cause

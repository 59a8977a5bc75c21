"""What was learned in dreams, in the hands of a ``Controller``: it can then drive real environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.control.controller import Controller
from worldmodel.dream.observation import DreamObservation, LatentFeature
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, LatentState

Predict = Callable[[np.ndarray], np.ndarray]  # observations (N, ...) -> actions (N, A), or (N,) when discrete


class FunctionController(Controller):
    """Any function from observations of latent states to actions, such as another library's policy.

    Args:
        world_model: whose latent states they are.
        action: what an action is.
        predict: observations (N, ...) to actions, (N, A) clipped to [-1, 1], or (N,) from 0 to A - 1 when discrete.
        observation: what ``predict`` is shown; the latent feature if None.
        name: under which evaluations are recorded.
    """

    def __init__(
        self,
        world_model: WorldModel,
        action: ActionSpec,
        predict: Predict,
        observation: DreamObservation | None = None,
        name: str = "function",
    ) -> None:
        super().__init__(world_model, None, action)
        self._predict, self._observation, self._name = predict, observation or LatentFeature(), name

    @property
    def name(self) -> str:
        return self._name

    @torch.no_grad()
    def act(self, state: LatentState, memory: Any, explore: bool = False) -> tuple[Tensor, Any]:
        seen = self._observation(self.world_model, state).cpu().numpy()
        action = torch.as_tensor(np.asarray(self._predict(seen)), device=state.deter.device)
        if self.action.discrete:
            return F.one_hot(action.long(), self.action.size).to(state.deter), memory
        return action.to(state.deter).clamp(-1, 1), memory

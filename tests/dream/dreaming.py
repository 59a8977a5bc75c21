"""The smallest dreams there are, and one of them as a plain environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from tests import tiny
from worldmodel.control.dreams import Dreams
from worldmodel.control.propagation import Propagation
from worldmodel.dream.vector_env import DreamVectorEnv
from worldmodel.insight.rollouts import reconstruction_error
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec

ACTION = ActionSpec(tiny.ACTION, discrete=False)


def model(**settings: Any) -> WorldModel:
    """A tiny world model, whose rewards and ends differ between states."""
    made = tiny.world_model(**settings)
    torch.nn.init.normal_(made.reward.net[-1].weight, std=0.1)  # it starts at zero
    torch.nn.init.normal_(made.cont.net[-1].weight)
    return made.eval()


def dreams(
    num: int = 4, propagation: Propagation | None = None, starts: int = 12, made: WorldModel | None = None, **how: bool
) -> Dreams:
    made = made or model()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        batch = tiny.batch(starts, 3)
        seen = made.observe(batch).state
        missed = reconstruction_error(made, seen.feature, batch.image)[:, -1]
    return Dreams(made, seen.map(lambda x: x[:, -1]), num, propagation=propagation, reconstruction=missed, **how)


def environment(num: int = 4, action: ActionSpec = ACTION, **settings: Any) -> DreamVectorEnv:
    """That ends by its horizon alone unless it is told otherwise."""
    how = {
        name: settings.pop(name)
        for name in ("propagation", "starts", "made", "mode", "uncertainty")
        if name in settings
    }
    return DreamVectorEnv(dreams(num, **how), action, **{"continue_threshold": 0.0, **settings})


class OneDream(gymnasium.Env):
    """A single dream as a plain environment, for Gymnasium's own checks and vector environments."""

    def __init__(self, **settings: Any) -> None:
        self._envs = environment(1, autoreset_mode=AutoresetMode.DISABLED, **settings)
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        self.render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        observation, infos = self._envs.reset(seed=seed)
        return observation[0], _of_one(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, infos = self._envs.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), _of_one(infos)

    def render(self) -> Any:
        return self._envs.render()[0]


def _of_one(infos: dict[str, Any]) -> dict[str, Any]:
    return {name: value[0].item() for name, value in infos.items() if not name.startswith("_")}

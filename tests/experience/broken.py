"""Environments that misbehave, and odd ones that do not."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np

from worldmodel.experience.toy import PointReach


class NanReward(PointReach):
    def step(self, action: Any) -> tuple:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("nan"), terminated, truncated, info


class NanState(gymnasium.Env):
    """State observations, drawn on demand; the third is not finite. Ends after 5 frames by itself."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(np.array([0, -3], np.float32), np.array([10, 3], np.float32))
    render_mode = "rgb_array"
    nan_at = 3

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        self.count, self.renders = 0, 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple:
        self.count, self.action = self.count + 1, action
        state = np.full(2, np.nan if self.count == self.nan_at else 0, np.float32)
        return state, 1.0, self.count == 5, False, {}

    def render(self) -> np.ndarray:
        self.renders += 1
        return np.full((32, 32, 3), self.count, np.uint8)


class Unseen(NanState):
    """Neither seen nor drawn."""

    render_mode = None  # type: ignore[assignment]


class Counter(NanState):
    """The same without the NaN."""

    nan_at = -1


class Unbounded(PointReach):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Raises(PointReach):
    def step(self, action: Any) -> tuple:
        raise ZeroDivisionError("a bug of its own")


class Dies(PointReach):
    """Kills its process at every reset."""

    def reset(self, **kwargs: Any) -> tuple:
        os._exit(7)


class Hangs(PointReach):
    """Never comes back from a step."""

    def step(self, action: Any) -> tuple:
        time.sleep(3600)
        raise AssertionError


def nothing() -> None:
    """A factory that makes no environment."""


class Odd(gymnasium.Env):
    """A picture with its channels first, as floats, beside a vector; and two discrete actions."""

    observation_space = gymnasium.spaces.Dict(
        {
            "camera": gymnasium.spaces.Box(0, 1, (3, 20, 20), np.float32),
            "speed": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        }
    )
    action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        colour = np.array([200, 40, 0], np.float32) / 255
        return {"camera": np.tile(colour[:, None, None], (1, 20, 20)), "speed": np.zeros(2, np.float32)}, {}

    def step(self, action: Any) -> tuple:
        self.action = action
        observation = {"camera": np.zeros((3, 20, 20), np.float32), "speed": np.zeros(2, np.float32)}
        return observation, 1.0, False, False, {}

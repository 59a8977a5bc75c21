"""A task whose picture hides what pays: the goal is in a vector beside it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldmodel.experience.toy import PointReach


class HiddenGoal(PointReach):
    """``PointReach`` to the left or to the right: reward ``max(0, g x)``, and which, g, stands in ``goal`` alone.

    ``joints`` (1,) is x, in float64; ``name`` is none of a model's business.
    """

    observation_space: spaces.Space = spaces.Dict(  # type: ignore[assignment]
        {
            "pixels": PointReach.observation_space,
            "joints": spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "goal": spaces.Box(-1, 1, (2,), np.float32),
            "name": spaces.Discrete(3),
        }
    )

    def _begin(self) -> np.ndarray:
        self._goal = float(self.np_random.choice([-1, 1]))
        return super()._begin()

    def _reward(self) -> float:
        return max(0.0, self._goal * float(self._point[0]))

    def _image(self) -> Any:
        return {
            "pixels": super()._image(),
            "joints": self._point[:1].copy(),
            "goal": np.array([self._goal, 0], np.float32),
            "name": 1,
        }


class NoGoal(gymnasium.ObservationWrapper):
    """The same, of which the picture alone is shown."""

    def __init__(self) -> None:
        super().__init__(HiddenGoal())
        self.observation_space = PointReach.observation_space

    def observation(self, observation: Any) -> np.ndarray:
        return observation["pixels"]

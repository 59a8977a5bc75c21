"""Tiny pixel tasks without GL, learnable in a minute: push a bright square over a dark image."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

_SIZE, _SQUARE, _SPEED, _STEPS = 16, 4, 0.2, 32
_MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)


class PointReach(gymnasium.Env):
    """A square at p in [-1, 1]^2, moved by ``0.2 * action``; reward ``max(0, 1 - |p|)``; 32 steps an episode.

    Observations (16, 16, 3) uint8: the square in red and green, drawn with partial coverage, and the centre in blue.
    ``info["state"]`` is p.
    """

    observation_space = gymnasium.spaces.Box(0, 255, (_SIZE, _SIZE, 3), np.uint8)

    def __init__(self, discrete: bool = False) -> None:
        self._discrete = discrete
        self.action_space = (
            gymnasium.spaces.Discrete(len(_MOVES)) if discrete else gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        )
        self._point, self._count = np.zeros(2), 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._point, self._count = self._begin(), 0
        return self._image(), {"state": self._point.copy()}

    def _begin(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2)

    def _speed(self) -> float:
        return _SPEED

    def _reward(self) -> float:
        return max(0.0, 1.0 - float(np.linalg.norm(self._point)))

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        move = _MOVES[int(action)] if self._discrete else np.clip(action, -1, 1)
        self._point = np.clip(self._point + self._speed() * move, -1, 1)
        self._count += 1
        return self._image(), self._reward(), False, self._count >= _STEPS, {"state": self._point.copy()}

    def _image(self) -> np.ndarray:
        image = np.zeros((_SIZE, _SIZE, 3), np.uint8)
        image[_SIZE // 2 - 1 : _SIZE // 2 + 1, _SIZE // 2 - 1 : _SIZE // 2 + 1, 2] = 255
        left = (self._point + 1) / 2 * (_SIZE - _SQUARE)
        pixel = np.arange(_SIZE)[:, None]
        cover = np.clip(np.minimum(pixel + 1, left + _SQUARE) - np.maximum(pixel, left), 0, 1)  # (16, 2): x, y
        image[:, :, :2] = np.round(255 * np.outer(cover[:, 1], cover[:, 0]))[:, :, None]
        return image


class DiscretePointReach(PointReach):
    """The same with five actions: stay, left, right, up, down."""

    def __init__(self) -> None:
        super().__init__(discrete=True)


class PointSwamp(PointReach):
    """The same square. Reward rises to the right, ``(x + 1) / 2``, but for a swamp where 0 < x < 0.5: none, and slow.

    The swamp cannot be seen. Who knows both sides of it and never went in expects to walk through.
    """

    def _begin(self) -> np.ndarray:
        left = self.np_random.random() < 0.8
        return self.np_random.uniform([-1, -1], [-0.2, 1]) if left else self.np_random.uniform([0.5, -1], [1, 1])

    def _speed(self) -> float:
        return 0.07 * _SPEED if self._in_swamp() else _SPEED

    def _reward(self) -> float:
        return 0.0 if self._in_swamp() else float(self._point[0] + 1) / 2

    def _in_swamp(self) -> bool:
        return bool(0 < self._point[0] < 0.5)


class PointAside(PointReach):
    """The same square. All reward lies to the left, ``max(0, 1 - |p - (-0.6, 0)|)``: nothing draws one to the right."""

    def _begin(self) -> np.ndarray:
        return self.np_random.uniform([-1, -1], [0, 1])

    def _reward(self) -> float:
        return max(0.0, 1.0 - float(np.linalg.norm(self._point - [-0.6, 0])))

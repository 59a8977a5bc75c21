"""One environment of a vector: answers three commands, in this process or behind a pipe. Free of torch."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from worldmodel.experience.environments import make_environment
from worldmodel.types import ActionSpec


class Reset(NamedTuple):
    """Begin the episode of this seed."""

    seed: int


class Act(NamedTuple):
    """Take one action, (A,) float32; one-hot when discrete."""

    action: np.ndarray


class Redo(NamedTuple):
    """Begin the episode of this seed and repeat its actions, (L, A), drawing only the last frame."""

    seed: int
    actions: np.ndarray


class EnvFrame(NamedTuple):
    """What an environment answers."""

    image: np.ndarray  # (3, H, W) uint8
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    frames: int = 0
    vector: np.ndarray | None = None  # (V,) float32, beside the image


class EnvHandle(Protocol):
    """A place where one environment runs. Commands are sent to all handles first, then their answers are awaited."""

    action: ActionSpec
    image_shape: tuple[int, int, int]
    vector_size: int  # V, numbers beside the image
    note: str  # of what is observed, and not used

    def send(self, command: Reset | Act | Redo) -> None: ...

    def receive(self) -> EnvFrame: ...

    def close(self) -> None: ...


class LocalEnv:
    """An environment in this process; it works when its answer is asked for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._env = make_environment(**settings)
        space = self._env.action_space
        self._discrete = isinstance(space, gymnasium.spaces.Discrete)
        self.action = ActionSpec(gymnasium.spaces.flatdim(space), self._discrete, settings.get("action_repeat", 1))
        self.note: str = self._env.get_wrapper_attr("note")
        seen = self._env.observation_space
        self.vector_size = 0
        if isinstance(seen, gymnasium.spaces.Dict):
            self.vector_size, seen = gymnasium.spaces.flatdim(seen["vector"]), seen["image"]
        self.image_shape: tuple[int, int, int] = seen.shape  # type: ignore[assignment]

    def send(self, command: Reset | Act | Redo) -> None:
        self._command = command

    def receive(self) -> EnvFrame:
        match self._command:
            case Reset(seed):
                return self._frame(self._env.reset(seed=seed)[0])
            case Act(action):
                return self._act(action)
            case Redo(seed, actions):
                return self._redo(seed, actions)

    def close(self) -> None:
        self._env.close()

    def _act(self, action: np.ndarray) -> EnvFrame:
        choice = int(np.argmax(action)) if self._discrete else action
        seen, reward, terminated, truncated, info = self._env.step(choice)
        frame = self._frame(seen)
        return frame._replace(reward=float(reward), terminated=terminated, truncated=truncated, frames=info["frames"])

    def _frame(self, seen: Any) -> EnvFrame:
        return EnvFrame(seen["image"], vector=seen["vector"]) if self.vector_size else EnvFrame(seen)

    def _redo(self, seed: int, actions: np.ndarray) -> EnvFrame:
        self._env.set_wrapper_attr("blind", len(actions) > 0)
        frame = self._frame(self._env.reset(seed=seed)[0])
        for index, action in enumerate(actions):
            self._env.set_wrapper_attr("blind", index + 1 < len(actions))
            frame = self._act(action)
        return frame

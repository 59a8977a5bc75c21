"""Several environments stepped together, in this process or in workers. Free of torch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.cores import cores
from worldmodel.experience.handle import Act, EnvFrame, EnvHandle, LocalEnv, Redo, Reset
from worldmodel.experience.rendering import Cameras, Quality
from worldmodel.experience.worker import WorkerDied, WorkerHandle

_TRIES = 3
_PROGRESS = 100  # steps after which, or the end of an episode, a worker's deaths are forgotten
_STILL = (0.0, False, False, False, False, 0)  # of an environment that is not stepped


class EnvStep(NamedTuple):
    """One moment of N environments. ``frames`` counts environment frames, action repeat included."""

    image: np.ndarray  # (N, 3, H, W) uint8
    reward: np.ndarray  # (N,) float32
    is_first: np.ndarray  # (N,) bool
    is_last: np.ndarray  # (N,) bool: the next step begins a new episode
    is_terminal: np.ndarray  # (N,) bool: last, and not for a time limit
    is_cut: np.ndarray  # (N,) bool: the worker died; the image is the one before, the reward 0
    frames: np.ndarray  # (N,) int64
    vector: np.ndarray | None = None  # (N, V) float32, beside the image


class Environments(ABC):
    """N copies of a task. After a last step, and at the very start, ``step`` ignores the action and resets instead.

    The seed of an episode comes from (seed, environment, episode), so seed and actions reproduce every state.

    Args:
        task, size, action_repeat, camera, quality, episode_frames: see ``make_environment``.
        num_envs: how many.
        seed: fixes every episode.
        first_core: environments in processes of their own take cores in turn, from this one on.

    Raises:
        UserError: the task cannot be made.
    """

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        seed: int = 0,
        *,
        size: int = 64,
        action_repeat: int = 1,
        camera: Cameras = None,
        quality: Quality = "fast",
        episode_frames: int | None = None,
        first_core: int = 0,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs is {num_envs}: it must be 1 or more")
        self.task, self.num_envs, self._seed, self._first_core = task, num_envs, seed, first_core
        self._settings: dict[str, Any] = {
            "task": task,
            "size": size,
            "action_repeat": action_repeat,
            "camera": camera,
            "quality": quality,
            "episode_frames": episode_frames,
        }
        self._handles: list[EnvHandle] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        one = self._handles[0]
        self.action, self.image_shape, self.vector_size, self.note = (
            one.action,
            one.image_shape,
            one.vector_size,
            one.note,
        )
        self._images = np.zeros((num_envs, *self.image_shape), np.uint8)
        self._vectors = np.zeros((num_envs, self.vector_size), np.float32)
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_envs)]
        self._deaths, self._alive = [0] * num_envs, [0] * num_envs  # without progress; steps since the last
        self.restart()

    @abstractmethod
    def _open(self) -> None:
        """Fill ``_handles``."""

    @abstractmethod
    def _reopen(self, index: int) -> None:
        """Replace a dead handle."""

    def restart(self) -> None:
        """Forget everything: the next step begins episode 0 everywhere, with the same seeds as the first time."""
        self._episodes = [0] * self.num_envs  # begun so far
        self._running = [False] * self.num_envs
        for actions in self._actions:
            actions.clear()

    def step(self, action: np.ndarray, active: Sequence[bool] | None = None) -> EnvStep:
        """Step every environment: action (N, A) float32 in [-1, 1], or one-hot when discrete.

        Args:
            action: of all of them.
            active: (N,) which are stepped, all if None. The others stay: the image before, and nothing else.

        Raises:
            UserError: the action, a reward or an observation is not finite, or a worker cannot be kept alive.
        """
        action = np.asarray(action, np.float32)
        if action.shape != (self.num_envs, self.action.size):
            raise ValueError(f"action is {action.shape}, not {(self.num_envs, self.action.size)}")
        if not np.isfinite(action).all():
            raise UserError("the policy gave an action that is not finite: lower the learning rate")
        chosen = [True] * self.num_envs if active is None else list(active)
        for index, handle in enumerate(self._handles):
            if chosen[index]:
                handle.send(Act(action[index]) if self._running[index] else Reset(self._episode_seed(index)))
        rows = [self._finish(i, action[i]) if chosen[i] else _STILL for i in range(self.num_envs)]
        reward, first, last, terminal, cut, frames = map(np.array, zip(*rows, strict=True))
        return EnvStep(
            image=self._images.copy(),
            reward=reward.astype(np.float32),
            is_first=first,
            is_last=last,
            is_terminal=terminal,
            is_cut=cut,
            frames=frames,
            vector=self._vectors.copy() if self.vector_size else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Lists and numpy arrays: episodes begun, whether one is running, its actions (L, A)."""
        empty = np.zeros((0, self.action.size), np.float32)
        actions = [np.stack(history) if history else empty for history in self._actions]
        return {
            "episodes": list(self._episodes),
            "running": list(self._running),
            "actions": actions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Come to the same states by playing the actions again.

        Raises:
            UserError: the state is of another number of environments, or a worker died.
        """
        if len(state["episodes"]) != self.num_envs:
            raise UserError(f"saved with {len(state['episodes'])} environments, not {self.num_envs}: keep num_envs")
        self._episodes, self._running = list(state["episodes"]), list(state["running"])
        self._actions = [list(np.asarray(actions, np.float32)) for actions in state["actions"]]
        running = [index for index in range(self.num_envs) if self._running[index]]
        for index in running:
            actions = np.asarray(state["actions"][index], np.float32)
            self._handles[index].send(Redo(self._episode_seed(index, self._episodes[index] - 1), actions))
        for index in running:
            try:
                self._take(index, self._handles[index].receive())
            except WorkerDied as death:
                raise UserError(
                    f"the worker of environment {index} died ({death}) as its episode was played again: "
                    "is memory short? Nothing is lost, resume once more"
                ) from death

    def leave(self, saved: EnvStep) -> list[int]:
        """Leave the episodes that did not come back to the images and vectors that they were saved at.

        Returns:
            Whose they are: the next step begins others there.
        """
        left = [i for i in range(self.num_envs) if self._running[i] and not self._is_back(i, saved)]
        for index in left:
            self._running[index] = False
            self._actions[index].clear()
        return left

    def close(self) -> None:
        for handle in self._handles:
            handle.close()
        self._handles = []

    def _episode_seed(self, index: int, episode: int | None = None) -> int:
        episode = self._episodes[index] if episode is None else episode
        return int(np.random.SeedSequence([self._seed, index, episode]).generate_state(1)[0])

    def _finish(self, index: int, action: np.ndarray) -> tuple[float, bool, bool, bool, bool, int]:
        """Reward, is_first, is_last, is_terminal, is_cut, frames of one environment."""
        first = not self._running[index]
        frame = self._first_frame(index) if first else self._next_frame(index)
        if frame is None:
            self._running[index] = False
            self._actions[index].clear()
            return 0.0, False, True, False, True, 0
        self._take(index, frame)
        self._alive[index] += 1
        if first:
            self._episodes[index] += 1
            self._actions[index].clear()
        else:
            self._actions[index].append(action.copy())
        last = frame.terminated or frame.truncated
        if last or self._alive[index] >= _PROGRESS:
            self._deaths[index] = 0
        self._running[index] = not last
        return frame.reward, first, last, frame.terminated, False, frame.frames

    def _take(self, index: int, frame: EnvFrame) -> None:
        self._images[index] = frame.image
        if frame.vector is not None:
            self._vectors[index] = frame.vector

    def _is_back(self, index: int, saved: EnvStep) -> bool:
        same = saved.vector is None or np.allclose(saved.vector[index], self._vectors[index], rtol=1e-3, atol=1e-5)
        return same and _alike(saved.image[index], self._images[index])

    def _next_frame(self, index: int) -> EnvFrame | None:
        try:
            return self._handles[index].receive()
        except WorkerDied as death:
            self._revive(index, death)
            return None

    def _first_frame(self, index: int) -> EnvFrame:
        """A death while resetting cuts no episode: simply try again."""
        while (frame := self._next_frame(index)) is None:
            self._handles[index].send(Reset(self._episode_seed(index)))
        return frame

    def _revive(self, index: int, death: WorkerDied) -> None:
        while True:
            self._deaths[index], self._alive[index] = self._deaths[index] + 1, 0
            if self._deaths[index] >= _TRIES:
                raise UserError(
                    f"the worker of environment {index} died {_TRIES} times without progress ({death}): "
                    "is memory short? Try fewer environments, or step them in process to see why"
                ) from death
            warnings.warn(
                f"the worker of environment {index} died ({death}); its episode is cut",
                stacklevel=4,
            )
            try:
                return self._reopen(index)
            except WorkerDied as again:
                death = again


class InProcess(Environments):
    """Environments in this process, stepped one after another: no start-up, no second busy process."""

    def _open(self) -> None:
        for _ in range(self.num_envs):
            self._handles.append(LocalEnv(self._settings))

    def _reopen(self, index: int) -> None:
        raise AssertionError("a handle in this process cannot die alone")


class Workers(Environments):
    """One process for each environment, pinned to the cores in turn; one that dies is started again."""

    _handles: list[WorkerHandle]  # type: ignore[assignment]

    def pids(self) -> list[int]:
        """The workers' process numbers."""
        return [handle.pid for handle in self._handles]

    def _open(self) -> None:
        for index in range(self.num_envs):
            self._handles.append(WorkerHandle(self._settings, self._core(index)))
        for handle in self._handles:
            try:
                handle.ready()
            except WorkerDied as death:
                raise UserError(f"an environment worker died as it started ({death}): see its message above") from death

    def _reopen(self, index: int) -> None:
        self._handles[index].close()
        self._handles[index] = WorkerHandle(self._settings, self._core(index))
        self._handles[index].ready()

    def _core(self, index: int) -> int | None:
        known = cores()
        return known[(self._first_core + index) % len(known)] if known else None


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Of the same moment, (3, H, W) uint8: another driver may draw edges a little differently."""
    return bool((np.abs(one.astype(np.int16) - other) > 32).mean() < 1e-3)

"""Any task by name, as a Gymnasium environment of (3, H, W) uint8 images and actions in [-1, 1]. Free of torch."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from worldmodel.errors import UserError, one_line
from worldmodel.experience.guard import Guard, making
from worldmodel.experience.rendering import Cameras, Quality, missing_gl, set_backend
from worldmodel.experience.spaces import actions_of, picture_of
from worldmodel.experience.tasks import from_here, register, unknown


def make_environment(
    task: str,
    *,
    size: int = 64,
    action_repeat: int = 1,
    camera: Cameras = None,
    quality: Quality = "fast",
    episode_frames: int | None = None,
) -> gymnasium.Env:
    """Build one environment.

    Args:
        task: a dm_control suite task (``cartpole_swingup``), a Gymnasium id (``Hopper-v5``; where importing a module
            registers it, ``module:ID``), or a factory ``package.module:callable`` that returns a Gymnasium environment.
        size: height and width of the images, in pixels.
        action_repeat: environment frames for each action; rewards are summed, the last frame is drawn.
        camera: name or number of a dm_control camera; by default the one that benchmarks use. Of several, views stand
            side by side in one image; a task that draws itself must then give as many views, (H, V * H, 3).
        quality: how dm_control draws, ``fast`` or ``reference`` (its own pixels).
        episode_frames: longest episode in environment frames, see ``Restarts``; the task's own limit if None.

    Returns:
        An environment with ``Box(0, 255, (3, size, V * size), uint8)`` observations of V cameras, and actions
        ``Box(-1, 1, (A,))`` (rescaled to the task's bounds) or ``Discrete``. ``info["frames"]`` counts the frames a
        step took. Where there are V numbers beside the picture an observation is a dict of ``image`` and ``vector``,
        ``Box(-inf, inf, (V,), float32)``. The seed given to ``reset`` determines the episode.

    Raises:
        UserError: the task is unknown, draws no image, or has actions of another kind.
    """
    for name, value in (("size", size), ("action_repeat", action_repeat), ("episode_frames", episode_frames)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}: it must be 1 or more")
    views = len(camera) if isinstance(camera, list) else 1
    if not views:
        raise UserError("camera is an empty list: name at least one")
    env = _build(task, size=size, camera=camera, quality=quality)
    env = Guard(env, task, action_repeat)
    env = NormalAction(PixelObservation(env, task, (size, views * size)), task)
    return env if episode_frames is None else Restarts(env, episode_frames)


def _build(task: str, size: int, camera: Cameras, quality: Quality) -> gymnasium.Env:
    """The task's own environment."""
    if _is_factory(task):
        return _from_factory(task)
    if ":" in task or register(task):
        return _from_gymnasium(task, size)
    from worldmodel.experience.suite import SuiteEnvironment, suite_tasks

    tasks = suite_tasks()
    if task in tasks:
        return SuiteEnvironment(*tasks[task], size, camera, quality)
    raise unknown(task)


def _is_factory(task: str) -> bool:
    module, colon, name = task.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _from_factory(task: str) -> gymnasium.Env:
    module, _, name = task.partition(":")
    if module.partition(".")[0] not in sys.modules:
        from_here()
    try:
        factory = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as cause:
        raise UserError(f"task {task!r}: no module {cause.name!r}; run in its folder or install it") from cause
    except AttributeError as cause:
        raise UserError(f"task {task!r}: module {module} has no {name!r}") from cause
    if inspect.isbuiltin(factory) or (inspect.isclass(factory) and not issubclass(factory, gymnasium.Env)):
        raise UserError(f"task {task!r}: {name} makes no gymnasium.Env")  # and is not called to find out
    with making(task):
        env = factory()
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"task {task!r}: it returned {type(env).__name__}, not a gymnasium.Env")
    return env


def _from_gymnasium(task: str, size: int) -> gymnasium.Env:
    if ":" in task:
        from_here()
    set_backend()
    try:
        with making(task):
            env = gymnasium.make(task)
            if picture_of(env.observation_space) is not None:
                return env
            env.close()  # to be drawn
            spec = gymnasium.spec(task)
            # MuJoCo's are drawn 480 pixels wide otherwise, which costs a CPU fifty times as much
            small: dict[str, Any] = (
                {"width": 2 * size, "height": 2 * size} if ".mujoco" in str(spec.entry_point) else {}
            )
            return gymnasium.make(task, render_mode="rgb_array", **small)
    except ModuleNotFoundError as cause:
        raise UserError(
            f"task {task!r} needs {cause.name}, which is not installed: pip install {cause.name}"
        ) from cause
    except (gymnasium.error.Error, ImportError) as cause:
        raise UserError(f"task {task!r} cannot be made: {one_line(cause)}") from cause


Seen = np.ndarray | dict[str, np.ndarray]  # an image alone, or with a vector


class PixelObservation(gymnasium.Wrapper):
    """Observations as (3, H, W) uint8, H and W = ``size``, or as a dict of such an ``image`` and a ``vector`` (V,).

    While ``blind`` nothing is drawn and the image is black. ``note`` says what of an observation is used, if not all.
    """

    def __init__(self, env: gymnasium.Env, task: str, size: tuple[int, int]) -> None:
        super().__init__(env)
        space = env.observation_space
        seen = picture_of(space)
        if seen is None and env.render_mode != "rgb_array":
            raise UserError(
                f"task {task!r} observes {space}, no picture, and cannot be drawn: its render_mode is "
                f"{env.render_mode}, not rgb_array"
            )
        self._task, self._size, self._seen, self.blind = task, size, seen, False
        self.note = "" if seen is None else seen.note
        self.observation_space = spaces.Box(0, 255, (3, *size), np.uint8)
        if seen is not None and seen.vector is not None:
            beside = spaces.Box(-np.inf, np.inf, (seen.vector_size,), np.float32)
            self.observation_space = spaces.Dict({"image": self.observation_space, "vector": beside})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Seen, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._shown(observation), info

    def step(self, action: Any) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._shown(observation), float(reward), terminated, truncated, info

    def _shown(self, observation: Any) -> Seen:
        image = self._draw(observation)
        if self._seen is None or self._seen.vector is None:
            return image
        return {"image": image, "vector": self._seen.vector(observation)}

    def _draw(self, observation: Any) -> np.ndarray:
        if self.blind:
            return np.zeros((3, *self._size), np.uint8)
        image = self._rendered() if self._seen is None else self._seen.take(observation)  # (h, w, 1 or 3)
        if image.shape[:2] != self._size:
            image = np.asarray(Image.fromarray(image.squeeze()).resize(self._size[::-1], Image.Resampling.BOX))
        image = image.reshape(*self._size, -1)
        return np.ascontiguousarray(np.broadcast_to(image, (*self._size, 3)).transpose(2, 0, 1))

    def _rendered(self) -> np.ndarray:
        try:
            return self.env.render()  # type: ignore[return-value]
        except (gymnasium.error.Error, ImportError) as cause:  # a drawing library is missed only now
            raise UserError(f"task {self._task!r} cannot be drawn: {one_line(cause)}") from cause
        except (AttributeError, RuntimeError) as cause:  # as PyOpenGL fails
            raise missing_gl(cause) from cause


class Restarts(gymnasium.Wrapper):
    """Ends episodes early, as a time limit.

    Where a task begins in many states, more of them are seen, and an actor that has settled into a poor habit (sitting,
    say) does not fill the replay with it.

    Args:
        frames: longest episode in environment frames.
    """

    def __init__(self, env: gymnasium.Env, frames: int) -> None:
        super().__init__(env)
        self._frames, self._left = frames, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        self._left = self._frames
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._left -= info["frames"]
        return observation, reward, terminated, truncated or self._left <= 0, info


class NormalAction(gymnasium.Wrapper):
    """Actions as (A,) float32 in [-1, 1], clipped and rescaled; or one choice, from zero. See ``actions_of``."""

    def __init__(self, env: gymnasium.Env, task: str) -> None:
        super().__init__(env)
        self.action_space, self._translate = actions_of(env.action_space, task)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self.env.step(self._translate(action))

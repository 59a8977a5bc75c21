"""What an environment answers is looked at before it is believed; what it raises becomes one line."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldmodel.errors import UserError, one_line
from worldmodel.experience.spaces import picture_of

_OURS = (130, 143)  # exit codes of a second Ctrl-C or SIGTERM, which no environment has raised


class Guard(gymnasium.Wrapper):
    """Repeats actions, and stops at the first answer that is not of Gymnasium's kind or not finite.

    Sits below rendering: one render an action. Errors name task, episode and step, and keep the traceback.
    """

    def __init__(self, env: gymnasium.Env, task: str, repeat: int) -> None:
        super().__init__(env)
        self._task, self._repeat, self._count, self._episode = task, repeat, 0, 0
        self._sight = picture_of(env.observation_space)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        self._count, self._episode = 0, self._episode + 1
        with self._faults("reset"):
            answer = self.env.reset(seed=seed, options=options)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._wrong(f"reset gave {_kind(answer)}, not (observation, info): is it of the old Gym API?")
        observation, info = answer
        self._look_at(observation)
        return observation, {**self._dict(info), "frames": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total, frames = 0.0, 0
        while frames < self._repeat:
            frames += 1
            self._count += 1
            with self._faults("step"):
                answer = self.env.step(action)
            if not isinstance(answer, tuple) or len(answer) != 5:
                raise self._wrong(
                    f"step gave {_kind(answer)}, not (observation, reward, terminated, truncated, info): "
                    "is it of the old Gym API?"
                )
            observation, reward, terminated, truncated, info = answer
            total = self._number(total + self._number(reward))
            terminated, truncated = self._flag(terminated, "terminated"), self._flag(truncated, "truncated")
            info = self._dict(info)
            self._look_at(observation)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, {**info, "frames": frames}

    def render(self) -> Any:
        """The picture, (H, W, 3) uint8."""
        missing: tuple[type[Exception], ...] = (gymnasium.error.Error, ImportError)  # a library: said elsewhere
        if self.env.spec is not None and ".mujoco" in str(self.env.spec.entry_point):
            missing += (AttributeError, RuntimeError)  # as PyOpenGL fails
        with self._faults("render", but=missing):
            picture = self.env.render()
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise self._wrong(f"render gave {_kind(picture)}, not a uint8 picture (H, W, 3)")
        return array

    def close(self) -> None:
        try:
            self.env.close()
        except Exception as cause:  # there is nothing left to lose
            warnings.warn(f"task {self._task!r} failed in close: {_named(cause)}", stacklevel=2)

    @contextmanager
    def _faults(self, doing: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except UserError as cause:
            raise UserError(f"task {self._task!r}, {self._where()}: {cause}") from cause
        except (Exception, SystemExit) as cause:
            if isinstance(cause, SystemExit) and cause.code in _OURS:
                raise
            error = self._wrong(f"{doing} raised {_named(cause)}")
            error.details = traceback.format_exc()
            raise error from cause

    def _where(self) -> str:
        return f"episode {self._episode}, step {self._count}"

    def _wrong(self, what: str) -> UserError:
        return UserError(f"task {self._task!r}, {self._where()}: {what}")

    def _number(self, reward: Any) -> float:
        array = np.asarray(reward)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise self._wrong(f"the reward is {_kind(reward)}, not a number")
        value = float(array.reshape(()))
        if not np.isfinite(value):
            raise self._not_finite("reward")
        if abs(value) > float(np.finfo(np.float32).max):
            raise self._wrong(f"the reward is {value:g}, which is more than float32 holds")
        return value

    def _flag(self, value: Any, what: str) -> bool:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biu":
            raise self._wrong(f"{what} is {_kind(value)}, not a bool")
        return bool(array.reshape(()))

    def _dict(self, info: Any) -> dict[str, Any]:
        if not isinstance(info, dict):
            raise self._wrong(f"info is {_kind(info)}, not a dict")
        return info

    def _look_at(self, observation: Any) -> None:
        self._check(observation, self.env.observation_space, "observation")
        if self._sight is not None and (what := self._sight.wrong(observation)):
            raise self._wrong(f"the picture's numbers are {what}")
        beside = None if self._sight is None else self._sight.vector
        if beside is not None and not np.isfinite(beside(observation)).all():  # as float64 it was
            raise self._wrong("a number beside the picture is more than float32 holds")

    def _check(self, value: Any, space: spaces.Space, what: str) -> None:
        """Of the shape and the kind that its space says, and finite."""
        if isinstance(space, spaces.Dict):
            if not isinstance(value, dict) or value.keys() != space.spaces.keys():
                raise self._wrong(f"the {what} is {_kind(value)}, not a dict of {', '.join(space.spaces)}")
            for name, part in space.spaces.items():
                self._check(value[name], part, f"{what} {name}")
        elif isinstance(space, spaces.Box):
            array = np.asarray(value)
            if array.shape != space.shape or not np.can_cast(array.dtype, space.dtype, "same_kind"):
                raise self._wrong(f"the {what} is {_kind(value)}, not {space.dtype} {space.shape} as its space says")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise self._not_finite(what)

    def _not_finite(self, what: str) -> UserError:
        return UserError(
            f"task {self._task!r} gave a {what} that is not finite at step {self._count} of episode {self._episode}: "
            "mend it"
        )


@contextmanager
def making(task: str) -> Iterator[None]:
    """Inside, somebody's environment is made.

    Raises:
        UserError: that raised an error, or ended the process.
    """
    try:
        yield
    except (UserError, gymnasium.error.Error, ImportError):
        raise
    except (Exception, SystemExit) as cause:
        if isinstance(cause, SystemExit) and cause.code in _OURS:
            raise
        error = UserError(f"task {task!r} cannot be made: {_named(cause)}")
        error.details = traceback.format_exc()
        raise error from cause


def _kind(value: Any) -> str:
    """What something is, in few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{value!r:.40}" if isinstance(value, int | float | complex | str | None) else type(value).__name__


def _named(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {one_line(cause)}"

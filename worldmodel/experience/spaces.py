"""Observations and actions that people have: as pictures (H, W, C) and vectors (V,), and as what a policy gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from worldmodel.errors import UserError

_LEAST = 12  # pixels of a side: what is smaller is a map or a vector, and no picture
_MOST = 16  # frames in a stack
_NAMES = ("image", "pixels", "rgb", "observation")  # of the picture in a Dict, the likeliest first
_COMBINATIONS = 64  # of several discrete actions, that are still one choice


class Sight(NamedTuple):
    """How to take the picture out of an observation, and what there is to say of it."""

    take: Callable[[Any], np.ndarray]  # (H, W, 1 or 3) uint8
    note: str = ""
    wrong: Callable[[Any], str] = lambda _: ""  # what its numbers are, where they are not what its space says
    vector_size: int = 0  # V
    vector: Callable[[Any], np.ndarray] | None = None  # (V,) float32, what it shows beside the picture


def picture_of(space: spaces.Space) -> Sight | None:
    """How to see an observation as a picture; None where it holds none.

    Numbers of any type in [0, 1], [-1, 1] or [0, 255]. Grey, RGB, RGBA (transparency is dropped), channels last or
    first. Of a stack of frames the newest is taken, for the model has a memory of its own: (k, H, W), (k, H, W, C), or
    3 k channels. Of a Dict one picture, and all vectors of floats beside it as one, in the order of their names.
    """
    if isinstance(space, spaces.Dict):
        return _in_dict(space)
    if not isinstance(space, spaces.Box):
        return None
    if (layout := _layout(space.shape)) is None or (scale := _scale(space)) is None:
        return None
    take, note = layout
    return Sight(lambda observation: scale(take(np.asarray(observation))), note, _Numbers(space))


def _in_dict(space: spaces.Dict) -> Sight | None:
    found = {name: picture for name, each in space.spaces.items() if (picture := picture_of(each)) is not None}
    if not found:
        return None
    name = next((name for name in _NAMES if name in found), next(iter(found)))
    beside = sorted(other for other, each in space.spaces.items() if _is_vector(each))
    size = sum(spaces.flatdim(space[other]) for other in beside)
    used = f"{', '.join([name, *beside])} ({size} numbers beside the picture)" if size else f"only {name}"
    rest = ", ".join(other for other in space.spaces if other not in (name, *beside))
    notes = [found[name].note]
    if size or rest:
        notes.append(f"of what it observes {used} {'are' if size else 'is'} used{f', not {rest}' if rest else ''}")
    seen = found[name]
    return Sight(
        lambda observation: seen.take(observation[name]),
        "; ".join(filter(None, notes)),
        lambda observation: seen.wrong(observation[name]),
        vector_size=size,
        vector=(lambda observation: _joined([observation[other] for other in beside])) if size else None,
    )


def _is_vector(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"


def _joined(vectors: list[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # which is looked for
        return np.concatenate([np.asarray(vector).astype(np.float32) for vector in vectors])


class _Numbers:
    """Looks whether the numbers of pictures are within their space, and not in [0, 1] where it says 255.

    Dark ones may come first; once one was brighter than that, all are believed.
    """

    def __init__(self, space: spaces.Box) -> None:
        self._low, self._high = float(space.low.min()), float(space.high.max())
        self._dtype, self._slack = space.dtype, 0.1 * (self._high - self._low)
        self._believed = space.dtype.kind != "f" or self._high <= 1

    def __call__(self, observation: Any) -> str:
        picture = np.asarray(observation)
        if picture.dtype == self._dtype == np.uint8 and self._high == 255:
            return ""
        least, most = float(picture.min()), float(picture.max())
        if least < self._low - self._slack or most > self._high + self._slack:
            return f"from {least:g} to {most:g}, and its space says {self._low:g} to {self._high:g}"
        if not self._believed and 0 < most <= 1:
            return f"from {least:g} to {most:g}, nearly black, and its space says 0 to 255: give it a high of 1"
        self._believed = self._believed or most > 1
        return ""


def _scale(space: spaces.Box) -> Callable[[np.ndarray], np.ndarray] | None:
    low, high = float(space.low.min()), float(space.high.max())
    if low >= 0 and 0 < high <= 1:
        return lambda x: (255 * np.clip(x, 0, 1) + 0.5).astype(np.uint8)
    if space.dtype == np.uint8:
        return lambda x: x.astype(np.uint8, copy=False)
    if low == -1 and high == 1:
        return lambda x: (127.5 * (np.clip(x, -1, 1) + 1) + 0.5).astype(np.uint8)
    if low >= 0 and high <= 255:
        return lambda x: (np.clip(x, 0, 255) + 0.5).astype(np.uint8)
    return None


def _layout(shape: tuple[int, ...]) -> tuple[Callable[[np.ndarray], np.ndarray], str] | None:
    """What makes (H, W, 1 or 3) of an array of this shape, and a note."""
    if len(shape) == 4 and shape[0] <= _MOST and (inner := _layout(shape[1:])) is not None:
        take = inner[0]
        return lambda x: take(x[-1]), _newest(shape[0])
    if len(shape) == 2 and _is_large(shape):
        return lambda x: x[:, :, None], ""
    if len(shape) != 3:
        return None
    if _is_large(shape[:2]) and (inner := _channels(shape[2])) is not None:
        return inner
    if _is_large(shape[1:]) and (shape[0] != 4 and (inner := _channels(shape[0])) is not None):
        take = inner[0]
        return lambda x: take(x.transpose(1, 2, 0)), inner[1]
    if _is_large(shape[1:]) and shape[0] == 4:  # grey frames, rather than RGBA with its channels first
        return lambda x: x[-1, :, :, None], _newest(4)
    return None


def _channels(count: int) -> tuple[Callable[[np.ndarray], np.ndarray], str] | None:
    """What makes 1 or 3 channels of the last axis."""
    if count in (1, 3):
        return lambda x: x, ""
    if count == 4:
        return lambda x: x[:, :, :3], "of RGBA images the transparency is dropped"
    if count % 3 == 0 and count <= 3 * _MOST:
        return lambda x: x[:, :, -3:], _newest(count // 3)
    return (lambda x: x[:, :, -1:], _newest(count)) if count <= _MOST else None


def _newest(count: int) -> str:
    return f"of {count} stacked frames the newest is used: the model has a memory"


def _is_large(sides: tuple[int, ...]) -> bool:
    return min(sides) >= _LEAST


class Actions(NamedTuple):
    """What a policy chooses from, and what the environment is given then."""

    space: spaces.Box | spaces.Discrete  # in [-1, 1], (A,) float32; or from zero
    translate: Callable[[Any], Any]


def actions_of(space: spaces.Space, task: str) -> Actions:
    """A task's actions as one vector in [-1, 1] or one choice.

    Several discrete actions (MultiDiscrete, MultiBinary) are one choice of all their combinations if these are few,
    or else a number in [-1, 1] for each, cut into as many equal parts as it has values.

    Raises:
        UserError: they are of another kind, or a Box has no bounds.
    """
    if isinstance(space, spaces.Discrete):
        start = space.start
        return Actions(spaces.Discrete(int(space.n)), lambda action: start + int(action))
    if isinstance(space, spaces.MultiBinary):
        return _several(np.full(int(np.prod(space.shape)), 2), np.zeros(1, np.int64), space)
    if isinstance(space, spaces.MultiDiscrete):
        return _several(space.nvec.reshape(-1), space.start.reshape(-1), space)
    if not isinstance(space, spaces.Box):
        raise UserError(f"task {task!r} takes actions {space}: known are Box, Discrete, MultiDiscrete, MultiBinary")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(
            f"task {task!r} takes actions {space} without bounds: only a bounded Box can be scaled to [-1, 1]; give it "
            "a finite low and high, or wrap it in gymnasium.wrappers.RescaleAction"
        )
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)

    def scaled(action: Any) -> np.ndarray:
        unit = (np.clip(action, -1, 1).astype(np.float64).reshape(low.shape) + 1) / 2
        return (low + unit * (high - low)).astype(space.dtype)

    return Actions(spaces.Box(-1, 1, (int(np.prod(space.shape)),), np.float32), scaled)


def _several(counts: np.ndarray, start: np.ndarray, space: spaces.Space) -> Actions:
    """Discrete actions (n,) with so many values each."""
    sizes = tuple(int(count) for count in counts)

    def made(values: Any) -> np.ndarray:
        return (np.asarray(values) + start).reshape(space.shape).astype(space.dtype)

    if (total := int(np.prod(np.array(sizes, object)))) <= _COMBINATIONS:
        return Actions(spaces.Discrete(total), lambda action: made(np.unravel_index(int(action), sizes)))

    def cut(action: Any) -> np.ndarray:
        share = (np.clip(action, -1, 1).astype(np.float64) + 1) / 2
        return made(np.minimum((share * counts).astype(np.int64), counts - 1))

    return Actions(spaces.Box(-1, 1, (len(sizes),), np.float32), cut)

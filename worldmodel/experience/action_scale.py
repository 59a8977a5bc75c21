"""Actions of data from elsewhere: in [-1, 1] for the model, and back in the units that they were recorded in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import UserError

_ROUNDING = 1e-4  # of a box's width: what a number of less precision may lie outside


class ActionScale(NamedTuple):
    """A box of actions, or so many choices. ``source`` says who said so: file, option, data, or unit."""

    low: tuple[float, ...]  # (A,)
    high: tuple[float, ...]  # (A,)
    discrete: bool = False
    start: int = 0  # the number of the first choice
    source: str = "unit"

    @property
    def size(self) -> int:
        """A: how many numbers an action is to the model."""
        return len(self.low)

    @classmethod
    def box(cls, low: Any, high: Any, source: str) -> ActionScale:
        """Of limits (A,)."""
        lows, highs = (tuple(float(x) for x in np.asarray(limit).reshape(-1)) for limit in (low, high))
        return cls(lows, highs, source=source)

    @classmethod
    def choices(cls, count: int, start: int, source: str) -> ActionScale:
        """So many choices, counted from ``start``; one-hot to the model."""
        return cls((0.0,) * count, (1.0,) * count, discrete=True, start=start, source=source)

    def scaled(self, action: np.ndarray, where: str) -> np.ndarray:
        """Recorded actions (T, ...) as (T, A) float32, in [-1, 1] or one-hot.

        Raises:
            UserError: they are of another size, not finite, or outside the box; ``where`` they stand.
        """
        if self.discrete:
            return self._one_hot(action, where)
        flat = np.asarray(action, np.float64).reshape(len(action), -1)  # (T, A)
        if flat.shape[1] != self.size:
            raise UserError(f"{where} has actions of {flat.shape[1]} numbers, not {self.size} as the others")
        if not np.isfinite(flat).all():
            raise UserError(f"{where} has an action that is not finite, at step {_first(~np.isfinite(flat))}")
        low, high = np.array(self.low), np.array(self.high)
        width = high - low
        wrong = (flat < low - _ROUNDING * width) | (flat > high + _ROUNDING * width)
        if wrong.any():
            step, which = np.argwhere(wrong)[0]
            raise UserError(
                f"{where} has an action of {flat[step, which]:g} at step {step}, outside [{low[which]:g}, "
                f"{high[which]:g}] ({_SAID[self.source]}): --low and --high say another box"
            )
        unit = np.divide(flat - low, width, out=np.full_like(flat, 0.5), where=width > 0)
        return np.clip(2 * unit - 1, -1, 1).astype(np.float32)

    def original(self, action: np.ndarray) -> np.ndarray:
        """Actions of a policy (..., A) as they were recorded: (..., A) in the box, or choices (...,).

        Choices may be one-hot or, as ``SinglePolicy`` gives them, numbers from zero.
        """
        if self.discrete:
            array = np.asarray(action)
            return (array.argmax(-1) if array.ndim and array.shape[-1] == self.size > 1 else array) + self.start
        low, high = np.array(self.low), np.array(self.high)
        return low + (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2 * (high - low)

    def _one_hot(self, action: np.ndarray, where: str) -> np.ndarray:
        array = np.asarray(action)
        if array.ndim == 2 and array.shape[1] == self.size > 1:  # one-hot already
            index = array.argmax(1) + self.start
        else:
            index = array.reshape(len(array), -1)[:, 0] if array.size == len(array) else np.full(len(array), np.nan)
        index = index - self.start
        wrong = ~((index >= 0) & (index < self.size) & (index == np.floor(index)))
        if wrong.any():
            raise UserError(f"{where} has an action that is none of {self.size} choices, at step {_first(wrong)}")
        return np.eye(self.size, dtype=np.float32)[index.astype(np.int64)]


_SAID = {"file": "the file's box", "option": "as given", "data": "the data's own range", "unit": "the usual box"}


def measured(actions: Iterable[np.ndarray]) -> ActionScale:
    """The scale of actions (T, ...) of which nobody says the box: [-1, 1] if they lie in it, else their own range.

    Whole numbers (T,) of an integer type are choices, and so are vectors that are all one-hot.

    Raises:
        UserError: there are none, or they are of several sizes or not finite.
    """
    low: np.ndarray | None = None
    high = np.zeros(0)
    kinds: set[str] = set()
    for number, action in enumerate(actions):
        array = np.asarray(action)
        if not array.size:
            continue
        flat = array.reshape(len(array), -1).astype(np.float64)  # (T, A)
        if not np.isfinite(flat).all():
            raise UserError(f"episode {number} has an action that is not finite, at step {_first(~np.isfinite(flat))}")
        if low is not None and flat.shape[1] != len(low):
            raise UserError(f"episode {number} has actions of {flat.shape[1]} numbers, not {len(low)} as the others")
        kinds.add(_kind(array, flat))
        least, most = flat.min(0), flat.max(0)
        low, high = (least, most) if low is None else (np.minimum(low, least), np.maximum(high, most))
    if low is None:
        raise UserError("there is no episode with an action in it")
    if kinds == {"choice"}:
        return ActionScale.choices(int(high[0]) + 1, 0, "data")
    if kinds == {"one-hot"}:
        return ActionScale.choices(len(low), 0, "data")
    if (low >= -1).all() and (high <= 1).all():
        return ActionScale.box(-np.ones(len(low)), np.ones(len(low)), "unit")
    return ActionScale.box(low, high, "data")


def given_box(low: Sequence[float], high: Sequence[float], actions: Iterable[np.ndarray]) -> ActionScale:
    """A box that somebody gives: a limit for each number of an action, or one for all.

    Raises:
        UserError: they are not as many as actions have numbers, or a low is not below its high.
    """
    size = next((array[0].size for x in actions if len(array := np.asarray(x))), 1)
    limits = {}
    for name, given in (("low", low), ("high", high)):
        if len(given) not in (1, size):
            raise UserError(
                f"--{name} has {len(given)} numbers and an action {size}: give one for each, or one for all"
            )
        limits[name] = np.broadcast_to(np.array(given, np.float64), size)
    if not (np.isfinite([*low, *high]).all() and (limits["low"] < limits["high"]).all()):
        raise UserError(f"--low {list(low)} is not below --high {list(high)}")
    return ActionScale.box(limits["low"], limits["high"], "option")


def _kind(array: np.ndarray, flat: np.ndarray) -> str:
    if array.dtype.kind in "iu" and flat.shape[1] == 1 and flat.min() >= 0:
        return "choice"
    is_one_hot = flat.shape[1] > 1 and ((flat == 0) | (flat == 1)).all() and (flat.sum(1) == 1).all()
    return "one-hot" if is_one_hot else "box"


def _first(wrong: np.ndarray) -> int:
    return int(np.argwhere(wrong)[0][0])

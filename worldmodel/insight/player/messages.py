"""What page and notebook ask of a session, and its answers: plain data and raw bytes, one answer to each message.

``hello`` -> ``setup``; ``strip`` (episode) -> ``strip`` and pictures; ``reset`` (episode, record), ``step`` (who,
action) and ``show`` (the real frame again) -> ``frame`` and two or three uint8 pictures: dream (h, w, 3), overlay
(h, w), where 255 is the session's ``strong``, and truth (H, W, 3).
What cannot be done is answered by ``error`` and a line of text.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from worldmodel.errors import UserError, one_line
from worldmodel.insight.player.session import ME, Frame, PlayerSession

Answer = tuple[dict[str, Any], list[bytes]]

_THUMBNAILS, _SIDE = 12, 64
_LONGEST = 64  # letters of a name


def answer(session: PlayerSession, message: Any) -> Answer:
    """Do what a message asks. Raises only what is a bug."""
    given = message if isinstance(message, Mapping) else {}
    view = None
    try:
        view = None if given.get("view") is None else _name(given, "view")
        kind = given.get("type")
        asked = _ANSWERS.get(kind) if isinstance(kind, str) else None
        if asked is None:
            raise ValueError(f"a message has one of the types {', '.join(_ANSWERS)}")
        content, buffers = asked(session, given)
    except (UserError, ValueError, OverflowError) as cause:  # the last from numbers that are too large
        content, buffers = {"type": "error", "text": one_line(cause)}, []
    return {**content, "view": view}, buffers


def _setup(session: PlayerSession, message: Mapping[str, Any]) -> Answer:
    episodes = [
        {
            "name": e.name,
            "records": len(e.image),
            "return": _number(float(e.reward.sum())),
            "real": e.number is not None,
        }
        for e in session.episodes
    ]
    content = {
        "type": "setup",
        "action": session.action._asdict(),
        "drivers": [ME, *session.controllers],
        "episodes": episodes,
        "strong": _number(session.strong),
        "name": session.name,
    }
    return content, []


def _strip(session: PlayerSession, message: Mapping[str, Any]) -> Answer:
    """Some pictures of an episode, evenly from its first record to the last that a dream can begin in."""
    index = _whole(message, "episode")
    if not 0 <= index < len(session.episodes):
        raise ValueError(f"episode must be from 0 to {len(session.episodes) - 1}, got {index}")
    image = session.episodes[index].image
    last = len(image) - 2
    records = sorted({round(x) for x in np.linspace(0, last, _THUMBNAILS)})
    every = -(-image.shape[-1] // _SIDE)
    small = image[records, :, ::every, ::every].transpose(0, 2, 3, 1)  # (N, h, w, 3)
    size = list(small.shape[1:3])
    return {"type": "strip", "episode": index, "records": records, "size": size}, [x.tobytes() for x in small]


def _reset(session: PlayerSession, message: Mapping[str, Any]) -> Answer:
    episode, record = _whole(message, "episode"), _whole(message, "record")
    content, buffers = _frame(session.reset(episode, record), session.strong)
    return {**content, "episode": episode, "record": record}, buffers


def _step(session: PlayerSession, message: Mapping[str, Any]) -> Answer:
    who, action = _name({"who": ME, **message}, "who"), message.get("action")
    numbers = isinstance(action, list) and all(isinstance(x, int | float) for x in action)
    if action is not None and not numbers:
        raise ValueError(f"an action is a list of numbers, got {reprlib.repr(action)}")
    session.drive(who)
    return _frame(session.step(action), session.strong)


def _show(session: PlayerSession, message: Mapping[str, Any]) -> Answer:
    return _frame(session.show(), session.strong)


def _frame(frame: Frame, strong: float) -> Answer:
    heat = (255 * (frame.spread / strong).clip(0, 1)).round().astype(np.uint8)
    buffers = [np.ascontiguousarray(frame.image).tobytes(), heat.tobytes()]
    if frame.truth is not None:
        buffers.append(np.ascontiguousarray(frame.truth).tobytes())
    judged = frame.judgement
    content = {
        "type": "frame",
        "step": frame.step,
        "size": list(frame.image.shape[:2]),
        "truth": None if frame.truth is None else list(frame.truth.shape[:2]),
        "action": [_number(float(x)) for x in frame.action],
        "who": frame.driver,
        "reward": _number(frame.reward),
        "real": None if frame.real_reward is None else _number(frame.real_reward),
        "uncertainty": _number(frame.uncertainty),
        "spread": _number(float(frame.spread.mean())),
        "cont": _number(frame.cont),
        "ended": frame.ended,
        "error": None if frame.error is None else _number(frame.error),
        "behind": frame.behind,
        "lost": frame.lost,
        "judged": judged and {name: _number(x) for name, x in judged._asdict().items()},
    }
    return content, buffers


_ANSWERS: dict[str, Callable[[PlayerSession, Mapping[str, Any]], Answer]] = {
    "hello": _setup,
    "strip": _strip,
    "reset": _reset,
    "step": _step,
    "show": _show,
}


def _whole(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {reprlib.repr(value)}")
    return value


def _name(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"{name} must be a name, got {reprlib.repr(value)}")
    return value


def _number(value: float) -> float | None:
    """JSON has no word for what is not finite."""
    return value if math.isfinite(value) else None

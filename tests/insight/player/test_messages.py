from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.insight.player.conftest import CHOICES, make_session
from worldmodel.insight.player.messages import answer
from worldmodel.insight.player.server import pack

RESET = {"type": "reset", "episode": 0, "record": 4}


def test_a_conversation() -> None:
    session, plain = make_session(), make_session()
    setup, nothing = answer(session, {"type": "hello", "view": "x"})
    assert setup["view"] == "x" and setup["name"] == session.name and not nothing
    assert setup["action"] == {"size": 2, "discrete": False, "repeat": 1} and setup["drivers"] == [
        "me",
        "actor",
        "planner",
    ]
    assert [(e["name"], e["records"]) for e in setup["episodes"]] == [("random 1", 33), ("random 2", 33)]

    strip, pictures = answer(session, {"type": "strip", "episode": 1})
    assert strip["records"][0] == 0 and strip["records"][-1] == 31 and len(strip["records"]) == len(pictures) == 12
    third = session.episodes[1].image[strip["records"][2]].transpose(1, 2, 0)
    assert strip["size"] == [16, 16] and pictures[2] == third.tobytes()

    plain.reset(0, 4)
    frame, buffers = answer(session, RESET)
    assert frame["step"] == 0 and frame["truth"] == [16, 16] and len(buffers) == 3
    for who, action in (("me", [0.5, -1]), ("actor", None), ("planner", [9, 9])):
        plain.drive(who)
        wanted = plain.step(action)
        frame, (dream, heat, truth) = answer(session, {"type": "step", "who": who, "action": action})
        assert frame["who"] == who and frame["reward"] == wanted.reward and frame["real"] == wanted.real_reward
        assert dream == wanted.image.tobytes() and wanted.truth is not None and truth == wanted.truth.tobytes()
        share = np.frombuffer(heat, np.uint8).reshape(16, 16) / 255
        np.testing.assert_allclose(share, (wanted.spread / session.strong).clip(0, 1), atol=0.003)
        assert frame["action"] == wanted.action.tolist()


def test_the_end_of_the_real_episode_is_told() -> None:
    session = make_session(CHOICES)
    answer(session, RESET | {"record": 31})
    step = {"type": "step", "who": "me", "action": [0, 1, 0, 0, 0]}
    last, pictures = answer(session, step)
    assert last["ended"] and last["truth"] == [16, 16] and len(pictures) == 3
    after, pictures = answer(session, step)
    assert after["ended"] and after["truth"] is None and after["real"] is None and len(pictures) == 2


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (None, "a message has one of the types hello, strip, reset, step"),
        (["step"], "a message has one of the types"),
        ({"type": ["step"]}, "a message has one of the types"),
        (RESET | {"record": "4"}, "record must be a whole number, got '4'"),
        (RESET | {"episode": True}, "episode must be a whole number, got True"),
        (RESET | {"episode": 10**400}, "episode must be from 0 to 1"),
        ({"type": "strip", "episode": 2}, "episode must be from 0 to 1, got 2"),
        ({"type": "step", "who": 3}, "who must be a name, got 3"),
        ({"type": "step", "who": "actr"}, "did you mean actor"),
        ({"type": "step", "action": "left"}, "an action is a list of numbers, got 'left'"),
        ({"type": "step", "action": [1, "2"]}, "an action is a list of numbers"),
        ({"type": "step", "action": [1, None]}, "an action is a list of numbers"),
        ({"type": "step", "action": [1.0]}, "an action is 2 finite numbers"),
        ({"type": "step", "action": [1.0, float("nan")]}, "an action is 2 finite numbers"),
        ({"type": "step", "action": [10**400, 0]}, "too large"),
        ({"type": "step"}, "you drive: give an action"),
    ],
)
def test_mistakes_are_answered(message: Any, text: str) -> None:
    session = make_session()
    session.reset()
    content, buffers = answer(session, message)
    assert content["type"] == "error" and text in content["text"] and not buffers
    assert answer(session, {"type": "step", "action": [0, 0]})[0]["type"] == "frame"


def test_packed_bytes_can_be_told_apart() -> None:
    data = pack({"type": "frame", "real": None}, [b"abc", b"", b"de"])
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    assert head == {"content": {"type": "frame", "real": None}, "sizes": [3, 0, 2]}
    assert data[4 + length :] == b"abcde"
    with pytest.raises(ValueError):
        pack({"reward": float("nan")}, [])  # no browser reads that

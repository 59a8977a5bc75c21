"""Observations and actions that people have."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from tests.experience import broken
from worldmodel.errors import UserError
from worldmodel.experience.environments import make_environment
from worldmodel.experience.spaces import actions_of, picture_of

SIDE = 20
RED = np.broadcast_to(np.array([200, 40, 0], np.uint8), (SIDE, SIDE, 3))
GREY, OLD = RED[:, :, 0], np.zeros((SIDE, SIDE), np.uint8)
FLAT = np.broadcast_to(GREY[:, :, None], (SIDE, SIDE, 1))
FIRST = RED.transpose(2, 0, 1)


def box(value: np.ndarray, low: float = 0, high: float = 255) -> spaces.Box:
    return spaces.Box(low, high, value.shape, value.dtype.type)


@pytest.mark.parametrize(
    ("value", "low", "high", "expected", "note"),
    [
        (RED, 0, 255, RED, ""),
        (GREY, 0, 255, FLAT, ""),
        (FLAT, 0, 255, FLAT, ""),
        (FIRST, 0, 255, RED, ""),
        (GREY[None], 0, 255, FLAT, ""),
        (np.concatenate([RED, FLAT], 2), 0, 255, RED, "transparency"),
        ((RED / 255).astype(np.float32), 0, 1, RED, ""),
        ((FIRST / 127.5 - 1).astype(np.float64), -1, 1, RED, ""),
        (RED.astype(np.float32), 0, 255, RED, ""),
        (RED.astype(np.int64), 0, 255, RED, ""),
        (np.stack([OLD, OLD, OLD, GREY]), 0, 255, FLAT, "4 stacked frames the newest"),
        (np.stack([OLD, GREY]), 0, 255, FLAT, "2 stacked"),
        (np.stack([OLD, OLD, OLD, OLD, GREY], 2), 0, 255, FLAT, "5 stacked"),
        (np.concatenate([0 * RED, RED], 2), 0, 255, RED, "2 stacked"),
        (np.concatenate([0 * FIRST, FIRST]), 0, 255, RED, "2 stacked"),
        (np.stack([0 * RED, 0 * RED, RED]), 0, 255, RED, "3 stacked"),
        (np.stack([0 * FIRST, FIRST]), 0, 255, RED, "2 stacked"),
    ],
)
def test_pictures(value: np.ndarray, low: float, high: float, expected: np.ndarray, note: str) -> None:
    seen = picture_of(box(value, low, high))
    assert seen is not None and (note in seen.note if note else not seen.note)
    image = seen.take(value)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (SIDE, SIDE, 3), np.float32),
        spaces.Box(0, 1, (17,), np.float32),
        spaces.Box(0, 255, (7, 7, 3), np.uint8),  # a map of small numbers
        spaces.Box(0, 255, (SIDE, SIDE, SIDE), np.uint8),
        spaces.Dict({"state": spaces.Box(-1, 1, (3,), np.float32)}),
        spaces.Discrete(3),
        spaces.Tuple([box(RED)]),
    ],
)
def test_what_is_no_picture(space: spaces.Space) -> None:
    assert picture_of(space) is None


def test_the_picture_in_a_dict_and_the_vectors_beside_it() -> None:
    vector = spaces.Box(-1, 1, (3,), np.float64)
    beside = {"state": vector, "goal": spaces.Box(-1, 1, (1,), np.float32), "name": spaces.Discrete(3)}
    seen = picture_of(spaces.Dict({"depth": box(GREY), "pixels": box(FIRST), **beside}))
    assert seen is not None and seen.vector is not None and seen.vector_size == 4
    assert (
        seen.note == "of what it observes pixels, goal, state (4 numbers beside the picture) are used, not depth, name"
    )
    given = {"depth": GREY, "pixels": FIRST, "state": np.arange(3.0), "goal": np.array([9.0], np.float32), "name": 1}
    np.testing.assert_array_equal(seen.take(given), RED)
    found = seen.vector(given)
    assert found.dtype == np.float32 and found.tolist() == [9, 0, 1, 2]


def test_a_dict_without_vectors() -> None:
    seen = picture_of(spaces.Dict({"pixels": box(FIRST), "name": spaces.Discrete(3)}))
    assert seen is not None and seen.vector is None and seen.vector_size == 0
    assert seen.note == "of what it observes only pixels is used, not name"


@pytest.mark.parametrize(
    ("space", "count", "given", "wanted"),
    [
        (spaces.Discrete(3, start=2), 3, 1, 3),
        (spaces.MultiBinary(3), 8, 5, [1, 0, 1]),
        (spaces.MultiDiscrete([2, 3], start=[0, 5]), 6, 5, [1, 7]),
        (spaces.MultiBinary((2, 2)), 16, 1, [[0, 0], [0, 1]]),
    ],
)
def test_choices(space: Any, count: int, given: int, wanted: Any) -> None:
    made = actions_of(space, "mine")
    assert made.space == spaces.Discrete(count)
    assert np.array_equal(made.translate(given), wanted)
    everything = [made.translate(choice) for choice in range(count)]
    assert all(space.contains(action) for action in everything) and len({str(x) for x in everything}) == count


@pytest.mark.parametrize(
    ("space", "given", "wanted"),
    [
        (spaces.Box(np.array([0, -3]), np.array([10, 3]), dtype=np.float32), [-1, 2], [0, 3]),
        (spaces.MultiBinary(7), [-1, -0.1, 0.1, 1, 0, -1, 2], [0, 0, 1, 1, 1, 0, 1]),
        (spaces.MultiDiscrete([10, 10, 3]), [-1, 1, 0], [0, 9, 1]),
    ],
)
def test_vectors(space: Any, given: list[float], wanted: list[float]) -> None:
    made = actions_of(space, "mine")
    assert made.space == spaces.Box(-1, 1, (len(given),), np.float32)
    action = made.translate(np.array(given, np.float32))
    assert space.contains(action) and action.tolist() == wanted


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-np.inf, 1, (2,), np.float32), "without bounds: only a bounded Box"),
        (spaces.Tuple([spaces.Discrete(2)]), "known are Box, Discrete, MultiDiscrete, MultiBinary"),
    ],
)
def test_other_actions(space: spaces.Space, message: str) -> None:
    with pytest.raises(UserError, match=message):
        actions_of(space, "mine")


def test_an_environment_with_all_of_it() -> None:
    env = make_environment("tests.experience.broken:Odd", size=10)
    seen, _ = env.reset(seed=0)
    assert seen["image"].shape == (3, 10, 10) and (seen["image"] == RED[:10, :10].transpose(2, 0, 1)).all()
    assert seen["vector"].dtype == np.float32 and seen["vector"].tolist() == [0, 0]
    assert env.action_space == spaces.Discrete(6)
    assert (env.step(5)[0]["image"] == 0).all() and env.unwrapped.action.tolist() == [1, 2]
    assert env.get_wrapper_attr("note").endswith("camera, speed (2 numbers beside the picture) are used")
    assert isinstance(env.unwrapped, broken.Odd)


def test_mujoco_through_gymnasium_needs_no_display() -> None:
    if importlib.util.find_spec("imageio") is None:  # Gymnasium's MuJoCo wants it, though it is not used here
        with pytest.raises(UserError, match="needs imageio, which is not installed: pip install imageio"):
            make_environment("InvertedPendulum-v5", size=32)
        return
    env = make_environment("InvertedPendulum-v5", size=32)
    image, _ = env.reset(seed=0)
    assert image.shape == (3, 32, 32) and image.std() > 10
    env.close()

"""Data that are wrong: looked at where they come in, and never taken in silence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests import tiny
from worldmodel.control.controller import RandomController, SinglePolicy
from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, run_episodes
from worldmodel.experience.environments import make_environment
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import InProcess
from worldmodel.types import ActionSpec, Observation

WHERE = "tests.experience.test_wrong_data"
SIDE = 16
HERE: dict[str, Callable[[], gymnasium.Env]] = {}  # what a task name of this module makes


def __getattr__(name: str) -> Callable[[], gymnasium.Env]:
    if name not in HERE:
        raise AttributeError(name)
    return HERE[name]


class Shows(gymnasium.Env):
    """A picture (16, 16, 3) of one value after another, in a space that says what it likes."""

    action_space: spaces.Space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, values: list[float], kind: Any, low: float, high: float, said: Any = None, **more: Any) -> None:
        self.values, self.kind, self.reward, self.shape = values, kind, more.get("reward", 1.0), more.get("shape")
        self.observation_space = spaces.Box(low, high, (SIDE, SIDE, 3), said or kind)
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        self.count = 0
        return self.picture(), {}

    def step(self, action: Any) -> tuple:
        self.count += 1
        self.taken.append(action)
        return self.picture(), self.reward, False, self.count == len(self.values) - 1, {}

    def picture(self) -> np.ndarray:
        return np.full(self.shape if self.shape and self.count else (SIDE, SIDE, 3), self.values[self.count], self.kind)


def made(*given: Any, repeat: int = 1, **more: Any) -> gymnasium.Env:
    HERE["shows"] = lambda: Shows(*given, **more)
    return make_environment(f"{WHERE}:shows", size=SIDE, action_repeat=repeat)


f4, u1 = np.float32, np.uint8
SEEN: list[tuple[str, tuple, list[int]]] = [  # numbers, their type, the space's low, high and type; bytes
    ("bytes", ([0, 255], u1, 0, 255), [0, 255]),
    ("floats in [0, 1]", ([0, 0.5, 1], f4, 0, 1), [0, 128, 255]),
    ("half floats in [0, 1]", ([0, 0.5, 1], np.float16, 0, 1), [0, 128, 255]),
    ("floats a little above", ([0, 1.00001], f4, 0, 1), [0, 255]),
    ("floats in [-1, 1]", ([-1, 0, 1], f4, -1, 1), [0, 128, 255]),
    ("floats in [0, 255]", ([0, 128, 255], f4, 0, 255), [0, 128, 255]),
    ("a dark one after a bright one", ([255, 0.5], f4, 0, 255), [255, 1]),
    ("doubles where floats are said", ([0, 0.5], np.float64, 0, 1, f4), [0, 128]),
    ("zeros and ones as bytes", ([0, 1], u1, 0, 1), [0, 255]),
    ("zeros and ones as int64", ([0, 1], np.int64, 0, 1), [0, 255]),
    ("bools", ([0, 1], np.bool_, 0, 1, u1), [0, 255]),
    ("int16 of bytes", ([0, 200], np.int16, 0, 255), [0, 200]),
    ("uint16 where bytes are said", ([0, 200], np.uint16, 0, 255, u1), [0, 200]),
]


@pytest.mark.parametrize(("given", "wanted"), [x[1:] for x in SEEN], ids=[x[0] for x in SEEN])
def test_numbers_that_are_pictures_become_bytes(given: tuple, wanted: list[int]) -> None:
    env = made(*given)
    images = [env.reset(seed=0)[0], *(env.step(np.zeros(2, f4))[0] for _ in wanted[1:])]
    assert all(image.dtype == u1 for image in images)
    assert [np.unique(image).tolist() for image in images] == [[value] for value in wanted]


REFUSED: list[tuple[str, tuple, dict[str, Any], str]] = [
    ("floats in [0, 1] where 255 is said", ([0, 0.5], f4, 0, 255), {}, "0.5, nearly black, and its space says 0 to"),
    ("bytes where [0, 1] is said", ([0, 255], f4, 0, 1), {}, "numbers are from 255 to 255, and its space says 0 to 1"),
    ("[-1, 1] where [0, 1] is said", ([0, -1], f4, 0, 1), {}, "numbers are from -1 to -1, and its space says 0 to 1"),
    ("16 bits where 8 are said", ([0, 999], np.uint16, 0, 255, u1), {}, "from 999 to 999, and its space says 0 to 255"),
    ("int16 below zero", ([0, -300], np.int16, 0, 255), {}, "numbers are from -300 to -300, and its space says 0 to"),
    (
        "int16 where bytes are said",
        ([0, 9], np.int16, 0, 255, u1),
        {},
        "the observation is int16 (16, 16, 3), not uint",
    ),
    ("text", ([0, 9], "U1", 0, 255, u1), {}, "the observation is <U1 (16, 16, 3), not uint8"),
    ("objects", ([0, 9], object, 0, 255, u1), {}, "the observation is object (16, 16, 3), not uint8"),
    ("complex", ([0, 9], complex, 0, 255, u1), {}, "the observation is complex128 (16, 16, 3), not uint8"),
    ("NaN", ([0, math.nan], f4, 0, 1), {}, "gave a observation that is not finite at step 1 of episode 1"),
    ("inf", ([0, math.inf], f4, 0, 255), {}, "gave a observation that is not finite at step 1 of episode 1"),
    ("empty", ([0, 9], u1, 0, 255), {"shape": (0, 0, 3)}, "the observation is uint8 (0, 0, 3), not uint8 (16, 16, 3)"),
    ("larger midway", ([0, 9], u1, 0, 255), {"shape": (32, 32, 3)}, "the observation is uint8 (32, 32, 3), not uint8"),
    ("grey midway", ([0, 9], u1, 0, 255), {"shape": (16, 16)}, "the observation is uint8 (16, 16), not uint8 (16, 16"),
    ("reward 1e300", ([0, 9], u1, 0, 255), {"reward": 1e300}, "the reward is 1e+300, which is more than float32 holds"),
    ("reward -1e39", ([0, 9], u1, 0, 255), {"reward": -1e39}, "the reward is -1e+39, which is more than float32 holds"),
    ("reward -inf", ([0, 9], u1, 0, 255), {"reward": -math.inf}, "gave a reward that is not finite at step 1"),
    ("reward of half inf", ([0, 9], u1, 0, 255), {"reward": np.float16(np.inf)}, "gave a reward that is not finite"),
    ("reward object", ([0, 9], u1, 0, 255), {"reward": object()}, "the reward is object, not a number"),
]


@pytest.mark.parametrize(("given", "more", "message"), [x[1:] for x in REFUSED], ids=[x[0] for x in REFUSED])
def test_what_an_environment_shows_is_refused(given: tuple, more: dict[str, Any], message: str) -> None:
    env = made(*given, **more)
    with pytest.raises(UserError) as error:
        env.reset(seed=0)  # which a wrong type already fails
        env.step(np.zeros(2, f4))
    text = str(error.value)
    assert message in text and f"{WHERE}:shows" in text and "\n" not in text
    assert re.search(r"episode 1, step [01]|at step [01] of episode 1", text)


def test_rewards_that_only_together_are_too_much() -> None:
    env = made([0] * 9, u1, 0, 255, reward=2e38, repeat=2)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"step 2: the reward is 4e\+38, which is more than float32 holds"):
        env.step(np.zeros(2, f4))


def test_a_return_that_float32_does_not_hold_is_no_infinity() -> None:
    HERE["shows"] = lambda: Shows([0] * 9, u1, 0, 255, reward=2e38)
    environments = InProcess(f"{WHERE}:shows", 1, size=SIDE)
    (run,) = run_episodes(environments, Fixed([0, 0]), 1)
    assert run.return_ == pytest.approx(16e38)


def test_spaces_without_a_picture_in_them_are_refused() -> None:
    for shape in ((0, 0, 3), (4, 4, 3), (64,)):
        HERE["shows"] = lambda shape=shape: type(
            "Made", (Shows,), {"observation_space": property(lambda _: spaces.Box(0, 255, shape, u1), lambda *_: None)}
        )([0], u1, 0, 255)
        with pytest.raises(UserError, match="no picture, and cannot be drawn"):
            make_environment(f"{WHERE}:shows")


class Fixed:
    """Acts as it was told to."""

    def __init__(self, action: list[float]) -> None:
        self.action = action

    def initial(self, n: int) -> None:
        return None

    def __call__(self, observation: Observation, state: None) -> tuple[torch.Tensor, None]:
        return torch.tensor([self.action] * len(observation.is_first)), None


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ([0.5, -0.5], [0.5, -0.5]),
        ([3.0, -7.0], [1, -1]),
        ([1e30, 0.0], [1, 0]),
        ([1.0000001, -1.0], [1, -1]),
    ],
)
def test_actions_are_stored_as_they_were_taken(tmp_path: Path, given: list[float], stored: list[float]) -> None:
    kept: list[Shows] = []
    HERE["shows"] = lambda: kept.append(Shows([0] * 9, u1, 0, 255)) or kept[-1]  # type: ignore[func-returns-value]
    environments = InProcess(f"{WHERE}:shows", 1, size=SIDE)
    store = Replay(tmp_path, image_shape=(3, SIDE, SIDE), action_size=2)
    Collector(environments, store).collect(Fixed(given), 3)
    ((_, records),) = store.episodes()
    assert records["action"].tolist() == [[0, 0], stored, stored]
    assert np.array_equal(kept[0].taken, np.array([stored, stored], f4))


@pytest.mark.parametrize(("given", "stored"), [([0.1, 0.7, 0.2], 1), ([5.0, 5.0, -1.0], 0), ([-3.0, -2.0, -1.0], 2)])
def test_a_choice_is_stored_as_one(tmp_path: Path, given: list[float], stored: int) -> None:
    kept: list[Shows] = []

    def make() -> Shows:
        kept.append(Shows([0] * 9, u1, 0, 255))
        kept[0].action_space = spaces.Discrete(3)
        return kept[0]

    HERE["shows"] = make
    environments = InProcess(f"{WHERE}:shows", 1, size=SIDE)
    store = Replay(tmp_path, image_shape=(3, SIDE, SIDE), action_size=3)
    Collector(environments, store).collect(Fixed(given), 2)
    ((_, records),) = store.episodes()
    assert records["action"][1].tolist() == np.eye(3)[stored].tolist() and kept[0].taken == [stored]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("discrete", [False, True])
def test_actions_that_are_not_finite_are_refused(tmp_path: Path, bad: float, discrete: bool) -> None:
    def make() -> Shows:
        env = Shows([0] * 9, u1, 0, 255)
        env.action_space = spaces.Discrete(2) if discrete else Shows.action_space
        return env

    HERE["shows"] = make
    environments = InProcess(f"{WHERE}:shows", 1, size=SIDE)
    store = Replay(tmp_path, image_shape=(3, SIDE, SIDE), action_size=2)
    if math.isinf(bad) and not discrete:
        Collector(environments, store).collect(Fixed([bad, 0.0]), 2)  # as far as one can go
        assert np.abs(next(store.episodes())[1]["action"]).max() == 1
        return
    with pytest.raises(UserError, match="the policy gave an action that is not finite"):
        Collector(environments, store).collect(Fixed([bad, 0.0]), 2)
    assert len(store) == 1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 16, 16), f4),
        np.zeros((3, 16, 16)),
        np.zeros((3, 16, 16), np.int16),
        np.zeros((16, 16), u1),
        np.zeros((3, 0, 0), u1),
        [[0]],
        None,
    ],
)
def test_a_loaded_run_acts_on_bytes_alone(image: Any) -> None:
    act = SinglePolicy(RandomController(tiny.world_model(), None, ActionSpec(2, False)))
    with pytest.raises(ValueError, match=r"an image is \(3, H, W\) uint8, got "):
        act(image, is_first=True)
    assert act(np.zeros((3, 16, 16), u1), is_first=True).shape == (2,)

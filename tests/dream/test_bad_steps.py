"""Steps, masks and settings that dreams refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from tests.dream.dreaming import environment
from worldmodel.control.truncation import AtLimit
from worldmodel.types import ActionSpec


def test_an_ended_dream_is_not_stepped() -> None:
    env = environment(horizon=1, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ResetNeeded, match="reset first"):
        env.step(env.action_space.sample())
    with pytest.raises(ResetNeeded, match="all of them before some"):
        env.reset(options={"reset_mask": np.array([True, False, False, False])})
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.reset(options={"reset_mask": np.array([True, False, True, False])})
    with pytest.raises(ResetNeeded, match=r"dreams \[1, 3\] have ended"):
        env.step(env.action_space.sample())
    env.reset()
    env.step(env.action_space.sample())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 2)), r"actions of 4 dreams are \(4, 2\), got \(3, 2\)"),
        (np.full((4, 2), np.nan), "must be finite"),
    ],
)
def test_bad_actions(bad: np.ndarray, message: str) -> None:
    env = environment()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(bad)
    assert env.step(np.zeros((4, 2)))[0].shape == env.observation_space.shape


@pytest.mark.parametrize(
    ("mask", "error"),
    [([True] * 4, TypeError), (np.ones(4), TypeError), (np.ones(3, bool), ValueError), (np.zeros(4, bool), ValueError)],
)
def test_bad_masks(mask: Any, error: type[Exception]) -> None:
    env = environment()
    env.reset(seed=0)
    with pytest.raises(error, match="reset_mask must be"):
        env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"continue_threshold": 1.5}, "is a probability"),
        ({"uncertainty": False, "uncertainty_weight": 1.0}, "measure their uncertainty"),
        ({"uncertainty": False, "truncation": AtLimit()}, "measure their uncertainty"),
        ({"num": 0}, "there must be 1 or more"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        environment(**settings)


def test_one_out_of_range() -> None:
    env = environment(action=ActionSpec(2, discrete=True))
    env.reset(seed=0)
    for bad in (np.array([0, 1, 2, 0]), np.array([0.0, 1.0, 1.0, 0.0])):
        with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
            env.step(bad)

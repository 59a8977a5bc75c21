from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.dream.dreaming import environment, model
from tests.insight.test_trust import ORIGIN, H
from tests.insight.test_trust import dreams as made_up
from worldmodel.insight.caution import Caution, RewardErrorWeight
from worldmodel.insight.member_dreams import MemberDreams
from worldmodel.insight.trust import Trust, fit_trust
from worldmodel.model.world_model import WorldModel


@pytest.fixture(scope="module")
def trust() -> Trust:
    """Beyond H steps nothing is known."""
    return fit_trust(*made_up(np.random.default_rng(0), 400), ORIGIN)


def always(trust: Trust) -> Trust:
    return trust._replace(limit=1e9)


def never(trust: Trust) -> Trust:
    return trust._replace(limit=0.0)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_dream_ends_where_its_trust_ends_and_says_so(trust: Trust, mode: AutoresetMode) -> None:
    for known, steps in ((never(trust), 1), (always(trust), H + 1)):
        env = environment(3, horizon=None, autoreset_mode=mode, trust=known)
        env.reset(seed=0)
        for step in range(1, steps + 1):
            _, _, terminated, truncated, infos = env.step(env.action_space.sample())
            assert not terminated.any() and truncated.all() == (step == steps) == truncated.any()
        told = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
        assert not told["trusted"].any() and told["_trusted"].all() and not told["uncertain"].any()
        if steps == 1:
            assert (told["expected_error"] > 0).all() and (told["expected_reward_error"] > 0).all()
        else:
            assert np.isnan(told["expected_error"]).all()  # nothing is known beyond
        if steps > 1:  # begun again, it is trusted again
            _, _, _, truncated, _ = env.step(env.action_space.sample())
            _, _, _, truncated, infos = env.step(env.action_space.sample())
            assert not truncated.any() and infos["trusted"].all()


def test_dreams_end_each_at_its_own_time_and_the_same_again(trust: Trust) -> None:
    made, found = model(), []
    limit = _middle(trust, made)
    for _ in range(2):
        env = environment(6, made=made, horizon=None, trust=trust._replace(limit=limit))
        env.reset(seed=3)
        env.action_space.seed(0)
        found.append([env.step(env.action_space.sample())[3].copy() for _ in range(9)])
    assert np.array_equal(*found)
    ends = np.stack(found[0])  # (9, 6)
    assert any(0 < row.sum() < 6 for row in ends)


def _middle(trust: Trust, made: WorldModel) -> float:
    """A limit that some dreams come to."""
    env = environment(6, made=made, horizon=None)
    env.reset(seed=3)
    env.action_space.seed(0)
    beside = MemberDreams(made)
    assert env.dreams.reconstruction is not None
    beside.begin(env.dreams.state, env.dreams.reconstruction)
    for _ in range(3):
        action = env.action_space.sample()
        env.step(action)
        clues = beside.step(env.dreams.state, torch.from_numpy(action))
    return float(np.median(trust.only(3)._ratio(clues)))


def test_an_expected_error_costs_its_weight(trust: Trust) -> None:
    made: WorldModel = model()
    rewards = []
    for weight in (0.0, RewardErrorWeight.of(trust, -2.0)):
        env = environment(3, made=made, mode=True, trust=always(trust), uncertainty_weight=weight)
        env.reset(seed=0)
        _, reward, _, _, infos = env.step(np.zeros((3, 2), np.float32))
        rewards.append((reward, infos["expected_reward_error"]))
    np.testing.assert_allclose(rewards[1][0], rewards[0][0] - 2 * rewards[0][1], rtol=1e-5)


def test_what_only_a_calibration_knows_is_refused_without(trust: Trust) -> None:
    for settings, message in (
        ({"uncertainty_weight": Caution(trust).weight()}, "wants trust"),
        ({"truncation": Caution(trust).truncation(), "trust": trust}, "with trust, and not with this truncation"),
    ):
        with pytest.raises(ValueError, match=message):
            environment(**settings)

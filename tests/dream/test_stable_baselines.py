from __future__ import annotations

import importlib
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tests.dream.dreaming import OneDream, environment
from worldmodel.control.truncation import AtLimit
from worldmodel.errors import UserError

SB3 = pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="no Stable-Baselines3")


def test_without_the_library_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("stable_baselines3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "worldmodel.dream.stable_baselines", raising=False)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match=r"pip install 'worldmodel\[sb3\]'"):
        environment(autoreset_mode="SameStep").stable_baselines()


@SB3
@pytest.mark.parametrize(
    ("settings", "message"),
    [({"autoreset_mode": "NextStep"}, "SameStep"), ({"autoreset_mode": "SameStep", "tensors": True}, "tensors=False")],
)
def test_dreams_that_it_could_not_take(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        environment(**settings).stable_baselines()


@SB3
def test_an_end_is_told_as_it_expects() -> None:
    """Beside the same dreams stepped by hand: the same numbers, and the last observation is not the next's first."""
    free = environment(64, horizon=3)
    free.reset(seed=0)
    steps = [free.step(free.action_space.sample())[4] for _ in range(3)]
    cont, uncertainty = (np.concatenate([step[name] for step in steps]) for name in ("cont", "uncertainty"))
    settings = {"horizon": 5, "autoreset_mode": "SameStep", "continue_threshold": float(np.quantile(cont, 0.1))}
    settings |= {"truncation": AtLimit(float(np.quantile(uncertainty, 0.9)))}
    hand, env = environment(**settings), environment(**settings).stable_baselines()
    env.seed(3)
    assert np.array_equal(env.reset(), hand.reset(seed=3)[0]) and all(info["is_first"] for info in env.reset_infos)
    kinds = set()
    for _ in range(40):
        action = np.stack([env.action_space.sample() for _ in range(4)])
        seen, reward, done, infos = env.step(action)
        wanted, earned, terminated, truncated, known = hand.step(action)
        assert np.array_equal(seen, wanted) and np.array_equal(reward, earned)
        assert np.array_equal(done, terminated | truncated)
        for i, info in enumerate(infos):
            assert ("terminal_observation" in info) == done[i]
            if done[i]:
                assert np.array_equal(info["terminal_observation"], known["final_obs"][i])
                assert not np.allclose(info["terminal_observation"], seen[i])
                assert info["TimeLimit.truncated"] == (truncated[i] and not terminated[i])
                assert info["uncertain"] == known["final_info"]["uncertain"][i] and not info["is_first"]
                kinds.add((info["TimeLimit.truncated"], info["uncertain"]))
    assert kinds >= {(True, True), (True, False), (False, False)}


@SB3
def test_its_own_checker() -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(OneDream(horizon=5), warn=False)


@SB3
def test_a_policy_learned_in_dreams_drives_latent_states() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    dreams = environment(horizon=4, autoreset_mode="SameStep")
    learner = PPO("MlpPolicy", VecMonitor(dreams.stable_baselines()), n_steps=16, batch_size=32, seed=0, device="cpu")
    before = [x.clone() for x in learner.policy.parameters()]
    learner.learn(128)
    assert any(not torch.equal(x, y) for x, y in zip(before, learner.policy.parameters(), strict=True))
    assert learner.ep_info_buffer and all(episode["l"] == 4 for episode in learner.ep_info_buffer)
    controller = dreams.policy(lambda seen: learner.predict(seen, deterministic=True)[0]).controller
    action, _ = controller.act(dreams.dreams.state, ())
    assert action.shape == (4, 2) and action.abs().max() <= 1 and isinstance(action, torch.Tensor)


@SB3
def test_pictures() -> None:
    env = environment(horizon=4, autoreset_mode="SameStep").stable_baselines()
    env.reset()
    picture = env.render()
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8  # four dreams of 16 x 16
    assert env.get_attr("num_envs", [0, 1]) == [4, 4] and env.env_is_wrapped(gymnasium.Wrapper) == [False] * 4
    env.set_attr("horizon", 1)
    assert env.step(np.zeros((4, 2)))[2].all()
    assert len(env.env_method("render", indices=0)) == 1
    env.close()

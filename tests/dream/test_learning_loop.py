"""A learner as small libraries write it, actor-critic in one loop over a vector environment, learns in dreams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

from tests.dream.dreaming import environment
from worldmodel.dream.vector_env import DreamVectorEnv

STEPS, ROLLOUT, GAMMA = 1000, 10, 0.9
RATES = (0.0, 0.01)


class ActorCriticNet(nn.Module):
    def __init__(self, env: DreamVectorEnv) -> None:
        super().__init__()
        inputs, outputs = env.single_observation_space.shape[0], env.single_action_space.shape[0]
        self.mean, self.value = nn.Linear(inputs, outputs), nn.Linear(inputs, 1)
        nn.init.zeros_(self.mean.weight)

    def policy(self, seen: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(self.mean(seen), 0.5), 1)


def learn(env: DreamVectorEnv, rate: float) -> np.ndarray:
    """Mean reward of each step, from the first to the last; at a learning rate of 0 that of acting at random."""
    net = ActorCriticNet(env)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    seen, _ = env.reset(seed=0)
    earned: list[float] = []
    for _ in range(STEPS // ROLLOUT):
        losses = []
        for _ in range(ROLLOUT):
            distribution = net.policy(seen)
            action = distribution.sample()
            after, reward, terminated, _, infos = env.step(action)
            led_to = after.clone()
            if (
                "final_obs" in infos
            ):  # SAME_STEP: a truncated dream is worth what its last state is, not the next's first
                for i in infos["_final_obs"].nonzero().squeeze(1).tolist():
                    led_to[i] = infos["final_obs"][i]
            with torch.no_grad():
                target = reward + GAMMA * ~terminated * net.value(led_to).squeeze(1)
            advantage = target - net.value(seen).squeeze(1)
            # NEXT_STEP: where a dream begins no action led there
            real = ~infos["is_first"] if "final_obs" not in infos else torch.ones_like(terminated)
            score = -distribution.log_prob(action) * advantage.detach()
            losses.append(((score + advantage.square()) * real).mean())
            earned.append(float(reward[real].mean()) if real.any() else float("nan"))
            seen = after
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    return np.array(earned)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_thousand_steps(mode: AutoresetMode) -> None:
    means = []
    for rate in RATES:
        torch.manual_seed(0)
        earned = learn(environment(16, horizon=9, autoreset_mode=mode, tensors=True), rate)
        assert len(earned) == STEPS
        assert np.isnan(earned).sum() == (STEPS // 10 if mode is AutoresetMode.NEXT_STEP else 0)
        means.append(np.nanmean(earned[-500:]))
    assert means[1] > means[0] + 0.3

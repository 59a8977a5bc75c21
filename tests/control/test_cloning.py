from __future__ import annotations

from typing import Any

import torch

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.cloning import Cloner
from worldmodel.control.propagation import TS1
from worldmodel.training.agent import Agent
from worldmodel.types import ActionSpec, SequenceBatch


def control(feature_size: int, discrete: bool = False, **settings: Any) -> Cloner:
    settings = {"width": 16, "layers": 1, "horizon": 2, "starts": 4, **settings}
    return Cloner(ActionSpec(tiny.ACTION, discrete), feature_size, ThroughModel(0.0), TS1(), **settings)


def two_ways() -> SequenceBatch:
    """Half of the records were reached by (0.6, 0.6) and earned 1, the others by (-0.6, -0.6) and earned -1."""
    data = tiny.batch(8, 6)
    good = torch.rand(8, 6, 1) < 0.5
    sign = torch.where(good, 1.0, -1.0)
    return data._replace(action=0.6 * sign.expand(8, 6, tiny.ACTION), reward=sign[..., 0])


def test_the_actor_comes_to_do_what_was_good_in_the_data() -> None:
    torch.manual_seed(0)
    model, data = tiny.world_model(), two_ways()
    own = control(model.feature_size, discount=0.0)  # only the next reward is worth anything; values begin at 0
    state = model.observe(data).state
    optimizer = torch.optim.Adam(own.actor.parameters(), 1e-2)
    for _ in range(60):
        losses, metrics = own.loss(model, state, data)
        optimizer.zero_grad()
        losses["cloning"].mean().backward()
        optimizer.step()
    assert torch.allclose(own.actor.mode(state.feature.detach()), torch.tensor(0.6), atol=0.1)
    assert metrics["cloned"].item() == (data.reward[:, 1:] > 0).float().mean().item()


def test_nothing_is_cloned_across_an_episodes_start_or_of_an_unknown_reward() -> None:
    torch.manual_seed(0)
    model, data = tiny.world_model(), two_ways()
    reward = torch.ones(8, 6)
    reward[:, 2] = torch.nan
    data.is_first[:, 4] = True
    data = data._replace(reward=reward)
    losses, _ = control(model.feature_size, discount=0.0).loss(model, model.observe(data).state, data)
    assert losses["cloning"].shape == (8, 5)
    used = losses["cloning"].ne(0).all(0)
    assert used.tolist() == [True, False, True, False, True]


def test_losses_are_the_actor_critics_and_cloning_and_move_the_actor_alone() -> None:
    for discrete in (False, True):
        torch.manual_seed(0)
        model, data = tiny.world_model(), tiny.batch()
        if discrete:
            data = data._replace(action=torch.nn.functional.one_hot(data.action.argmax(-1), tiny.ACTION).float())
        own = control(model.feature_size, discrete)
        losses, _ = own.loss(model, model.observe(data).state, data)
        assert losses.keys() == own.weights.keys() == {*ActorCritic.weights, "cloning"}
        losses["cloning"].mean().backward()
        moved = {name.split(".")[0] for name, p in own.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {"actor"}
        assert not any(p.grad is not None for p in model.parameters())


def test_an_agent_learns_with_it() -> None:
    action = ActionSpec(tiny.ACTION, discrete=False)
    agent = Agent(action, lambda _: tiny.world_model(), lambda action, size: control(size)).setup()
    before = agent.actor_critic.actor.net[-1].weight.clone()
    metrics = agent.update(tiny.batch())
    assert metrics["loss/cloning"].isfinite()
    assert not torch.equal(agent.actor_critic.actor.net[-1].weight, before)

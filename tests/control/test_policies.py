from __future__ import annotations

import torch

from tests import tiny
from worldmodel.control.actor_critic import NormalActor
from worldmodel.control.policies import ActorPolicy
from worldmodel.types import Observation, SequenceBatch


def policy(explore: bool) -> ActorPolicy:
    model = tiny.world_model()
    actor = NormalActor(model.feature_size, tiny.ACTION, 16, 1)
    torch.nn.init.normal_(actor.net[-1].weight)
    return ActorPolicy(model, actor, tiny.ACTION, explore)


def act(policy: ActorPolicy, data: SequenceBatch) -> torch.Tensor:
    """The policy's actions, (N, T, A), on images that were seen already."""
    memory, actions = policy.initial(len(data.image)), []
    for t in range(data.image.shape[1]):
        action, memory = policy(Observation(data.image[:, t], data.is_first[:, t]), memory)
        actions.append(action)
    return torch.stack(actions, 1)


def test_evaluation_is_the_filter_and_the_actor_s_mode() -> None:
    chosen, data = policy(explore=False), tiny.batch(3, 5)
    actions = act(chosen, data)
    assert torch.equal(actions, act(chosen, data)) and not actions.requires_grad
    led = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)  # the action that led to each image
    state = chosen.world_model.observe(data._replace(action=led), mode=True).state
    torch.testing.assert_close(actions, chosen.actor.mode(state.feature))


def test_a_new_episode_forgets() -> None:
    data = tiny.batch(3, 5)
    is_first = data.is_first.clone()
    is_first[1, 3] = True
    actions = act(policy(explore=False), data._replace(is_first=is_first))
    alone = act(policy(explore=False), data._replace(is_first=is_first).map(lambda x: x[:, 3:]))
    torch.testing.assert_close(actions[1, 3:], alone[1])
    assert not torch.allclose(actions[0, 3:], alone[0])


def test_exploring_draws() -> None:
    chosen, data = policy(explore=True), tiny.batch(3, 5)
    assert not torch.equal(act(chosen, data), act(chosen, data))


def test_what_is_carried_out_and_stored_is_within_bounds() -> None:
    actions = act(policy(explore=True), tiny.batch(20, 5))
    assert actions.abs().max() == 1

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.controller import ActorController, LatentPolicy, RandomController, random_action
from worldmodel.control.propagation import Mixture
from worldmodel.errors import UserError
from worldmodel.types import ActionSpec, Observation, SequenceBatch

SPEC = ActionSpec(tiny.ACTION, False)


def policy(explore: bool) -> LatentPolicy:
    model = tiny.world_model()
    control = ActorCritic(SPEC, model.feature_size, ThroughModel(), Mixture(), width=16)
    torch.nn.init.normal_(control.actor.net[-1].weight)
    return LatentPolicy(ActorController(model, control, SPEC), explore)


def act(policy: LatentPolicy, data: SequenceBatch) -> torch.Tensor:
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
    torch.testing.assert_close(actions, chosen.controller.actor.mode(state.feature))


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


def test_a_memory_is_of_tensors() -> None:
    chosen = policy(explore=True)
    leaves = pytree.tree_leaves(chosen.initial(5))
    assert all(isinstance(x, torch.Tensor) and len(x) == 5 and not x.any() for x in leaves)


@pytest.mark.parametrize("discrete", [False, True])
def test_random_actions_need_no_image(discrete: bool) -> None:
    model, spec, data = tiny.world_model(), ActionSpec(tiny.ACTION, discrete), tiny.batch(200, 1)
    del model.encoder  # whoever filters fails
    torch.manual_seed(1)
    actions = act(LatentPolicy(RandomController(model, None, spec)), data)[:, 0]
    torch.manual_seed(1)
    assert torch.equal(actions, random_action(spec, 200))
    if discrete:
        assert (actions.sum(-1) == 1).all() and 60 < actions[:, 0].sum() < 140
    else:
        assert actions.abs().max() <= 1 and actions.min() < -0.9 and actions.max() > 0.9


def test_without_an_actor_it_cannot_act() -> None:
    with pytest.raises(UserError, match="this run has no actor"):
        ActorController(tiny.world_model(), None, SPEC)

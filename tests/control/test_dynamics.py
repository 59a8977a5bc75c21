from __future__ import annotations

from functools import partial

import pytest
import torch

from tests import tiny
from worldmodel.control.critic import Critic
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.propagation import TS1, TSInf
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.world_model import RewardHead
from worldmodel.types import LatentState

N, H = 5, 4
FAMILIES = pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(6)], ids=["one-hot", "normal"])


def start(model: torch.nn.Module) -> LatentState:
    """Posterior states (N, ...) of a batch."""
    state = model.observe(tiny.batch(N, 3)).state
    return LatentState(*(x[:, -1].detach() for x in state))


def actions() -> torch.Tensor:
    return torch.rand(N, H, tiny.ACTION, generator=torch.Generator().manual_seed(3)) * 2 - 1


def lively(latents: Latents | None = None) -> torch.nn.Module:
    """A model whose rewards and members differ. Large bins that cancel would round the rewards coarsely."""
    model = tiny.world_model(latents, reward=partial(RewardHead, limit=2.0))
    for weight in (model.reward.net[-1].weight, model.rssm.transition.heads.weight):
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    return model


@FAMILIES
def test_a_rollout_is_what_imagination_comes_to(latents: Latents) -> None:
    model, sequences = lively(latents), actions()
    state = start(model)
    given = iter(sequences.unbind(1))
    path = imagine(model, lambda _: next(given), state, H, mode=True)
    rollout = LatentDynamics(model).rollout(state.feature, sequences)
    torch.testing.assert_close(rollout.state, path.state.feature)
    for name in ("reward", "cont", "uncertainty"):
        torch.testing.assert_close(getattr(rollout, name), getattr(path, name))
    assert rollout.reward.std() > 0 and rollout.uncertainty.min() > 0


@FAMILIES
def test_a_rollout_is_its_steps(latents: Latents) -> None:
    dynamics = LatentDynamics(lively(latents))
    state, sequences = start(dynamics.world_model).feature, actions()
    whole = dynamics.rollout(state, sequences)
    for t in range(H):
        step = dynamics.step(whole.state[:, t], sequences[:, t])
        torch.testing.assert_close(step.state, whole.state[:, t + 1])
        for name in ("reward", "cont", "uncertainty"):
            torch.testing.assert_close(getattr(step, name), getattr(whole, name)[:, t])


def test_a_rollout_follows_one_member_where_the_choice_says_so() -> None:
    model, sequences = lively(), actions()
    state = start(model).feature
    torch.manual_seed(2)
    members = TSInf().start(tiny.MEMBERS, torch.Size([N]), state.device)
    torch.manual_seed(2)
    rollout = LatentDynamics(model, propagation=TSInf()).rollout(state, sequences)
    torch.manual_seed(2)  # a draw at each step would come to other members
    assert not torch.equal(rollout.state, LatentDynamics(model, propagation=TS1()).rollout(state, sequences).state)

    class Fixed(TSInf):
        def __init__(self, member: int) -> None:
            self.member = member

        def start(self, *_: object) -> torch.Tensor:
            return torch.full((N,), self.member)

    for index, member in enumerate(members.tolist()):
        alone = LatentDynamics(model, propagation=Fixed(member)).rollout(state, sequences)
        torch.testing.assert_close(rollout.state[index], alone.state[index])


def test_draws_instead_of_modes() -> None:
    model, sequences = lively(), actions()
    state = start(model).feature
    drawing, modes = LatentDynamics(model, mode=False), LatentDynamics(model)
    assert torch.equal(modes.rollout(state, sequences).state, modes.rollout(state, sequences).state)
    assert not torch.equal(drawing.rollout(state, sequences).state, drawing.rollout(state, sequences).state)


def test_doubt_may_be_left_out() -> None:
    model, sequences = lively(), actions()
    state = start(model).feature
    measured, left_out = (LatentDynamics(model, uncertainty=d).rollout(state, sequences) for d in (True, False))
    assert torch.equal(measured.reward, left_out.reward) and torch.equal(measured.state, left_out.state)
    assert not left_out.uncertainty.any() and left_out.uncertainty.shape == (N, H)


def test_what_lies_beyond_the_horizon() -> None:
    model = lively()
    state = start(model).feature
    assert torch.equal(LatentDynamics(model).value(state), torch.zeros(N))
    critic = Critic(model.feature_size, 16, 1, 63, 8.0, 0.02)
    torch.nn.init.normal_(critic.net[-1].weight)
    assert torch.equal(LatentDynamics(model, critic).value(state), critic(state)) and critic(state).any()


@FAMILIES
def test_the_gradient_comes_back_to_the_first_action(latents: Latents) -> None:
    model, sequences = lively(latents), actions().requires_grad_()
    state = start(model).feature
    with frozen(model):
        rollout = LatentDynamics(model).rollout(state, sequences)
    (slope,) = torch.autograd.grad(rollout.reward[:, -1].sum(), sequences)
    assert slope.isfinite().all() and (slope[:, 0].abs().sum(-1) > 0).all()


def test_members_are_drawn_anew_when_asked() -> None:
    model, calls = lively(), []
    model.rssm.transition.draw = lambda: calls.append(1)
    dynamics = LatentDynamics(model)
    state = start(model).feature
    calls.clear()
    dynamics.rollout(state, actions())
    dynamics.step(state, actions()[:, 0])
    assert not calls  # candidates are compared under the same draw
    dynamics.renew()
    assert len(calls) == 1

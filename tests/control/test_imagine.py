from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.propagation import TS1, EachMember, Mixture, Propagation, TSInf
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory

B, H = 20, 5


def rollout(propagation: Propagation, latents: Latents | None = None) -> tuple[WorldModel, LatentState, Trajectory]:
    model = tiny.world_model(latents)
    torch.nn.init.normal_(model.reward.net[-1].weight)  # it starts at zero
    posterior = model.observe(tiny.batch(B, 3)).state
    start = LatentState(*(x[:, -1] for x in posterior))
    push = torch.randn(model.feature_size, tiny.ACTION)
    return model, start, imagine(model, lambda s: (s.feature @ push).tanh(), start, H, propagation=propagation)


def followed(model: WorldModel, path: Trajectory) -> Tensor:
    """Which member each step was drawn from, (B, H); -1 for none of them."""
    found = torch.full((B, H), -1)
    for t in range(H):
        _, prior = model.rssm.img_step(LatentState(*(x[:, t] for x in path.state)), path.action[:, t])
        for k, params in enumerate(prior):
            found[torch.isclose(params, path.state.params[:, t + 1], atol=1e-5).all(-1), t] = k
    return found


@pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(6)])
@pytest.mark.parametrize("propagation", [TS1(), TSInf(), Mixture()])
def test_shapes_and_time_alignment(propagation: Propagation, latents: Latents) -> None:
    model, start, path = rollout(propagation, latents)
    assert path.action.shape == (B, H, tiny.ACTION)
    assert path.state.feature.shape == (B, H + 1, model.feature_size)
    assert path.reward.shape == path.cont.shape == path.uncertainty.shape == (B, H)
    for given, first in zip(start, path.state, strict=True):
        assert torch.equal(given, first[:, 0])
    for t in range(H):
        before, after = (LatentState(*(x[:, i] for x in path.state)) for i in (t, t + 1))
        deter, prior = model.rssm.img_step(before, path.action[:, t])
        torch.testing.assert_close(after.deter, deter)
        torch.testing.assert_close(path.reward[:, t], model.reward(after.feature))
        torch.testing.assert_close(path.cont[:, t], model.cont(after.feature))
        torch.testing.assert_close(path.uncertainty[:, t], latents.uncertainty(prior).epistemic)
    assert path.reward.std() > 0 and path.uncertainty.min() > 0


def test_a_member_each_step() -> None:
    members = followed(*rollout(TS1())[::2])
    assert (members >= 0).all() and set(members.flatten().tolist()) == set(range(tiny.MEMBERS))
    assert (members != members[:, :1]).any(1).float().mean() > 0.7


def test_a_member_for_a_whole_trajectory() -> None:
    members = followed(*rollout(TSInf())[::2])
    assert (members >= 0).all() and (members == members[:, :1]).all()
    assert set(members[:, 0].tolist()) == set(range(tiny.MEMBERS))


def test_every_member_has_its_share() -> None:
    spread = EachMember().start(tiny.MEMBERS, torch.Size([2 * tiny.MEMBERS]), torch.device("cpu"))
    assert spread.tolist() == [k for k in range(tiny.MEMBERS) for _ in range(2)]
    with pytest.raises(ValueError, match="cannot be shared evenly"):
        EachMember().start(3, torch.Size([4]), torch.device("cpu"))


def test_members_are_drawn_anew_unless_they_are_to_last() -> None:
    model, start, _ = rollout(Mixture())
    calls: list[int] = []
    model.rssm.transition.draw = lambda: calls.append(1)  # type: ignore[method-assign]
    for draw in (True, False):
        imagine(model, lambda s: s.deter[:, : tiny.ACTION], start, H, draw=draw)
        assert len(calls) == 1


def test_the_mixture_follows_no_member() -> None:
    model, _, path = rollout(Mixture())
    assert (followed(model, path) == -1).all()
    _, prior = model.rssm.img_step(LatentState(*(x[:, 0] for x in path.state)), path.action[:, 0])
    torch.testing.assert_close(path.state.params[:, 1], model.latents.mixture(prior))


def test_mode_draws_nothing() -> None:
    model, start, _ = rollout(Mixture())
    action = torch.zeros(B, tiny.ACTION)
    one, other = (imagine(model, lambda _: action, start, H, mode=True) for _ in range(2))
    assert torch.equal(one.state.feature, other.state.feature)


def test_uncertainty_can_be_spared() -> None:
    model, start, _ = rollout(Mixture())
    path = imagine(model, lambda s: s.deter[:, : tiny.ACTION], start, H, uncertainty=False)
    assert path.uncertainty.shape == (B, H) and not path.uncertainty.any()


def test_gradients_flow_from_the_last_step_to_the_first_action() -> None:
    model, start, _ = rollout(Mixture())
    first = torch.zeros(B, tiny.ACTION, requires_grad=True)
    actions = iter([first, *[torch.zeros(B, tiny.ACTION)] * (H - 1)])
    path = imagine(model, lambda _: next(actions), start, H)
    for last in (path.reward[:, -1], path.uncertainty[:, -1]):
        assert torch.autograd.grad(last.sum(), first, retain_graph=True)[0].any()


def test_a_horizon_is_at_least_one() -> None:
    model, start, _ = rollout(Mixture())
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        imagine(model, lambda s: s.deter, start, 0)


def test_frozen_lets_gradients_through_but_not_in() -> None:
    net, other = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    x = torch.randn(4, 3, requires_grad=True)
    with frozen(net):
        y = other(net(x)).sum()
    y.backward()
    assert x.grad is not None and x.grad.any()
    assert net.weight.grad is None and other.weight.grad is not None
    assert net.weight.requires_grad and not net.bias.requires_grad


def test_frozen_restores_after_an_error() -> None:
    net = torch.nn.Linear(3, 2)
    before = list(net.parameters())
    with pytest.raises(ZeroDivisionError), frozen(net):
        raise ZeroDivisionError
    assert all(p is q and p.requires_grad for p, q in zip(net.parameters(), before, strict=True))

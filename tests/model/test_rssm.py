from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.rssm import RSSM
from worldmodel.model.transitions import SharedTrunk
from worldmodel.types import LatentState

E, A, D, K = 7, 2, 8, 3
FAMILIES = [CategoricalLatents(3, 4), GaussianLatents(6)]


def rssm(latents: Latents = FAMILIES[0]) -> RSSM:
    torch.manual_seed(0)
    transition = SharedTrunk(D, D + latents.size, A, latents.param_size, members=K, width=16)
    return RSSM(E, A, latents, transition, deter=D, width=16)


def sequences(batch: int = 2, length: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    is_first = torch.zeros(batch, length, dtype=torch.bool)
    return torch.randn(batch, length, E), torch.randn(batch, length, A), is_first


@pytest.mark.parametrize("latents", FAMILIES)
def test_shapes(latents: Latents) -> None:
    model = rssm(latents)
    state, prior = model.observe(*sequences(2, 6))
    assert state.deter.shape == (2, 6, D)
    assert state.stoch.shape == (2, 6, latents.size)
    assert state.params.shape == (2, 6, latents.param_size)
    assert state.feature.shape == (2, 6, model.feature_size)
    assert prior.shape == (K, 2, 6, latents.param_size)
    assert not any(x.any() for x in model.initial(4))


@pytest.mark.parametrize("latents", FAMILIES)
def test_observe_is_obs_step_step_by_step(latents: Latents) -> None:
    model = rssm(latents)
    embed, action, is_first = sequences()
    is_first[0, 0] = is_first[1, 3] = True
    posterior = model.observe(embed, action, is_first, mode=True)
    state = model.initial(2)
    for t in range(6):
        before = state
        state = model.obs_step(state, action[:, t], embed[:, t], is_first[:, t], mode=True)
        for step, whole in zip(state, posterior.state, strict=True):
            torch.testing.assert_close(step, whole[:, t])
        # the prior of a record is what imagination predicts from the record before, unless nothing stands before it
        deter, prior = model.img_step(before, action[:, t])
        goes_on = ~is_first[:, t]
        torch.testing.assert_close(deter[goes_on], state.deter[goes_on])
        torch.testing.assert_close(prior[:, goes_on], posterior.prior[:, goes_on, t])


def test_is_first_cuts_the_memory() -> None:
    model = rssm()
    embed, action, is_first = sequences()
    is_first[:, 4] = True
    whole = model.observe(embed, action, is_first, mode=True)
    before = model.observe(embed[:, :4], action[:, :4], is_first[:, :4], mode=True)
    after = model.observe(embed[:, 4:], action[:, 4:], is_first[:, 4:], mode=True)
    for part, first, second in zip(whole.state, before.state, after.state, strict=True):
        torch.testing.assert_close(part, torch.cat([first, second], 1))
    torch.testing.assert_close(whole.prior, torch.cat([before.prior, after.prior], 2))

    # neither what was before nor the action into it leaves a trace, and no gradient goes back
    embed.requires_grad_(True)
    action = action.clone()
    action[:, 4] = 99
    again = model.observe(embed, action, is_first, mode=True)
    torch.testing.assert_close(again.state.feature[:, 4:], whole.state.feature[:, 4:])
    gradient = torch.autograd.grad(again.state.feature[:, 4:].sum(), embed)[0]
    assert not gradient[:, :4].any() and gradient[:, 4:].any()


def test_without_is_first_the_past_matters() -> None:
    model = rssm()
    embed, action, is_first = sequences()
    feature = model.observe(embed, action, is_first, mode=True).state.feature
    changed = embed.clone()
    changed[:, 0] = -changed[:, 0]
    assert not torch.allclose(feature[:, 5], model.observe(changed, action, is_first, mode=True).state.feature[:, 5])


def test_a_given_state_is_gone_on_from() -> None:
    model = rssm()
    embed, action, is_first = sequences()
    whole = model.observe(embed, action, is_first, mode=True).state
    middle = LatentState(*(x[:, 2] for x in whole))
    rest = model.observe(embed[:, 3:], action[:, 3:], is_first[:, 3:], middle, mode=True).state
    torch.testing.assert_close(rest.feature, whole.feature[:, 3:])


def test_sampling_draws_from_the_posterior() -> None:
    model = rssm()
    embed, action, is_first = sequences(1, 1)
    many = model.observe(*(x.expand(20000, *x.shape[1:]) for x in (embed, action, is_first))).state
    torch.testing.assert_close(
        many.stoch.mean(0),
        model.latents.probs(many.params[0]).flatten(-2),
        atol=0.02,
        rtol=0,
    )


def test_settle_follows_the_member_or_the_mixture() -> None:
    model = rssm(FAMILIES[1])
    deter, prior = model.img_step(LatentState(*(torch.randn(4, n) for n in (D, 6, 12))), torch.randn(4, A))
    member = torch.tensor([0, 2, 1, 2])
    state = model.sample_state(deter, prior, member, mode=True)
    torch.testing.assert_close(state.params, torch.stack([prior[k, i] for i, k in enumerate(member)]))
    assert state.deter is deter
    mixed = model.sample_state(deter, prior, None, mode=True)
    torch.testing.assert_close(mixed.stoch, prior[..., :6].mean(0))


def test_gradients_reach_every_parameter() -> None:
    model = tiny.world_model(free_nats=0.0)
    losses, _, _ = model.loss(tiny.batch())
    torch.stack([x.mean() for x in losses.values()]).sum().backward()
    # reward starts at zero, so its hidden layers wait for one update
    waiting = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert waiting == {n for n, _ in model.named_parameters() if n.startswith("reward.net.0")}


def test_the_deterministic_encoder_sees_the_image_alone_and_draws_nothing() -> None:
    model = rssm_deterministic()
    embed, action, is_first = sequences()
    one, other = (model.observe(embed, push * action, is_first).state for push in (1, -3))
    assert torch.equal(one.stoch, other.stoch) and not torch.equal(one.deter, other.deter)
    assert not torch.equal(one.stoch[:, 0], one.stoch[:, 1])


def rssm_deterministic() -> RSSM:
    latents = GaussianLatents(6)
    transition = SharedTrunk(D, D + latents.size, A, latents.param_size, members=K, width=16)
    return RSSM(E, A, latents, transition, deter=D, width=16, deterministic=True)

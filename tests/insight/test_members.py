from __future__ import annotations

import pytest
import torch
from torch import Size, Tensor

from tests import tiny
from worldmodel.control.imagine import imagine
from worldmodel.control.propagation import TSInf
from worldmodel.insight.rollouts import imagine_members, picture
from worldmodel.insight.uncertainty import (
    latent_spread,
    pixel_disagreement,
    pixel_spread,
    reward_disagreement,
    reward_spread,
)
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.transitions import SharedTrunk
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory

B, H = 4, 5


class Only(TSInf):
    """Always this member."""

    def __init__(self, member: int) -> None:
        self.member = member

    def start(self, members: int, batch: Size, device: torch.device) -> Tensor:
        return torch.full(batch, self.member, device=device)


def setting(latents: Latents | None = None, members: int = tiny.MEMBERS) -> tuple[WorldModel, LatentState, Tensor]:
    """A model whose members part widely, where to start, and what to do."""
    model = tiny.world_model(latents, members)
    transition = model.rssm.transition
    assert isinstance(transition, SharedTrunk)
    torch.nn.init.normal_(transition.heads.weight)
    torch.nn.init.normal_(model.reward.net[-1].weight)  # it starts at zero
    with torch.no_grad():
        posterior = model.observe(tiny.batch(B, 3), mode=True).state
    return model, LatentState(*(x[:, -1] for x in posterior)), torch.rand(B, H, tiny.ACTION) * 2 - 1


def agree(model: WorldModel) -> None:
    transition = model.rssm.transition
    assert isinstance(transition, SharedTrunk)
    for p in (transition.heads.weight, transition.heads.bias):
        each = p.data.unflatten(0, (tiny.MEMBERS, -1))
        each[1:] = each[:1].clone()


@pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(6)])
@torch.no_grad()
def test_a_member_dreams_as_imagination_that_follows_it(latents: Latents) -> None:
    model, start, actions = setting(latents)
    dreams = imagine_members(model, start, actions)
    assert dreams.reward.shape == dreams.cont.shape == (tiny.MEMBERS, B, H)
    images = model.decoder.image(dreams.state.feature[:, :, 1:])
    assert images.shape == (tiny.MEMBERS, B, H, 3, 16, 16) and images.dtype == torch.uint8
    for k in range(tiny.MEMBERS):
        left = iter(actions.unbind(1))
        path = imagine(model, lambda _, left=left: next(left), start, H, propagation=Only(k), mode=True)
        for ours, theirs in zip(dreams.state, path.state, strict=True):
            torch.testing.assert_close(ours[k], theirs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(dreams.reward[k], path.reward, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(dreams.cont[k], path.cont, atol=1e-4, rtol=1e-4)
        wanted = model.decoder.image(path.state.feature[:, 1:])
        assert (images[k].int() - wanted.int()).abs().max() <= 1
    assert (reward_spread(dreams) > 0).all() and (latent_spread(dreams) > 0).all()
    assert (pixel_spread(model, dreams) > 0).all()


@torch.no_grad()
def test_members_that_agree_dream_the_same() -> None:
    model, start, actions = setting()
    agree(model)
    dreams = imagine_members(model, start, actions)
    deter, prior = model.rssm.img_step(start, actions[:, 0])
    for spread in (
        reward_spread(dreams),
        pixel_spread(model, dreams),
        latent_spread(dreams),
        reward_disagreement(model, deter, prior),
        pixel_disagreement(model, deter, prior),
    ):
        torch.testing.assert_close(spread, torch.zeros_like(spread), atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_member_disagrees_with_nobody() -> None:
    model, start, actions = setting(members=1)
    dreams = imagine_members(model, start, actions)
    deter, prior = model.rssm.img_step(start, actions[:, 0])
    assert not reward_spread(dreams).any() and not pixel_spread(model, dreams).any() and not latent_spread(dreams).any()
    assert not reward_disagreement(model, deter, prior).any() and not pixel_disagreement(model, deter, prior).any()


@torch.no_grad()
def test_the_first_step_s_spread_is_the_disagreement_of_its_prior() -> None:
    model, start, actions = setting()
    dreams = imagine_members(model, start, actions)
    deter, prior = model.rssm.img_step(start, actions[:, 0])
    torch.testing.assert_close(reward_disagreement(model, deter, prior), reward_spread(dreams)[:, 0])
    torch.testing.assert_close(pixel_disagreement(model, deter, prior), pixel_spread(model, dreams)[:, 0])
    assert (pixel_disagreement(model, deter, prior) <= 0.5).all()


def test_spreads_by_hand() -> None:
    stoch = torch.zeros(2, 1, 3, 4)
    stoch[0, 0, :, 0] = stoch[1, 0, :2, 0] = stoch[1, 0, 2, 1] = 1.0  # they part in the second step
    nothing = torch.zeros(2, 1, 3, 1)
    reward = torch.tensor([[[1.0, 5.0]], [[1.0, 2.0]]])
    dreams = Trajectory(LatentState(nothing, stoch, nothing), nothing[:, :, 1:], reward, *torch.ones(2, 2, 1, 2))
    assert reward_spread(dreams).tolist() == [[0.0, 1.5]]
    assert latent_spread(dreams).tolist() == [[0.0, 0.125]]  # two of four numbers have a variance of 1/4


@torch.no_grad()
def test_the_picture_is_the_decoder_s_before_rounding() -> None:
    model, start, _ = setting()
    exact, whole = picture(model, start.feature), model.decoder.image(start.feature)
    assert exact.shape == whole.shape
    assert exact.min() >= 0 and exact.max() <= 1
    assert (exact * 255 - whole).abs().max() <= 0.501


@pytest.mark.parametrize("shape", [(B, 0, tiny.ACTION), (B + 1, H, tiny.ACTION), (B, tiny.ACTION)])
def test_actions_that_cannot_be_dreamt(shape: tuple[int, ...]) -> None:
    model, start, _ = setting()
    with pytest.raises(ValueError, match=r"actions must be \(B, H, A\) for 4 starts"):
        imagine_members(model, start, torch.zeros(shape))

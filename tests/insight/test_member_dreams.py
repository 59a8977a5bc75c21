from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from worldmodel.control.imagine import following, imagine
from worldmodel.insight.clues import dream_clues
from worldmodel.insight.error_model import Clues
from worldmodel.insight.member_dreams import MemberDreams
from worldmodel.insight.rollouts import imagine_members
from worldmodel.insight.uncertainty import latent_spread, pixel_spread, reward_spread
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory

H = 4


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    found = tiny.world_model()
    for p in found.reward.parameters():  # or it says zero, whatever it sees
        p.data += 0.3 * torch.randn_like(p)
    return found


MISSED = torch.tensor([0.01, 0.02, 0.03])


def rollout(model: WorldModel, n: int) -> Trajectory[LatentState]:
    data = tiny.batch(n, H + 3)
    start = model.observe(data.map(lambda x: x[:, :3]), mode=True).state.map(lambda x: x[:, -1])
    with torch.no_grad():
        return imagine(model, following(data.action[:, 3:]), start, H, mode=True)


def test_clues_are_what_members_rollouts_say(model: WorldModel) -> None:
    path = rollout(model, 3)
    found = dream_clues(model, path, MISSED)
    with torch.no_grad():
        own = imagine_members(model, path.state.map(lambda x: x[:, 0]), path.action)
        wanted = {
            "pixels": pixel_spread(model, own),
            "reward": reward_spread(own),
            "total": own.reward.cumsum(2).std(0, unbiased=False),
            "latent": latent_spread(own),
            "uncertainty": path.uncertainty,
            "so_far": path.uncertainty.cumsum(1),
            "level": path.reward.abs(),
            "reconstruction": MISSED[:, None].expand(3, H),
            "fallen": path.reward.cummax(1).values - path.reward,
        }
    for name, x in wanted.items():
        np.testing.assert_allclose(getattr(found, name), x.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)
    assert all((x >= 0).all() and x.shape == (3, H) for x in found)
    assert (
        (found.drawn_pixels > 0).all()
        and (found.drawn_reward > 0).all()
        and (found.scene > 0).all()
        and (found.motion > 0).any()
    )


def test_nobody_elses_random_numbers_change(model: WorldModel) -> None:
    path = rollout(model, 2)
    before = torch.get_rng_state()
    first = dream_clues(model, path, MISSED[:2])
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    for x, y in zip(first, dream_clues(model, path, MISSED[:2]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_some_dreams_begin_anew_and_the_others_go_on(model: WorldModel) -> None:
    path = rollout(model, 3)
    again = torch.tensor([False, True, False])
    beside, whole = MemberDreams(model), dream_clues(model, path, MISSED)
    beside.begin(path.state.map(lambda x: x[:, 0]), MISSED)
    parts = []
    for t in range(H):
        if t == 2:  # the second begins anew where it is
            beside.begin(path.state.map(lambda x: x[:, 2]), 2 * MISSED, again)
        parts.append(beside.step(path.state.map(lambda x, t=t: x[:, t + 1]), path.action[:, t]))
    found = Clues(*(np.concatenate(x, 1) for x in zip(*parts, strict=True)))
    later = path._replace(state=path.state.map(lambda x: x[:, 2:]), action=path.action[:, 2:])
    fresh = dream_clues(model, later, 2 * MISSED)
    for name in set(Clues._fields) - {"drawn_pixels", "drawn_reward", "drawn_total"}:
        one, wanted, other = getattr(found, name), getattr(whole, name), getattr(fresh, name)
        np.testing.assert_allclose(one[::2], wanted[::2], rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(one[1, 2:], other[1], rtol=1e-4, atol=1e-6, err_msg=name)

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from worldmodel.insight.rollouts import OpenLoop, frames, open_loop, strip
from worldmodel.model.transitions import EveryStep


def test_shapes_and_truth() -> None:
    model, data = tiny.world_model(), tiny.batch(5, 8, size=32)
    rollout = open_loop(model, data, context=3, sequences=2)
    assert rollout.truth.shape == rollout.dream.shape == rollout.difference.shape == (2, 8, 3, 16, 16)
    assert rollout.truth.dtype == rollout.dream.dtype == rollout.difference.dtype == torch.uint8
    small = data.image[:2].float().unfold(3, 2, 2).unfold(4, 2, 2).mean((-2, -1))
    assert (rollout.truth.float() - small).abs().max() <= 0.51
    assert torch.equal(rollout.difference.int(), (rollout.truth.int() - rollout.dream.int()).abs())
    assert torch.equal(rollout.reward, data.reward[:2])
    assert rollout.imagined_reward.shape == rollout.uncertainty.shape == (2, 8)
    assert (rollout.uncertainty > 0).all()
    assert rollout.valid.all()


def test_dream_sees_the_context_and_the_actions_and_nothing_else() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    dream = open_loop(model, data, context=3).dream
    assert torch.equal(dream, open_loop(model, data, context=3).dream)

    later = data.image.clone()
    later[:, 3:] = 255 - later[:, 3:]
    assert torch.equal(dream, open_loop(model, data._replace(image=later), context=3).dream)

    earlier = data.image.clone()
    earlier[:, 2] = 255 - earlier[:, 2]
    changed = (dream != open_loop(model, data._replace(image=earlier), context=3).dream).flatten(2).any(2)
    assert changed[:, 2:].any() and not changed[:, :2].any()

    action = data.action.clone()
    action[:, 5] = -action[:, 5]  # led to record 5
    changed = (dream != open_loop(model, data._replace(action=action), context=3).dream).flatten(2).any(2)
    assert changed[:, 5].all() and not changed[:, :5].any()


def test_reconstruction_is_the_model_s_own() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 6)
    rollout = open_loop(model, data, context=4)
    posterior = model.observe(data, mode=True)
    assert torch.equal(rollout.dream[:, :4], model.decoder.image(posterior.state.feature[:, :4]))


def test_another_episode_is_avoided_or_masked() -> None:
    data = tiny.batch(4, 8)
    is_first = data.is_first.clone()
    is_first[0, 4] = True  # soon after the context
    is_first[1, 1] = True  # within the context: nothing is lost
    is_first[2, 7] = True
    data = data._replace(is_first=is_first)
    whole = open_loop(tiny.world_model(), data, context=3, sequences=2)
    assert whole.valid.all()
    assert torch.equal(whole.reward, data.reward[[1, 3]])

    every = open_loop(tiny.world_model(), data, context=3, sequences=9)
    assert every.valid.sum(1).tolist() == [4, 8, 7, 8]
    for part in every[:6]:
        assert not part[0, 4:].any()
    assert every.dream[0, :4].any() and every.uncertainty[0, :4].all()


@pytest.mark.parametrize("context", [0, 8])
def test_context_out_of_range(context: int) -> None:
    with pytest.raises(ValueError, match="context must be from 1 to 7"):
        open_loop(tiny.world_model(), tiny.batch(2, 8), context=context)


def test_draws_follow_the_member_choice() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    first, second = (open_loop(model, data, context=3, choice=EveryStep(), mode=False).dream for _ in range(2))
    assert not torch.equal(first, second)


@pytest.fixture
def flat() -> OpenLoop:
    """Two sequences of five records in plain colours, two of them seen."""
    truth = torch.full((2, 5, 3, 8, 8), 200, dtype=torch.uint8)
    dream = torch.full_like(truth, 150)
    number = torch.zeros(2, 5)
    return OpenLoop(truth, dream, truth - dream, number, number, number, number == 0, 2)


def test_strip(flat: OpenLoop) -> None:
    picture = np.asarray(strip(flat, cell=32))
    assert picture.shape[0] >= 2 * 3 * 32 and picture.shape[1] >= 5 * 32
    unlabelled = picture[18:, 72:]
    for value in (200, 150, 50):
        assert ((unlabelled == value).all(-1)).sum() == 2 * 5 * 32 * 32
    marker = (picture == (255, 140, 0)).all(-1)
    column = marker.all(0)  # from top to bottom
    assert column.any()
    seen = (picture[18:, 72 : column.argmax()] == 200).all(-1).sum()
    assert seen == 2 * 2 * 32 * 32  # the frames of the context, and no other, stand left of the marker


def test_frames_mark_the_dream(flat: OpenLoop) -> None:
    film = frames(flat, cell=16)
    assert film.shape == (5, 2 * 24, 3 * 24, 3) and film.dtype == np.uint8
    orange = (film == (255, 140, 0)).all(-1).sum((1, 2))
    assert (orange[:2] == 0).all() and (orange[2:] == 2 * (24**2 - 16**2)).all()
    assert (film[:, 4:20, 28:44] == 150).all()

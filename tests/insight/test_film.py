from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import ImageDraw
from torch import Tensor

from tests import tiny
from worldmodel.control.actors import NormalActor
from worldmodel.control.planner_policy import PlannerPolicy
from worldmodel.control.planners.cem import CEM
from worldmodel.control.policies import ActorPolicy
from worldmodel.experience.collector import RandomPolicy
from worldmodel.insight.canvas import DREAMT, Line, Scale, blank, plot, scale_of
from worldmodel.insight.dreams import decode, member_dreams
from worldmodel.insight.film import (
    Branches,
    Imagination,
    beside,
    branches,
    following,
    imagination,
    in_dream,
    render_branches,
    render_film,
    render_strip,
)
from worldmodel.insight.rollouts import open_loop
from worldmodel.model.transitions import EveryStep
from worldmodel.types import ActionSpec, LatentState

SPEC = ActionSpec(tiny.ACTION, False)


def start(sequences: int = 1) -> LatentState:
    state = tiny.world_model().observe(tiny.batch(sequences, 3), mode=True).state
    return LatentState(*(x[:, -1].detach() for x in state))


def test_dreams_are_those_of_open_loop_and_of_the_members() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    found, rollout = imagination(model, data, context=3), open_loop(model, data, context=3)
    assert np.array_equal(found.truth, rollout.truth.numpy())
    assert np.array_equal(found.dream, rollout.dream.numpy())
    for mine, its in ((found.imagined_reward, rollout.imagined_reward), (found.uncertainty, rollout.uncertainty)):
        assert np.isnan(mine[:, 0]).all()  # an episode begins: no step led there
        np.testing.assert_allclose(mine[:, 1:], its[:, 1:], rtol=1e-5)
    assert found.valid.all() and np.isnan(found.reward[:, 0]).all()
    assert np.array_equal(found.reward[:, 1:], data.reward[:, 1:].numpy())
    later = imagination(model, data.map(lambda x: x[:, 1:]), context=3)
    assert np.isfinite([later.uncertainty, later.reward, later.imagined_reward]).all()
    assert np.array_equal(found.action, data.action.numpy())

    seen = model.observe(data.map(lambda x: x[:, :3]), mode=True).state
    own = member_dreams(model, LatentState(*(x[:, -1] for x in seen)), data.action[:, 3:])
    assert found.members.shape == (tiny.MEMBERS, 2, 8, 3, 16, 16)
    assert np.array_equal(found.members[:, :, 3:], decode(model, own).numpy())
    assert (found.members[:, :, :3] == found.dream[:, :3]).all()
    assert not (found.members[0, :, 3:] == found.members[1, :, 3:]).all()
    assert len(imagination(model, data, context=3, members=False).members) == 0


def test_of_actions_nothing_is_known_until_the_truth_is_added() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    seen = data.map(lambda x: x[:, :3])
    dreamt = imagination(model, seen, 3, 5, following(data.action[:, 3:]))
    known = imagination(model, data, 3)
    assert dreamt.valid[:, :3].all() and not dreamt.valid[:, 3:].any()
    assert not dreamt.truth[:, 3:].any() and np.isnan(dreamt.reward[:, 3:]).all()
    for mine, its in zip(beside(model, dreamt, data), known, strict=True):
        np.testing.assert_array_equal(mine, its)
    some = beside(model, dreamt, data.map(lambda x: x[:, :6]))
    assert some.valid.sum(1).tolist() == [6, 6]


def test_the_truth_ends_with_its_episode() -> None:
    model, data = tiny.world_model(), tiny.batch(3, 8)
    data.is_first[0, 5] = data.is_first[1, 1] = True
    found = imagination(model, data, 3)
    assert found.valid.sum(1).tolist() == [5, 8, 8]
    assert not found.truth[0, 5:].any() and np.isnan(found.reward[0, 5:]).all()
    assert found.dream[0, 5:].any()
    render_strip(found), render_film(found)


@pytest.mark.parametrize(("context", "horizon"), [(0, 3), (3, 0), (4, 3), (8, None)])
def test_what_cannot_be_dreamt(context: int, horizon: int | None) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1|longer than the data"):
        imagination(tiny.world_model(), tiny.batch(2, 6), context, horizon)


def test_an_actor_acts_in_its_dream_by_the_states_of_the_dream() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 3)
    actor = NormalActor(model.feature_size, SPEC.size, 8, 1)
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter)  # its last layer begins at zero
    policy = ActorPolicy(model, actor, SPEC.size, explore=False)
    found = imagination(model, data, 3, 4, in_dream(policy, model))
    state, wanted = LatentState(*(x[:, -1] for x in model.observe(data, mode=True).state)), []
    for _ in range(4):
        wanted.append(actor.mode(state.feature).detach())
        state = model.rssm.sample_state(*model.rssm.img_step(state, wanted[-1]), None, mode=True)
    np.testing.assert_allclose(found.action[:, 3:], torch.stack(wanted, 1), atol=1e-6)
    assert policy.world_model is model


def test_planners_and_chance_act_in_dreams_too() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 3)
    policy = PlannerPolicy(model, CEM(horizon=3, candidates=6, elites=2, iterations=1), SPEC, explore=False, every=2)
    calls = []
    policy.plan = lambda *x, plan=policy.plan: calls.append(len(x[1])) or plan(*x)  # type: ignore[method-assign]
    for each in (policy, RandomPolicy(SPEC)):
        found = imagination(model, data, 3, 5, in_dream(each, model), members=False)
        assert (np.abs(found.action) <= 1).all() and found.action[:, 3:].any()


def test_branches_part_by_what_is_drawn() -> None:
    model, actions = tiny.world_model(), torch.rand(4, 6, tiny.ACTION) * 2 - 1
    found = branches(model, start(), following(actions), n=4, horizon=6)
    assert found.image.shape == (4, 7, 3, 16, 16) and found.image.dtype == np.uint8
    assert np.array_equal(found.action, actions.numpy())
    assert found.reward.shape == found.uncertainty.shape == found.cont.shape == (4, 6)
    assert (found.image[0, 0] == found.image[:, 0]).all() and not (found.image[0, 6] == found.image[1, 6]).all()

    def same(state: LatentState) -> Tensor:
        return torch.zeros(len(state.deter), tiny.ACTION)

    alike = branches(model, start(), same, n=3, horizon=4)
    assert (alike.image[0] == alike.image).all()
    drawn = branches(model, start(), same, n=3, horizon=4, choice=EveryStep(), mode=False)
    assert not (drawn.image[0] == drawn.image).all()
    for states, n in ((start(2), 3), (start(), 0)):
        with pytest.raises(ValueError, match="branches part from one state"):
            branches(model, states, same, n=n)


TRUTH, DREAM, MEMBERS = (200, 0, 90), (0, 150, 90), ((60, 0, 90), (0, 60, 90))  # no greys, which words have


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    """(3, 8, 8)"""
    return np.tile(np.array(colour, np.uint8)[:, None, None], (1, 8, 8))


@pytest.fixture
def flat() -> Imagination:
    """Two sequences of five records in plain colours, two of them seen, with two members; the truth ends early."""
    number = np.tile(np.arange(5, dtype=np.float32), (2, 1))
    truth, dream, first, second = (np.tile(plain(colour), (2, 5, 1, 1, 1)) for colour in (TRUTH, DREAM, *MEMBERS))
    valid = np.ones((2, 5), bool)
    valid[1, 4], truth[1, 4] = False, 0
    members = np.stack([first, second])
    return Imagination(truth, dream, members, number[..., None], number, number + 1, number, valid, 2)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(-1).sum())


def test_strip(flat: Imagination) -> None:
    picture = np.asarray(render_strip(flat, cell=32))
    assert count(picture, TRUTH) == 9 * 32**2
    assert [count(picture, value) for value in (DREAM, *MEMBERS)] == [10 * 32**2] * 3
    line = (picture == DREAMT).all(-1).all(0)
    assert line.any()
    assert count(picture[:, : line.argmax()], DREAM) == 2 * 2 * 32**2  # the context stands left of the line


def test_a_long_strip_shows_some(flat: Imagination) -> None:
    long = Imagination(*(np.repeat(x, 20, 2 if x.ndim == 6 else 1) for x in flat[:-1]), 2)
    picture = np.asarray(render_strip(long, cell=16))
    assert picture.shape[1] < 41 * 17 + 160
    assert count(picture, DREAM) == 33 * 2 * 16**2  # every third


def test_film(flat: Imagination) -> None:
    film = render_film(flat, cell=16)
    assert film.shape[0] == 5 and film.shape[-1] == 3 and film.dtype == np.uint8
    assert [count(frame, TRUTH) for frame in film] == [2 * 16**2] * 4 + [16**2]
    assert all(count(frame, DREAM) == count(frame, MEMBERS[1]) == 2 * 16**2 for frame in film)
    borders = [count(frame, DREAMT) > 2 * 3 * (24**2 - 16**2) for frame in film]
    assert borders == [False, False, True, True, True]
    assert all((a != b).any() for a, b in pairwise(film))  # the cursor moves
    alone = render_film(flat._replace(members=flat.members[:0]), cell=16)
    assert count(alone[0], MEMBERS[0]) == 0 and count(alone[0], DREAM) == 2 * 16**2


def test_branches_are_drawn() -> None:
    image = np.tile(plain(TRUTH), (3, 5, 1, 1, 1))
    number = np.ones((3, 4), np.float32)
    found = Branches(image, number[..., None], number, number, number)
    picture = np.asarray(render_branches(found, cell=16, names=["left", "right", "stay"]))
    assert count(picture, TRUTH) == 15 * 16**2


def test_a_plot_keeps_to_its_scale_and_leaves_gaps() -> None:
    values = np.array([0, 0, np.nan, 4, 4.0])
    scale = scale_of(values, least=Scale(0, 1))
    assert scale == (0, 4) and scale_of(least=Scale(-1, 1)) == (-1, 1)
    canvas, x = blank(300, 60), np.array([150, 180, 210, 240, 270])
    plot(ImageDraw.Draw(canvas), (140, 0, 290, 50), x, [Line(values, "#ff0000")], scale, "x")
    rows, columns = np.nonzero((np.asarray(canvas) == (255, 0, 0)).all(-1))
    assert set(columns) <= {*range(149, 183), *range(239, 273)}
    assert rows[columns < 200].min() >= 45 and rows[columns > 200].max() <= 5

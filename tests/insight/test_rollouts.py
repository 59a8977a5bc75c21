from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.controller import ActorController, RandomController
from worldmodel.control.imagine import following
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners.cem import CEM
from worldmodel.control.propagation import TS1, Mixture
from worldmodel.insight.rollouts import branches, imagine_members, longest, open_loop, with_truth
from worldmodel.types import ActionSpec, LatentState, SequenceBatch

SPEC = ActionSpec(tiny.ACTION, False)


def start(sequences: int = 1) -> LatentState:
    state = tiny.world_model().observe(tiny.batch(sequences, 3), mode=True).state
    return state.map(lambda x: x[:, -1].detach())


def test_shapes_and_truth() -> None:
    model, data = tiny.world_model(), tiny.batch(5, 8, size=32)
    found = open_loop(model, data, context=3)
    assert found.truth.shape == found.image.shape == (5, 8, 3, 16, 16)
    assert found.truth.dtype == found.image.dtype == torch.uint8
    small = data.image.float().unfold(3, 2, 2).unfold(4, 2, 2).mean((-2, -1))
    assert (found.truth.float() - small).abs().max() <= 0.51
    assert found.state.feature.shape == (5, 8, model.feature_size)
    assert torch.equal(found.action, data.action[:, 1:]) and torch.equal(found.real_reward, data.reward[:, 1:])
    assert found.reward.shape == found.uncertainty.shape == found.cont.shape == (5, 7)
    assert (found.uncertainty > 0).all() and found.reward.isfinite().all()
    assert found.valid.all() and found.members is None and found.context == 3
    assert open_loop(model, data, context=3, horizon=2).image.shape[1] == 5


def test_it_sees_the_context_and_the_actions_and_nothing_else() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)

    def image(batch: SequenceBatch) -> Tensor:
        return open_loop(model, batch, context=3).image

    dream = image(data)
    assert torch.equal(dream, image(data))
    later = data.image.clone()
    later[:, 3:] = 255 - later[:, 3:]
    assert torch.equal(dream, image(data._replace(image=later)))

    earlier = data.image.clone()
    earlier[:, 2] = 255 - earlier[:, 2]
    changed = (dream != image(data._replace(image=earlier))).flatten(2).any(2)
    assert changed[:, 2:].any() and not changed[:, :2].any()

    action = data.action.clone()
    action[:, 5] = -action[:, 5]  # led to record 5
    changed = (dream != image(data._replace(action=action))).flatten(2).any(2)
    assert changed[:, 5].all() and not changed[:, :5].any()


def test_reconstruction_is_the_model_s_own() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 6)
    filtered = model.observe(data, mode=True)
    wanted = model.decoder.image(filtered.state.feature[:, :4]).int()
    assert (open_loop(model, data, context=4).image[:, :4].int() - wanted).abs().max() <= 1


def test_the_truth_ends_with_its_episode() -> None:
    data = tiny.batch(4, 8)
    is_first = data.is_first.clone()
    is_first[0, 4] = True  # soon after the context
    is_first[1, 1] = True  # within the context: nothing is lost, but no step led there
    is_first[2, 7] = True
    data = data._replace(is_first=is_first)
    found = open_loop(tiny.world_model(), data, context=3)
    assert found.valid.sum(1).tolist() == [4, 8, 7, 8]
    assert not found.truth[0, 4:].any() and found.real_reward[0, 3:].isnan().all()
    assert found.image[0, 4:].any() and found.reward[0].isfinite().all()  # what is imagined goes on
    for part in (found.reward, found.real_reward, found.uncertainty):
        assert part[1].isnan().tolist() == [True] + [False] * 6
    best = longest(data, context=3, count=2)
    assert torch.equal(best.reward, data.reward[[1, 3]]) and len(longest(data, 3, 9).reward) == 4


@pytest.mark.parametrize(("context", "horizon"), [(0, 3), (3, 0), (4, 3), (8, None), (6, None)])
def test_what_cannot_be_imagined(context: int, horizon: int | None) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1|longer than the data"):
        open_loop(tiny.world_model(), tiny.batch(2, 6), context, horizon)


def test_draws_follow_the_propagation() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    first, second = (open_loop(model, data, context=3, propagation=TS1(), mode=False).image for _ in range(2))
    assert not torch.equal(first, second)


def test_members_imagine_beside_the_mixture() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    found = open_loop(model, data, context=3, members=True)
    assert torch.equal(found.image, open_loop(model, data, context=3).image)
    own = imagine_members(model, found.state.map(lambda x: x[:, 2]), data.action[:, 3:])
    assert own.action.shape == (tiny.MEMBERS, 2, 5, tiny.ACTION)
    assert found.members.shape == (tiny.MEMBERS, 2, 8, 3, 16, 16)
    assert torch.equal(found.members[:, :, 3:], model.decoder.image(own.state.feature[:, :, 1:]))
    assert (found.members[:, :, :3] == found.image[:, :3]).all()
    assert not (found.members[0, :, 3:] == found.members[1, :, 3:]).all()


def test_of_actions_nothing_is_known_until_the_truth_is_added() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 8)
    imagined = open_loop(model, data.map(lambda x: x[:, :3]), 3, 5, act=following(data.action[:, 3:]), members=True)
    assert imagined.valid[:, :3].all() and not imagined.valid[:, 3:].any()
    assert not imagined.truth[:, 3:].any() and imagined.real_reward[:, 2:].isnan().all()
    known, added = open_loop(model, data, 3, members=True), with_truth(model, imagined, data)
    for mine, its in zip(added[1:], known[1:], strict=True):
        torch.testing.assert_close(mine, its, equal_nan=True)
    some = with_truth(model, imagined, data.map(lambda x: x[:, :6]))
    assert some.valid.sum(1).tolist() == [6, 6]


def test_an_actor_acts_by_the_states_that_are_imagined() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 3)
    control = ActorCritic(SPEC, model.feature_size, ThroughModel(), Mixture(), width=8)
    actor = control.actor
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter)  # its last layer begins at zero
    found = open_loop(model, data, 3, 4, act=ActorController(model, control, SPEC).acting())
    torch.testing.assert_close(found.action[:, 2:], actor.mode(found.state.feature[:, 2:-1]).detach())


def test_planners_and_chance_act_in_rollouts_too() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 3)
    search = CEM(horizon=3, candidates=6, elites=2, iterations=1)
    planner = PlannerController(model, None, SPEC, planner=search, every=2)
    for each in (planner, RandomController(model, None, SPEC)):
        found = open_loop(model, data, 3, 5, act=each.acting())
        assert (found.action.abs() <= 1).all() and found.action[:, 2:].any()


def test_branches_part_by_what_is_drawn() -> None:
    model, actions = tiny.world_model(), torch.rand(4, 6, tiny.ACTION) * 2 - 1
    found = branches(model, start(), following(actions), n=4, horizon=6)
    assert found.image.shape == (4, 7, 3, 16, 16) and found.image.dtype == torch.uint8
    assert torch.equal(found.action, actions)
    assert found.reward.shape == found.uncertainty.shape == found.cont.shape == (4, 6)
    assert (found.image[0, 0] == found.image[:, 0]).all() and not (found.image[0, 6] == found.image[1, 6]).all()

    def same(state: LatentState) -> Tensor:
        return torch.zeros(len(state.deter), tiny.ACTION)

    alike = branches(model, start(), same, n=3, horizon=4)
    assert (alike.image[0].int() - alike.image.int()).abs().max() <= 1
    drawn = branches(model, start(), same, n=3, horizon=4, propagation=TS1(), mode=False)
    assert not (drawn.image[0] == drawn.image).all()
    for states, n in ((start(2), 3), (start(), 0)):
        with pytest.raises(ValueError, match="branches part from one state"):
            branches(model, states, same, n=n)

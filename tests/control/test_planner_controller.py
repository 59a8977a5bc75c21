from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.controller import LatentPolicy
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners.base import Dynamics, Planner
from worldmodel.control.propagation import Mixture
from worldmodel.types import ActionSpec, Observation, Plan, SequenceBatch

N, H = 3, 4
SPEC, CHOICES = ActionSpec(tiny.ACTION, False), ActionSpec(tiny.ACTION, True)


def wish(feature: Tensor) -> Tensor:
    """A plan (*B, H, A) for states (*B, F), of their memory and their latents."""
    size = H * tiny.ACTION
    return (feature[..., :size] + 0.4 * feature[..., -size:] - 0.1).clamp(-0.8, 0.8).unflatten(-1, (H, tiny.ACTION))


class Told(Planner):
    """Its plans are a wish, plus a little of where it was told to begin; notes what it is given."""

    def __init__(self, climbs: bool = False) -> None:
        super().__init__(H)
        self.climbs = climbs
        self.asked: list[tuple[Tensor, Tensor | None, Tensor | None]] = []

    def plan(
        self,
        dynamics: Dynamics,
        state: Tensor,
        spec: ActionSpec,
        warm: Tensor | None = None,
        proposals: Tensor | None = None,
    ) -> Plan:
        self.asked.append((state, warm, proposals))
        mean = wish(state) if warm is None else wish(state) + 0.1 * warm
        if self.climbs:
            with torch.enable_grad():
                sequences = mean.unsqueeze(1).detach().requires_grad_()
                self.score(dynamics, state, spec, sequences)[0].sum().backward()  # straight into whatever has one
        elites = torch.stack([mean, -mean], 1)
        nothing = mean.new_zeros(len(mean))
        return Plan(mean[:, 0], mean, torch.zeros_like(mean), nothing, nothing, elites, torch.zeros(len(mean), 2))


def actor_critic(feature_size: int, spec: ActionSpec = SPEC) -> ActorCritic:
    made = ActorCritic(spec, feature_size, ThroughModel(), Mixture(), width=16)
    for net in (made.actor.net, made.critic.net):
        torch.nn.init.normal_(net[-1].weight)
    return made


def policy(planner: Planner, explore: bool = False, spec: ActionSpec = SPEC, **settings: object) -> LatentPolicy:
    return LatentPolicy(PlannerController(tiny.world_model(), None, spec, planner=planner, **settings), explore)


def act(policy: LatentPolicy, data: SequenceBatch) -> Tensor:
    """The policy's actions, (N, T, A), on images that were seen already."""
    memory, actions = policy.initial(len(data.image)), []
    for t in range(data.image.shape[1]):
        action, memory = policy(Observation(data.image[:, t], data.is_first[:, t]), memory)
        actions.append(action)
    return torch.stack(actions, 1)


def begun_at(data: SequenceBatch, row: int, time: int) -> SequenceBatch:
    """The same images, of which one sequence begins another episode."""
    is_first = data.is_first.clone()
    is_first[row, time] = True
    return data._replace(is_first=is_first)


def test_evaluation_is_the_filter_and_the_plan_s_first_step() -> None:
    chosen, data = policy(Told(), warm=False), tiny.batch(N, 5)
    actions = act(chosen, data)
    assert torch.equal(actions, act(chosen, data)) and not actions.requires_grad
    led = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)  # the action that led to each image
    feature = chosen.world_model.observe(data._replace(action=led), mode=True).state.feature
    torch.testing.assert_close(actions, wish(feature)[..., 0, :])


def test_a_plan_begins_where_the_last_one_left_off() -> None:
    planner = Told()
    act(policy(planner, elites=3), tiny.batch(N, 3))
    (_, first, offered), (state, second, again), (_, third, _) = planner.asked
    assert not first.any() and not offered.any() and offered.shape == (N, 3, H, tiny.ACTION)
    made = wish(state) + 0.1 * second
    torch.testing.assert_close(third, torch.cat([made[:, 1:], torch.zeros(N, 1, tiny.ACTION)], 1))
    # the two elites that there were, and the mean where there were no more
    torch.testing.assert_close(again, torch.stack([second, -second, second], 1))
    assert second.any()


def test_nothing_is_offered_where_there_is_nothing() -> None:
    planner = Told()
    act(policy(planner, warm=False), tiny.batch(N, 2))
    assert all(warm is None and proposals is None for _, warm, proposals in planner.asked)


@pytest.mark.parametrize("every", [1, 3])
def test_a_new_episode_forgets(every: int) -> None:
    data = begun_at(tiny.batch(N, 7), 1, 4)
    actions = act(policy(Told(), every=every, elites=1), data)
    alone = act(policy(Told(), every=every, elites=1), data.map(lambda x: x[1:2, 4:]))
    torch.testing.assert_close(actions[1, 4:], alone[0])
    calm = act(policy(Told(), every=every, elites=1), tiny.batch(N, 7))
    torch.testing.assert_close(actions[[0, 2]], calm[[0, 2]])  # the others notice nothing
    assert not torch.allclose(actions[1, 4:], calm[1, 4:])


def test_a_plan_is_followed_until_the_next() -> None:
    planner = Told()
    actions = act(policy(planner, every=3, warm=False), begun_at(tiny.batch(N, 7), 1, 4))
    # at the start, then every third step; the middle one begins anew at 4
    assert [len(state) for state, _, _ in planner.asked] == [N, N, 1, N - 1]
    first, second, third, fourth = (wish(state) for state, _, _ in planner.asked)
    torch.testing.assert_close(actions[:, :3], first[:, :3])
    torch.testing.assert_close(actions[[0, 2], 3:6], second[[0, 2], :3])
    torch.testing.assert_close(actions[1, 3], second[1, 0])
    torch.testing.assert_close(actions[1:2, 4:], third[:, :3])
    torch.testing.assert_close(actions[[0, 2], 6], fourth[:, 0])


def test_the_actor_proposes() -> None:
    model, planner = tiny.world_model(), Told()
    control = actor_critic(model.feature_size)
    chosen = PlannerController(model, control, SPEC, planner=planner, proposals=3, elites=2)
    act(LatentPolicy(chosen), tiny.batch(N, 2))
    for state, _, proposals in planner.asked:
        assert proposals.shape == (N, 2 + 3, H, tiny.ACTION) and proposals.abs().max() <= 1
        torch.testing.assert_close(proposals[:, 2, 0], control.actor.mode(state))
        followed = chosen.dynamics.rollout(state, proposals[:, 2])
        torch.testing.assert_close(proposals[:, 2], control.actor.mode(followed.state[:, :-1]))
        assert not torch.allclose(proposals[:, 3], proposals[:, 4])


def test_the_critic_values_the_end_if_asked() -> None:
    model = tiny.world_model()
    control, state = actor_critic(model.feature_size), torch.randn(N, model.feature_size)
    both = (PlannerController(model, control, SPEC, planner=Told(), value=v) for v in (True, False))
    asked, not_asked = (x.dynamics for x in both)
    assert torch.equal(asked.value(state), control.critic(state)) and not not_asked.value(state).any()


def test_exploring_disturbs_within_limits() -> None:
    data = tiny.batch(40, 3)
    torch.manual_seed(0)
    calm = policy(Told(), explore=True, noise=0.0, warm=False)
    memory = calm.initial(40)
    observation = Observation(data.image[:, 0], data.is_first[:, 0])
    torch.manual_seed(1)
    still, _ = calm(observation, memory)
    torch.manual_seed(1)
    moved, after = policy(Told(), explore=True, noise=0.3, warm=False)(observation, memory)
    assert 0.2 < (moved - still)[moved.abs() < 1].std() < 0.4 and moved.abs().max() <= 1
    assert torch.equal(after.action, moved)  # what was carried out is what the filter takes in


def test_exploring_among_discrete_actions() -> None:
    data = tiny.batch(400, 1)
    observation = Observation(data.image[:, 0], data.is_first[:, 0])

    class First(Told):
        def plan(self, *given: object, **more: object) -> Plan:
            made = super().plan(*given, **more)
            return made._replace(action=torch.tensor([1.0, 0.0]).expand_as(made.action))

    chosen = policy(First(), explore=True, spec=CHOICES, noise=0.5)
    action, _ = chosen(observation, chosen.initial(400))
    assert set(action.flatten().tolist()) == {0.0, 1.0} and (action.sum(-1) == 1).all()
    assert 0.15 < action[:, 1].mean() < 0.35  # half of the half


def test_plans_of_discrete_actions_are_followed_one_hot() -> None:
    actions = act(policy(Told(), spec=CHOICES, every=2, warm=False), tiny.batch(N, 4))
    assert (actions[:, 1::2].sum(-1) == 1).all() and set(actions[:, 1::2].flatten().tolist()) == {0.0, 1.0}


def test_the_model_is_left_as_it_was() -> None:
    model = tiny.world_model()
    control = actor_critic(model.feature_size)
    chosen = LatentPolicy(PlannerController(model, control, SPEC, planner=Told(climbs=True)))
    act(chosen, tiny.batch(N, 2))
    modules = (model, control.critic.net)
    assert all(p.grad is None and p.requires_grad for module in modules for p in module.parameters())


def test_the_first_memory_draws_nothing_and_has_a_row_for_each() -> None:
    chosen = policy(Told(), elites=2)
    before = torch.get_rng_state()
    leaves = pytree.tree_leaves(chosen.initial(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(x, Tensor) and len(x) == 5 for x in leaves)
    _, memory = chosen(Observation(*(x[:, 0] for x in tiny.batch(5)[:4:3])), chosen.initial(5))
    assert [x.shape for x in pytree.tree_leaves(memory)] == [x.shape for x in leaves]


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": H + 1}, {"noise": -1.0}, {"proposals": -1}, {"elites": -1}])
def test_numbers_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"made anew|cannot be negative"):
        policy(Told(), **wrong)


def test_in_a_rollout_it_remembers_as_a_policy_does() -> None:
    chosen = policy(Told(), every=2, elites=1).controller
    memory, state, wanted = chosen.initial(N), tiny.world_model().observe(tiny.batch(N, 5)).state, []
    for t in range(5):
        action, memory = chosen.act(state.map(lambda x, t=t: x[:, t]), memory)
        wanted.append(action)
    for _ in range(2):  # each rollout begins anew
        act = chosen.acting()
        for t in range(5):
            assert torch.equal(act(state.map(lambda x, t=t: x[:, t])), wanted[t])

"""What planners share, and what all of them promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.control.planners.problems import Beacon, Chain, Cliff, DoubleIntegrator, Reach, certain
from worldmodel.control.planners import (
    CEM,
    ILQR,
    MPPI,
    Dynamics,
    GradientPlanner,
    Planner,
    RandomShooting,
    Step,
)
from worldmodel.control.planners.base import bound, given, ranked
from worldmodel.control.truncation import AtLimit, Gradual, Truncation
from worldmodel.types import ActionSpec, Plan, Trajectory

SAMPLING = [RandomShooting, CEM, MPPI]
EVERY = [*SAMPLING, GradientPlanner, ILQR]
every = pytest.mark.parametrize("kind", EVERY)
Kind = Callable[..., Planner]


class Broken(Reach):
    """Reach that gives no number where ``fails`` of the states after and the actions is true."""

    def __init__(self, fails: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.fails = fails

    def step(self, state: Tensor, action: Tensor) -> Step:
        after, reward, _, _ = super().step(state, action)
        return certain(after, torch.where(self.fails(after, action), torch.nan, reward))


class Counting(Reach):
    renewed = 0

    def renew(self) -> None:
        self.renewed += 1


def test_returns_by_hand() -> None:
    class Halves(Truncation):
        def __call__(self, uncertainty: Tensor) -> Tensor:
            return torch.where(uncertainty > 1, 0.5, 1.0)

    class Worth(Reach):
        def value(self, state: Tensor) -> Tensor:
            return state[:, 0]

    state = torch.zeros(1, 4, 2)
    state[0, -1, 0] = 100
    reward, uncertainty = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 2.0, 0.5]])
    cont = torch.tensor([[1.0, 0.8, 0.9]])
    planner = CEM(3, discount=0.9, uncertainty_weight=-0.5, truncation=Halves())
    alive = [1, 0.9, 0.9 * 0.9 * 0.8 * 0.5, 0.9**3 * 0.8 * 0.5 * 0.9]
    expected = (1 - 0.5) + alive[1] * (2 - 1) + alive[2] * (4 - 0.25) + alive[3] * 100
    path = Trajectory(state, torch.zeros(1, 3, 1), reward, cont, uncertainty)
    assert planner.returns(Worth(), path).item() == pytest.approx(expected)


def test_nothing_counts_after_the_end_but_what_led_there_does() -> None:
    reward, cont = torch.tensor([[1.0, 7.0]]), torch.tensor([[0.0, 1.0]])
    ends = Trajectory(torch.ones(1, 3, 2), torch.zeros(1, 2, 1), reward, cont, torch.zeros(1, 2))
    assert CEM(2).returns(Beacon(), ends).tolist() == [1.0]


def test_a_rollout_is_its_steps() -> None:
    dynamics, state, actions = DoubleIntegrator(), torch.randn(3, 2), torch.rand(3, 4, 1)
    path = dynamics.rollout(state, actions)
    assert path.state.shape == (3, 5, 2) and torch.equal(path.state[:, 0], state)
    for t in range(4):
        after, reward, cont, uncertainty = dynamics.step(path.state[:, t], actions[:, t])
        assert torch.equal(path.state[:, t + 1], after) and torch.equal(path.reward[:, t], reward)
        assert torch.equal(path.cont[:, t], cont) and torch.equal(path.uncertainty[:, t], uncertainty)


def test_scores_belong_to_their_problem_and_sequence() -> None:
    dynamics, planner = Cliff(), CEM(4)
    state, sequences = torch.randn(3, 2), torch.randn(3, 5, 4, 2)
    returns, uncertainty = planner.score(dynamics, state, dynamics.spec, sequences)
    assert returns.shape == uncertainty.shape == (3, 5)
    path = dynamics.rollout(state[1:2], sequences[1, 2:3].clamp(-1, 1))
    assert returns[1, 2].item() == pytest.approx(planner.returns(dynamics, path).item(), abs=1e-5)
    assert uncertainty[1, 2].item() == pytest.approx(path.uncertainty.mean().item(), abs=1e-5)


def test_what_is_no_number_scores_lowest() -> None:
    class Given(Reach):
        def step(self, state: Tensor, action: Tensor) -> Step:
            return certain(state, action[:, 0] / action[:, 1])  # 1/0, -1/0, 0/0, 1/1

    sequences = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]).reshape(1, 4, 1, 2)
    returns, _ = CEM(1).score(Given(), torch.zeros(1, 2), Given.spec, sequences)
    assert returns.tolist() == [[-torch.inf] * 3 + [1.0]]


def test_bound() -> None:
    assert bound(torch.tensor([[-3.0, 0.2, 1.5]]), ActionSpec(3, False)).tolist() == [[-1, pytest.approx(0.2), 1]]
    assert bound(torch.tensor([[-3.0, 0.2, 1.5]], dtype=torch.float64), ActionSpec(3, True)).tolist() == [[0, 0, 1]]
    x = torch.tensor([-1.0, 0.3, 1.0, 2.0], requires_grad=True)
    y = bound(x, ActionSpec(4, False))
    assert y.detach().equal(x.detach().clamp(-1, 1)) and torch.autograd.grad(y.sum(), x)[0].tolist() == [1] * 4


def test_ranked_and_given() -> None:
    sequences = torch.arange(6.0).reshape(2, 3, 1, 1)
    best, returns = ranked(sequences, torch.tensor([[1.0, 3.0, 2.0], [-torch.inf, 0.0, 5.0]]), 2)
    assert best.flatten(1).tolist() == [[1, 2], [5, 4]] and returns.tolist() == [[3, 2], [5, 0]]
    assert ranked(sequences, torch.zeros(2, 3), 10)[0].shape == (2, 3, 1, 1)
    assert given(None, None) == []
    warm, proposals = given(torch.full((2, 1, 1), torch.nan), sequences)
    assert warm.shape == (2, 1, 1, 1) and not warm.any() and torch.equal(proposals, sequences)


@pytest.mark.parametrize("arguments", [{"horizon": 0}, {"discount": 0.0}, {"discount": 1.1}])
@every
def test_horizon_and_discount_have_ranges(kind: Kind, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"a planner's {next(iter(arguments))} must be"):
        kind(**arguments)


@pytest.mark.parametrize("problems", [1, 5])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every
def test_shape_type_and_meaning_of_a_plan(kind: Kind, problems: int, horizon: int, dtype: torch.dtype) -> None:
    dynamics, planner = Cliff(), kind(horizon, uncertainty_weight=-0.1)
    state = torch.randn(problems, 2, dtype=dtype)
    plan = planner.plan(dynamics, state, dynamics.spec, proposals=2 * torch.randn(problems, 3, horizon, 2, dtype=dtype))
    elites = plan.elites.shape[1]
    shapes = [(2,), (horizon, 2), (horizon, 2), (), (), (elites, horizon, 2), (elites,)]
    for x, shape in zip(plan, shapes, strict=True):
        assert x.shape == (problems, *shape) and x.dtype == dtype and x.isfinite().all() and not x.requires_grad
    assert plan.mean.abs().max() <= 1 and torch.equal(plan.action, plan.mean[:, 0])
    returns, uncertainty = planner.score(dynamics, state, dynamics.spec, plan.mean.unsqueeze(1))
    torch.testing.assert_close(plan.value, returns[:, 0])
    torch.testing.assert_close(plan.uncertainty, uncertainty[:, 0])
    torch.testing.assert_close(plan.elite_values, planner.score(dynamics, state, dynamics.spec, plan.elites)[0])
    assert (plan.elite_values.diff(dim=1) <= 0).all() and (plan.value >= plan.elite_values[:, 0] - 1e-4).all()


@every
def test_a_plan_is_never_worse_than_what_was_given(kind: Kind) -> None:
    dynamics, state = Reach(), 2 * torch.rand(5, 2) - 1
    best, value = dynamics.optimum(state, 6, 0.99)
    nothing = torch.zeros_like(best)
    as_proposal = kind(6).plan(dynamics, state, dynamics.spec, proposals=torch.stack([nothing, best], 1))
    as_warm = kind(6).plan(dynamics, state, dynamics.spec, warm=best, proposals=nothing.unsqueeze(1))
    for plan in (as_proposal, as_warm):
        torch.testing.assert_close(plan.value, value, atol=1e-5, rtol=1e-5)


@every
def test_a_state_that_is_no_number_harms_no_other(kind: Kind) -> None:
    torch.manual_seed(0)
    dynamics, state = Reach(), torch.full((4, 2), 2.0)
    state[1] = torch.nan
    plan = kind(4).plan(dynamics, state, dynamics.spec, warm=torch.full((4, 4, 2), torch.nan))
    assert not plan.mean[1].any() and not plan.action[1].any() and plan.value[1] == -torch.inf
    assert plan.mean.isfinite().all() and plan.std.isfinite().all()
    doing_nothing = -(1.5**2 + 2.4**2) * (1 + 0.99 + 0.99**2 + 0.99**3)
    best = dynamics.optimum(state, 4, 0.99)[1]
    assert (plan.value > (best + doing_nothing) / 2)[[0, 2, 3]].all()


@every
def test_where_nothing_gives_a_number_the_plan_is_zeros(kind: Kind) -> None:
    dynamics = Broken(lambda after, action: torch.ones_like(after[:, 0], dtype=torch.bool))
    plan = kind(3).plan(dynamics, torch.zeros(2, 2), dynamics.spec, proposals=torch.ones(2, 1, 3, 2))
    assert not plan.mean.any() and not plan.action.any() and (plan.value == -torch.inf).all()
    assert plan.std.isfinite().all() and plan.elites.isfinite().all()


@every
def test_what_is_no_number_is_never_chosen(kind: Kind) -> None:
    torch.manual_seed(0)
    dynamics = Broken(lambda after, action: action[:, 0] > 0.1)  # the way to the goal
    plan = kind(2).plan(dynamics, torch.zeros(9, 2), dynamics.spec, proposals=torch.ones(9, 2, 2, 2))
    assert plan.value.isfinite().all() and (plan.mean[..., 0] <= 0.1).all()
    assert plan.mean[:, 0, 1].mean() < -0.05  # along the other axis nothing is in the way


@every
def test_the_value_beyond_the_horizon_is_used(kind: Kind) -> None:
    torch.manual_seed(0)
    dynamics, state = Beacon(), torch.tensor([[2.0, -2.0], [-2.0, 2.0]])
    plan = kind(1).plan(dynamics, state, dynamics.spec)
    assert torch.equal(plan.action.sign(), (Beacon.goal - state).sign()) and (plan.action.abs() > 0.6).all()


START = torch.tensor([[0.05, 0.0], [0.1, 0.2]])


def where(kind: Kind, bait: float, weight: float, truncation: Truncation | None) -> Tensor:
    """Where on the Cliff a plan ends, x (2,)."""
    torch.manual_seed(0)
    dynamics = Cliff(bait)
    plan: Plan = kind(6, uncertainty_weight=weight, truncation=truncation).plan(dynamics, START, dynamics.spec)
    return dynamics.rollout(START, plan.mean).state[:, -1, 0]


@every
def test_uncertainty_is_shunned_or_sought(kind: Kind) -> None:
    assert (where(kind, bait=2.0, weight=0.0, truncation=None) > 0.3).all()
    assert (where(kind, bait=2.0, weight=-1.0, truncation=None) < 0).all()
    assert (where(kind, bait=0.0, weight=0.0, truncation=None) < 0).all()
    assert (where(kind, bait=0.0, weight=1.0, truncation=None) > 0.3).all()


@pytest.mark.parametrize("truncation", [AtLimit(1.0), Gradual(1.2)])
@pytest.mark.parametrize("kind", SAMPLING)
def test_what_is_not_trusted_does_not_lure(kind: Kind, truncation: Truncation) -> None:
    assert (where(kind, bait=2.0, weight=0.0, truncation=truncation) < 0.2).all()


@every
def test_dynamics_are_renewed_once(kind: Kind) -> None:
    dynamics = Counting()
    kind(2).plan(dynamics, torch.zeros(2, 2), dynamics.spec)
    assert dynamics.renewed == 1


@every
def test_replanning_reaches_the_goal(kind: Kind) -> None:
    torch.manual_seed(0)
    dynamics, planner, state = Reach(), kind(4), torch.tensor([[-1.0, 1.0], [1.5, 0.0]])
    warm = proposals = None
    for _ in range(12):
        plan = planner.plan(dynamics, state, dynamics.spec, warm, proposals)
        state = dynamics.step(state, plan.action).state
        warm, proposals = plan.mean.roll(-1, 1), plan.elites.roll(-1, 2)
    assert ((state - Reach.goal).norm(dim=-1) < 0.25).all()


@pytest.mark.parametrize("kind", SAMPLING)
def test_discrete_actions(kind: Kind) -> None:
    torch.manual_seed(0)
    dynamics, state, planner = Chain(), torch.tensor([[1.0], [2.0], [3.0], [4.0]]), kind(4)
    plan = planner.plan(dynamics, state, dynamics.spec)
    assert ((plan.action == 1).sum(1) == 1).all() and ((plan.action == 0).sum(1) == 2).all()
    torch.testing.assert_close(plan.value, dynamics.optimum(state, 4, planner.discount))
    for _ in range(3):
        state = dynamics.step(state, planner.plan(dynamics, state, dynamics.spec).action).state
    assert (state == dynamics.last).all()


@every
def test_parameters_of_the_dynamics_get_no_gradient(kind: Kind) -> None:
    class Learned(Dynamics):
        net = torch.nn.Linear(4, 2)

        def step(self, state: Tensor, action: Tensor) -> Step:
            after = self.net(torch.cat([state, action], -1))
            return certain(after, after.sum(-1))

    state = torch.zeros(2, 2, requires_grad=True)
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            plan = kind(3).plan(Learned(), state, Reach.spec)
        assert not any(x.requires_grad for x in plan)
    assert state.grad is None and all(p.grad is None and p.requires_grad for p in Learned.net.parameters())

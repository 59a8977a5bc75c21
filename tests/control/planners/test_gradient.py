"""Gradient ascent: how near it comes to the optimum, and how it treats gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.control.planners.problems import Chain, DoubleIntegrator, Reach, certain
from worldmodel.control.planners import GradientPlanner, Step


@pytest.mark.parametrize(("steps", "tolerance"), [(20, 0.1), (80, 0.01)])
@pytest.mark.parametrize("dynamics", [DoubleIntegrator(), Reach()])
def test_plans_come_near_the_optimum(dynamics: DoubleIntegrator | Reach, steps: int, tolerance: float) -> None:
    planner = GradientPlanner(8, steps=steps)
    corner = torch.tensor([0.4, -0.1]) if isinstance(dynamics, DoubleIntegrator) else torch.tensor([1.8, 0.9])
    state = corner * torch.linspace(-1, -0.6, 5).unsqueeze(1)
    best, value = dynamics.optimum(state, 8, planner.discount)
    plan = planner.plan(dynamics, state, dynamics.spec)
    idle = planner.score(dynamics, state, dynamics.spec, torch.zeros_like(best).unsqueeze(1))[0][:, 0]
    missing = (value - plan.value) / (value - idle)
    assert (missing < tolerance).all() and (missing > -1e-4).all()
    if steps > 20:
        torch.testing.assert_close(plan.action, best[:, 0], atol=0.15, rtol=0)


def test_a_batch_is_planned_as_each_alone() -> None:
    dynamics, planner = Reach(), GradientPlanner(5)
    state = torch.randn(4, 2)
    together = planner.plan(dynamics, state, dynamics.spec)
    for i in range(4):
        alone = planner.plan(dynamics, state[i : i + 1], dynamics.spec)
        torch.testing.assert_close(together.mean[i], alone.mean[0], atol=1e-4, rtol=0)


def test_a_warm_start_helps() -> None:
    dynamics, planner, state = DoubleIntegrator(), GradientPlanner(8, steps=2), torch.tensor([[0.4, -0.1]])
    best, value = dynamics.optimum(state, 8, planner.discount)
    cold, warm = (planner.plan(dynamics, state, dynamics.spec, w).value for w in (None, 0.9 * best))
    assert value >= warm > cold


def test_it_is_never_worse_than_its_start() -> None:
    dynamics, state = Reach(), torch.randn(5, 2)
    start = 2 * torch.rand(5, 4, 2) - 1
    wild = GradientPlanner(4, steps=1, rate=50.0)  # one step that throws every action to its limit
    before, _ = wild.score(dynamics, state, dynamics.spec, start.unsqueeze(1))
    assert (wild.plan(dynamics, state, dynamics.spec, warm=start).value >= before[:, 0] - 1e-5).all()


def test_more_starts_find_the_higher_hill() -> None:
    class Hills(Reach):
        """A low hill near where one begins, at x = 0.2, and a high one at -0.8."""

        def step(self, state: Tensor, action: Tensor) -> Step:
            x = action[:, 0]
            return certain(state, (-30 * (x - 0.2) ** 2).exp() + 3 * (-30 * (x + 0.8) ** 2).exp())

    torch.manual_seed(0)
    state = torch.zeros(3, 2)
    one, many = (GradientPlanner(1, candidates=n).plan(Hills(), state, Hills.spec) for n in (1, 20))
    assert (one.value - 1).abs().max() < 0.01 and (many.value - 3).abs().max() < 0.01
    proposed = GradientPlanner(1).plan(Hills(), state, Hills.spec, proposals=torch.full((3, 1, 1, 2), -0.6))
    assert (proposed.value - 3).abs().max() < 0.01
    assert many.elites.shape == (3, 8, 1, 2) and proposed.elites.shape == (3, 2, 1, 2)


def test_an_action_at_its_limit_can_leave_it() -> None:
    dynamics, state = Reach(), Reach.goal.unsqueeze(0)
    plan = GradientPlanner(3, steps=60).plan(dynamics, state, dynamics.spec, warm=torch.ones(1, 3, 2))
    assert plan.value > -0.01 and plan.mean.abs().max() < 0.3


def test_a_broken_slope_leaves_its_action_and_no_other() -> None:
    class Kink(Reach):
        def step(self, state: Tensor, action: Tensor) -> Step:
            kink = (action[:, 0] - 0.5).abs().sqrt()  # at 0.5 its slope is no number
            return certain(state, 0 * kink - action[:, 1] ** 2)

    plan = GradientPlanner(2).plan(Kink(), torch.zeros(1, 2), Kink.spec, warm=torch.full((1, 2, 2), 0.5))
    assert (plan.mean[..., 0] == 0.5).all() and plan.mean[..., 1].abs().max() < 0.1


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"candidates": 0}, {"elites": 0}, {"rate": 0.0}])
def test_numbers_have_ranges(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}.* must be"):
        GradientPlanner(3, **arguments)


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="continuous actions only: use CEM, MPPI or RandomShooting"):
        GradientPlanner(3).plan(Chain(), torch.zeros(1, 1), Chain.spec)

"""Legend: B problems, H horizon, X state size, A action size."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from tests import tiny
from tests.control.planners.problems import Cliff, DoubleIntegrator, certain
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.planners.base import Dynamics, Planner, Step
from worldmodel.control.planners.ilqr import ILQR
from worldmodel.control.truncation import Gradual
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.types import ActionSpec

TWO = ActionSpec(2, discrete=False)
EXACT: dict[str, Any] = {"iterations": 20, "tolerance": 1e-14}


class LinearQuadratic(Dynamics):
    """Random linear dynamics, with quadratic rewards and final values; the episode goes on with probability 0.9."""

    def __init__(self, size: int, pull: float, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.move, self.drift = 0.8 * draw(size, size + 2) / size**0.5, 0.1 * draw(size)
        root, end = draw(size + 2, size + 2), draw(size, size)
        self.curvature, self.slope = root @ root.T / size + torch.eye(size + 2), pull * draw(size + 2)
        self.end, self.end_slope = end @ end.T / size, pull * draw(size)

    def step(self, state: Tensor, action: Tensor) -> Step:
        z = torch.cat([state, action], -1)
        reward = -0.5 * ((z @ self.curvature) * z).sum(-1) - z @ self.slope
        return certain(z @ self.move.T + self.drift, reward)._replace(cont=torch.full_like(reward, 0.9))

    def value(self, state: Tensor) -> Tensor:
        return -0.5 * ((state @ self.end) * state).sum(-1) - state @ self.end_slope


class Pendulum(Dynamics):
    """Swing up a pole that the motor cannot lift at once: state (angle from upright, speed), smooth throughout."""

    spec = ActionSpec(1, discrete=False)

    def step(self, state: Tensor, action: Tensor) -> Step:
        angle, speed = state.unbind(-1)
        speed = speed + 0.1 * (5 * angle.sin() + 3 * action[:, 0] - 0.1 * speed)
        angle = angle + 0.1 * speed
        return certain(torch.stack([angle, speed], -1), angle.cos() - 0.01 * speed**2 - 0.001 * action[:, 0] ** 2)


class Foggy(Dynamics):
    """Nonlinear in everything: reward, continuation, uncertainty and final value depend on state and action."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = 0.6 * torch.randn(size + 2, size, generator=generator, dtype=torch.float64)

    def step(self, state: Tensor, action: Tensor) -> Step:
        after = (torch.cat([state, action], -1) @ self.weight).tanh()
        uncertainty = (after[:, 1] + action[:, 0]) ** 2
        reward = after[:, 0] - (after[:, 2] - 0.3) ** 2 - (action**2).sum(-1)
        return Step(after, reward, torch.sigmoid(2 + after[:, 3]), 1 + uncertainty)

    def value(self, state: Tensor) -> Tensor:
        return 2 + state[:, 0] * state[:, 1]


def objective(planner: Planner, dynamics: Dynamics, state: Tensor, flat: Tensor) -> Tensor:
    """The return () of a flat sequence from one state (X,)."""
    actions = flat.view(1, planner.horizon, -1)
    return planner.returns(dynamics, dynamics.rollout(state.unsqueeze(0), actions)).squeeze()


def reference(planner: Planner, dynamics: Dynamics, state: Tensor, size: int, start: Tensor | None = None) -> Any:
    """The best sequence from one state (X,) that L-BFGS-B finds within the limits."""

    def cost(flat: Any) -> tuple[float, Any]:
        leaf = torch.from_numpy(flat).requires_grad_()
        value = -objective(planner, dynamics, state, leaf)
        return value.item(), torch.autograd.grad(value, leaf)[0].numpy()

    first = torch.zeros(planner.horizon * size) if start is None else start
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000}
    found = scipy.optimize.minimize(
        cost, first.double().numpy(), jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * len(first), options=options
    )
    return torch.from_numpy(found.x).view(planner.horizon, size), -found.fun


@pytest.mark.parametrize("size", [3, 30])  # of the state, below and above H * A
def test_linear_quadratic_problems_are_solved_exactly(size: int) -> None:
    planner, dynamics = ILQR(6, 0.95, **EXACT | {"iterations": 5}), LinearQuadratic(size, pull=0.1)
    state = 0.1 * torch.randn(2, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = planner.plan(dynamics, state, TWO)
    for b in range(2):
        zero = torch.zeros(6 * 2, dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(lambda u, b=b: objective(planner, dynamics, state[b], u), zero)
        slope = torch.autograd.functional.jacobian(lambda u, b=b: objective(planner, dynamics, state[b], u), zero)
        best = -torch.linalg.solve(hessian, slope)
        assert best.abs().max() < 1, "the limits must not bind here"
        torch.testing.assert_close(plan.mean[b].flatten(), best, atol=1e-6, rtol=0)
        torch.testing.assert_close(plan.value[b], objective(planner, dynamics, state[b], best), atol=1e-9, rtol=0)
    torch.testing.assert_close(plan.action, plan.mean[:, 0])


def test_riccati() -> None:
    dynamics = DoubleIntegrator()
    state = torch.tensor([[0.2, -0.1], [-0.1, 0.0]], dtype=torch.float64)
    plan = ILQR(12, 0.95, **EXACT).plan(dynamics, state, dynamics.spec)
    actions, value = dynamics.optimum(state, 12, 0.95)
    torch.testing.assert_close(plan.mean, actions, atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.value, value, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [3, 30])
@pytest.mark.parametrize("pull", [5.0, 8.0])
def test_limits_that_bind(size: int, pull: float) -> None:
    planner, dynamics = ILQR(6, 0.95, **EXACT), LinearQuadratic(size, pull)
    state = torch.randn(2, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = planner.plan(dynamics, state, TWO)
    held = plan.mean.abs() == 1
    assert held.any() and not held.all()
    for b in range(2):
        best, value = reference(planner, dynamics, state[b], 2)
        torch.testing.assert_close(plan.mean[b], best, atol=1e-4, rtol=0)
        assert plan.value[b].item() == pytest.approx(value, abs=1e-8)


def test_swings_a_pendulum_up_and_gains_with_every_iteration() -> None:
    dynamics, state = Pendulum(), torch.tensor([[2.5, 0.0]], dtype=torch.float64)
    values = []
    for iterations in (1, 3, 6, 12, 30):
        planner = ILQR(30, 1.0, iterations=iterations, tolerance=1e-9)
        plan = planner.plan(dynamics, state, dynamics.spec)
        values.append(plan.value.item())
    assert all(after >= before for before, after in itertools.pairwise(values))
    assert dynamics.rollout(state, plan.mean).state[0, -1, 0].cos() > 0.99, "it is up"
    assert plan.mean.abs().max() == 1, "with all the motor has"
    # of 20 random starts of L-BFGS-B none came to more
    assert values[-1] == pytest.approx(8.2289, abs=1e-3) and values[0] < 0


@pytest.mark.parametrize("regularisation, line_search", [(1e3, 8), (1e-6, 1)])
def test_damping_finds_its_measure(regularisation: float, line_search: int) -> None:
    planner = ILQR(30, 1.0, iterations=30, regularisation=regularisation, line_search=line_search, tolerance=0)
    plan = planner.plan(Pendulum(), torch.tensor([[2.5, 0.0]], dtype=torch.float64), Pendulum.spec)
    assert plan.value.item() == pytest.approx(8.2289, abs=1e-3)


@pytest.mark.parametrize("size", [5, 40])
def test_trust_continuation_and_uncertainty_are_differentiated(size: int) -> None:
    planner, dynamics = ILQR(6, 0.9, -0.3, Gradual(2.0), iterations=60, tolerance=1e-13), Foggy(size)
    state = torch.randn(2, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = planner.plan(dynamics, state, TWO)
    leaf = plan.mean.clone().requires_grad_()
    (slope,) = torch.autograd.grad(planner.returns(dynamics, dynamics.rollout(state, leaf)).sum(), leaf)
    assert (plan.mean - (plan.mean + slope).clamp(-1, 1)).abs().max() < 1e-4
    assert plan.mean.abs().max() > 0.05


def test_a_batch_is_planned_as_each_alone() -> None:
    dynamics, planner = Pendulum(), ILQR(15, iterations=8)
    state = torch.tensor([[3.0, 0.0], [0.3, 0.0], [-2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    proposals = torch.rand(4, 3, 15, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    together = planner.plan(dynamics, state, dynamics.spec, proposals=proposals)
    for b in range(4):
        alone = planner.plan(dynamics, state[b : b + 1], dynamics.spec, proposals=proposals[b : b + 1])
        for x, y in zip(together, alone, strict=True):
            torch.testing.assert_close(x[b : b + 1], y, atol=1e-7, rtol=0)


def test_begins_with_the_best_that_it_is_given_and_never_ends_below_it() -> None:
    dynamics = Pendulum()
    state = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    good = ILQR(20, iterations=40).plan(dynamics, state, dynamics.spec)
    planner = ILQR(20, iterations=1)
    poor = torch.zeros(2, 2, 20, 1)
    for warm, proposals in ((good.mean, poor), (None, torch.cat([poor, good.mean.unsqueeze(1)], 1))):
        plan = planner.plan(dynamics, state, dynamics.spec, warm, proposals)
        assert (plan.value >= good.value - 1e-5).all()
        assert plan.mean.shape == (2, 20, 1) and plan.elites.shape == (2, 1, 20, 1)
        assert torch.equal(plan.elites[:, 0], plan.mean) and torch.equal(plan.elite_values[:, 0], plan.value)
        assert not plan.std.any()


def test_caution_keeps_off_the_unknown() -> None:
    state = torch.tensor([[-0.5, 0.0]])
    proposals = torch.ones(1, 1, 8, 2)
    for weight, beyond in ((0.0, True), (-1.0, False)):
        plan = ILQR(8, uncertainty_weight=weight, iterations=30).plan(Cliff(), state, Cliff.spec, proposals=proposals)
        assert (Cliff().rollout(state, plan.mean).state[0, -1, 0] > 0).item() is beyond
        assert (plan.uncertainty > 0).item() is beyond


class Broken(Dynamics):
    """A reward that is not finite where x is above 0.5, and where ``always``."""

    def __init__(self, always: bool = False) -> None:
        self.always = always

    def step(self, state: Tensor, action: Tensor) -> Step:
        after = state + 0.3 * action
        reward = (0.5 - after[:, 0]).sqrt() + 3 * after[:, 0] - after[:, 1] ** 2
        return certain(after, reward * torch.nan if self.always else reward)


def test_what_is_not_finite_is_never_chosen() -> None:
    state = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.0, 0.3]])
    proposals = torch.stack([torch.ones(3, 5, 2), torch.full((3, 5, 2), torch.nan)], 1)
    plan = ILQR(5, iterations=20).plan(Broken(), state, TWO, proposals=proposals)
    assert plan.value.isfinite().all() and plan.mean.isfinite().all()
    still = ILQR(5).returns(Broken(), Broken().rollout(state, torch.zeros(3, 5, 2)))
    assert (plan.value > still + 0.1).all()
    plan = ILQR(5).plan(Broken(always=True), state, TWO, warm=torch.ones(3, 5, 2))
    assert not plan.mean.any() and (plan.value == -torch.inf).all()


def test_a_broken_problem_leaves_the_others_alone() -> None:
    state = torch.tensor([[3.0, 0.0], [torch.nan, 0.0]])
    plan = ILQR(10).plan(Pendulum(), state, Pendulum.spec)
    torch.testing.assert_close(plan.mean[:1], ILQR(10).plan(Pendulum(), state[:1], Pendulum.spec).mean)
    assert plan.value[1] == -torch.inf and not plan.mean[1].any()


class Network(Dynamics):
    """An untrained network."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8 + 2, 32), nn.LayerNorm(32), nn.SiLU(), nn.Linear(32, 9))

    def step(self, state: Tensor, action: Tensor) -> Step:
        out = self.net(torch.cat([state, action], -1))
        return certain(out[:, :8], out[:, 8])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_taken_in_any_mode_and_left_nowhere(mode: Any) -> None:
    dynamics = Network()
    with mode():
        state = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
        plan = ILQR(8).plan(dynamics, state, TWO, warm=torch.zeros(2, 8, 2))
        still = dynamics.rollout(state, torch.zeros(2, 8, 2)).reward.sum(1)
        assert (plan.value > still + 0.5).all()
    assert not any(x.requires_grad for x in plan)
    assert all(p.grad is None and p.requires_grad for p in dynamics.net.parameters())


def test_low_precision_outside_changes_nothing() -> None:
    dynamics, state = Network(), torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    plain = ILQR(8).plan(dynamics, state, TWO)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ILQR(8).plan(dynamics, state, TWO)
    torch.testing.assert_close(plain, mixed)


@pytest.mark.parametrize("latents", [GaussianLatents(8), CategoricalLatents(4, 4)])
def test_plans_in_a_world_model(latents: Latents) -> None:
    model = tiny.world_model(latents)
    nn.init.normal_(model.reward.net[-1].weight, std=0.3)
    planner, dynamics = ILQR(6, uncertainty_weight=-0.1, truncation=Gradual()), LatentDynamics(model)
    state = model.rssm.initial(3).feature + 0.1 * torch.randn(3, model.feature_size)
    plan = planner.plan(dynamics, state, TWO)
    still, _ = planner.score(dynamics, state, TWO, torch.zeros(3, 1, 6, 2))
    assert (plan.value > still[:, 0]).all()
    assert all(p.grad is None for p in model.parameters())


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="plans continuous actions only: use CEM, MPPI or RandomShooting"):
        ILQR().plan(Pendulum(), torch.zeros(1, 2), ActionSpec(3, discrete=True))


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"line_search": 0}, {"regularisation": 0.0}, {"tolerance": -1.0}, {"horizon": 0}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ILQR(**wrong)

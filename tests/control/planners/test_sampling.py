"""Planners that draw: how near they come to the optimum, and what is special to each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.control.planners.problems import Cliff, DoubleIntegrator, Reach, certain
from worldmodel.control.planners import CEM, MPPI, Planner, RandomShooting, Step
from worldmodel.control.planners.noise import Noise

SEARCHES = [CEM, MPPI]
SHORT = 4


def starts(dynamics: DoubleIntegrator | Reach, count: int = 5) -> Tensor:
    """States from which the optimum is far from doing nothing, and |u| < 1 for the double integrator."""
    x = torch.tensor([0.4, -0.1]) if isinstance(dynamics, DoubleIntegrator) else torch.tensor([1.8, 0.9])
    return x * torch.linspace(-1, -0.6, count).unsqueeze(1)


def shortfall(
    planner: Planner, dynamics: DoubleIntegrator | Reach, state: Tensor, warm: Tensor | None = None
) -> Tensor:
    """What plans lack to the optimum, as a share of what doing nothing lacks, (B,)."""
    plan = planner.plan(dynamics, state, dynamics.spec, warm)
    _, best = dynamics.optimum(state, planner.horizon, planner.discount)
    nothing = torch.zeros_like(plan.mean).unsqueeze(1)
    idle = planner.score(dynamics, state, dynamics.spec, nothing)[0][:, 0]
    return (best - plan.value) / (best - idle)


@pytest.mark.parametrize("dynamics", [DoubleIntegrator(), Reach()])
def test_the_known_optimum_is_one(dynamics: DoubleIntegrator | Reach) -> None:
    torch.manual_seed(0)
    state, planner = starts(dynamics), CEM(8)
    actions, value = dynamics.optimum(state, 8, 0.99)
    assert actions.abs().max() <= 1
    near = (actions.unsqueeze(1) + 0.1 * torch.randn(5, 200, 8, dynamics.spec.size)).clamp(-1, 1)
    scores, _ = planner.score(dynamics, state, dynamics.spec, torch.cat([actions.unsqueeze(1), near], 1))
    torch.testing.assert_close(scores[:, 0], value)
    assert (scores[:, 1:] < value.unsqueeze(1)).all()


@pytest.mark.parametrize(
    ("planner", "tolerance"),
    [
        (RandomShooting(SHORT, candidates=2000), 0.4),
        (CEM(SHORT, candidates=256, elites=25, iterations=8, min_std=0.01), 0.01),
        (CEM(SHORT, candidates=256, elites=25, iterations=8, min_std=0.01, beta=1.0), 0.01),
        (MPPI(SHORT, candidates=256, iterations=8, min_std=0.01), 0.01),
        (MPPI(SHORT, candidates=256, iterations=8, min_std=0.01, beta=1.0), 0.01),
        (CEM(12), 0.25),
        (MPPI(12), 0.25),
    ],
)
@pytest.mark.parametrize("dynamics", [DoubleIntegrator(), Reach()])
def test_plans_come_near_the_optimum(planner: Planner, tolerance: float, dynamics: DoubleIntegrator | Reach) -> None:
    torch.manual_seed(0)
    missing = shortfall(planner, dynamics, starts(dynamics))
    assert (missing < tolerance).all() and (missing > -1e-4).all()


@pytest.mark.parametrize("kind", [RandomShooting, CEM, MPPI])
def test_a_batch_is_planned_as_well_as_each_alone(kind: Callable[..., Planner]) -> None:
    torch.manual_seed(0)
    dynamics, planner = Reach(), kind(SHORT)
    state = starts(dynamics)
    together = torch.stack([shortfall(planner, dynamics, state) for _ in range(8)]).mean(0)
    alone = torch.stack([shortfall(planner, dynamics, x.unsqueeze(0))[0] for _ in range(8) for x in state])
    alone = alone.reshape(8, 5).mean(0)
    assert ((together - alone).abs() < 0.15).all()


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("dynamics", [DoubleIntegrator(), Reach()])
def test_a_warm_start_helps(kind: Callable[..., Planner], dynamics: DoubleIntegrator | Reach) -> None:
    torch.manual_seed(0)
    state, planner = starts(dynamics), kind(10, iterations=1)
    warm = dynamics.optimum(state, 10, 0.99)[0]
    warm = (warm + 0.1 * torch.randn_like(warm)).clamp(-1, 1)
    assert shortfall(planner, dynamics, state, warm).mean() < 0.6 * shortfall(planner, dynamics, state).mean()


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_search_narrows_down_to_its_floor(kind: Callable[..., Planner]) -> None:
    torch.manual_seed(0)
    dynamics, state = Reach(), torch.full((2, 2), 9.0)  # the best is at the limits all along
    few, many = (kind(3, iterations=n).plan(dynamics, state, dynamics.spec).std for n in (1, 12))
    assert (many < few).all() and few.mean() < 0.5 and (many >= 0.05).all() and many.min() == pytest.approx(0.05)


class Flat(Reach):
    def step(self, state: Tensor, action: Tensor) -> Step:
        return certain(state, torch.full_like(state[:, 0], 3.0))


@pytest.mark.parametrize("kind", [RandomShooting, CEM, MPPI])
def test_equal_returns_are_no_trouble(kind: Callable[..., Planner]) -> None:
    torch.manual_seed(0)
    plan = kind(3, discount=1.0).plan(Flat(), torch.zeros(2, 2), Flat.spec)
    assert all(x.isfinite().all() for x in plan) and plan.value.tolist() == [9, 9]
    searched = kind is not RandomShooting
    assert (plan.std.mean() > 0.2) == searched  # and nothing is learned from them


def test_shooting_keeps_the_best_and_draws_evenly() -> None:
    class Seen(Reach):
        actions = torch.zeros(0)

        def step(self, state: Tensor, action: Tensor) -> Step:
            self.actions = action
            return super().step(state, action)

    torch.manual_seed(0)
    dynamics, state = Seen(), torch.zeros(1, 2)
    plan = RandomShooting(1, candidates=4000, elites=3).plan(dynamics, state, dynamics.spec)
    assert dynamics.actions.mean(0).abs().max() < 0.05 and dynamics.actions.std(0).sub(3**-0.5).abs().max() < 0.02
    assert plan.elites.shape == (1, 3, 1, 2) and torch.equal(plan.elites[:, 0], plan.mean)
    assert RandomShooting(1, candidates=2, elites=9).plan(dynamics, state, dynamics.spec).elites.shape[1] == 2
    spec = Seen.spec._replace(discrete=True)
    RandomShooting(1, candidates=4000).plan(dynamics, state, spec)
    assert dynamics.actions.mean(0).sub(0.5).abs().max() < 0.05 and set(dynamics.actions.flatten().tolist()) == {0, 1}


def test_cem_fits_its_elites_alone() -> None:
    cem = CEM(1, candidates=4, elites=2)
    returns = torch.tensor([[9.0, 8.0, 7.0, 6.0], [1.0, -torch.inf, -torch.inf, -torch.inf], [-torch.inf] * 4])
    assert cem.weigh(returns).tolist() == [[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_momentum_holds_the_old() -> None:
    dynamics, state, weight = Reach(), torch.zeros(1, 2), 1.0 - 1e-6
    plan = CEM(2, momentum=weight, iterations=2).plan(dynamics, state, dynamics.spec)
    torch.testing.assert_close(plan.std, torch.full((1, 2, 2), 0.5), atol=1e-4, rtol=0)


def test_kept_elites_are_tried_again() -> None:
    class Watched(Reach):
        def __init__(self) -> None:
            self.batches: list[int] = []

        def step(self, state: Tensor, action: Tensor) -> Step:
            self.batches.append(len(state))
            return super().step(state, action)

    for survival, again in ((0.0, 1), (0.3, 3), (1.0, 8)):
        dynamics = Watched()
        CEM(1, candidates=20, iterations=3, survival=survival).plan(dynamics, torch.zeros(1, 2), dynamics.spec)
        assert dynamics.batches == [21, 20 + again, 20 + again, 2]  # with the first mean, and the two to choose from


def test_weights_of_mppi() -> None:
    cold, warm = MPPI(1, temperature=0.01), MPPI(1, temperature=100.0)
    returns = torch.tensor([[4.0, 2.0, 1.0, -torch.inf], [-torch.inf] * 4, [5.0] * 4])
    torch.testing.assert_close(
        cold.weigh(returns), torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0] * 4, [0.25] * 4]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        warm.weigh(returns), torch.tensor([[1 / 3] * 3 + [0.0], [0.0] * 4, [0.25] * 4]), atol=0.02, rtol=0
    )
    by_hand = torch.tensor([0.0, -2.0]) / (0.3 * 2**0.5)  # of two in the better half: sqrt((0 + 2^2) / 2)
    mppi = MPPI(1, temperature=0.3)
    weights = mppi.weigh(torch.tensor([[4.0, 2.0, -1e6, -1e9]]))
    torch.testing.assert_close(weights[0, :2], by_hand.softmax(0))
    torch.testing.assert_close(mppi.weigh(1e4 * returns - 7e3)[0], mppi.weigh(returns)[0])


@pytest.mark.parametrize("horizon", [1, 2, 10, 50])
@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0, 4.0])
def test_noise_has_variance_one_at_every_step(beta: float, horizon: int) -> None:
    mix = Noise(horizon, beta).mix
    torch.testing.assert_close((mix @ mix.T).diagonal(), torch.ones(horizon, dtype=torch.float64))
    torch.manual_seed(0)
    drawn = Noise(horizon, beta)(3, 2000, 2, torch.zeros(1))
    assert drawn.shape == (3, 2000, horizon, 2) and drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.std((0, 1, 3)), torch.ones(horizon), atol=0.05, rtol=0)


def test_noise_holds_its_course_the_longer_the_higher_beta() -> None:
    torch.manual_seed(0)
    lag = []
    for beta in (0.0, 0.5, 1.0, 2.0, 4.0):
        drawn = Noise(12, beta)(4, 2000, 2, torch.zeros(1, dtype=torch.float64))
        lag.append((drawn[:, :, 1:] * drawn[:, :, :-1]).mean().item())
    assert abs(lag[0]) < 0.02 and lag == sorted(lag) and lag[1] > 0.1 and lag[-1] > 0.95


def test_noise_falls_off_as_its_spectrum_says() -> None:
    white = Noise(16, 0.0).mix
    torch.testing.assert_close(white, torch.eye(16, dtype=torch.float64))
    frequency = torch.fft.rfftfreq(32, dtype=torch.float64).clamp_min(1 / 32)
    power = torch.cat([frequency, frequency[1:-1]]) ** -2
    angle = 2 * torch.pi * torch.cat([torch.arange(17) / 32, torch.arange(1, 16) / 32]).double()
    mix = Noise(16, 2.0).mix
    for lag in (1, 5, 15):
        expected = (power * (angle * lag).cos()).sum() / power.sum()
        assert (mix @ mix.T)[lag, 0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (RandomShooting, {"candidates": 0}, "candidates and elites of at least 1, got 0"),
        (RandomShooting, {"elites": 0}, "candidates and elites of at least 1"),
        (CEM, {"candidates": 0, "elites": 0}, "elites must be at least 1"),
        (CEM, {"elites": 0}, "elites must be at least 1"),
        (CEM, {"candidates": 7, "elites": 8}, "at most the 7 candidates, got 8"),
        (CEM, {"iterations": 0}, "iterations .* must be at least 1"),
        (CEM, {"std": 0.0}, "std must be above 0"),
        (CEM, {"min_std": -0.1}, "min_std at least 0"),
        (CEM, {"momentum": 1.0}, "momentum must be in"),
        (CEM, {"survival": 1.5}, "survival is a share"),
        (CEM, {"beta": -1.0}, "beta, the exponent of the noise, must be at least 0"),
        (MPPI, {"candidates": 0}, "candidates, .* must be at least 1"),
        (MPPI, {"iterations": 0}, "iterations .* must be at least 1"),
        (MPPI, {"elites": 0}, "number of elites must be at least 1"),
        (MPPI, {"std": -1.0}, "std must be above 0"),
        (MPPI, {"temperature": 0.0}, "temperature must be above 0"),
        (MPPI, {"beta": -1.0}, "beta, the exponent"),
    ],
)
def test_errors_are_one_clear_line(kind: Callable[..., Planner], arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        kind(4, **arguments)
    assert "\n" not in str(error.value)


def test_a_plan_at_random_comes_from_the_global_seed() -> None:
    dynamics, plans = Cliff(), []
    for _ in range(2):
        torch.manual_seed(3)
        plans.append(CEM(3, beta=1.0).plan(dynamics, torch.zeros(2, 2), dynamics.spec))
    assert all(torch.equal(x, y) for x, y in zip(*plans, strict=True))

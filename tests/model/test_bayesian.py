from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from worldmodel.model.bayesian import BayesianLinear, BayesianTransition, DropoutTransition
from worldmodel.model.transitions import Transition

SIZES = (8, 20, 2, 12)  # deter, feature, action, params


def inputs(*batch: int) -> list[Tensor]:
    return [torch.randn(*batch, n) for n in SIZES[:3]]


def learn(transition: Transition, steps: int, rate: float = 1e-2) -> tuple[float, float]:
    """Mean square error before and after learning a function of the memory, and members that are drawn each time."""
    torch.manual_seed(0)
    deter, feature, action = inputs(256)
    target = torch.sin(2 * deter[:, :1]) + 0.5 * deter[:, 1:2] * deter[:, 2:3]
    optimizer = torch.optim.Adam(transition.parameters(), rate)
    errors = []
    for _ in range(steps):
        transition.draw()
        error = (transition(deter, feature, action) - target).square().mean()
        cost = transition.complexity()
        (error if cost is None else error + cost).backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(error.item())
    return errors[0], errors[-1]


@pytest.mark.parametrize("records", [1, 500])
def test_complexity_is_the_divergence_from_the_prior(records: int) -> None:
    transition = BayesianTransition(*SIZES, width=16, layers=2, records=records, prior_std=0.7, initial_std=0.2)
    expected = torch.zeros(())
    for linear, fan_in in zip([transition.net[i] for i in (0, 3, 6)], (8, 16, 16), strict=True):
        assert isinstance(linear, BayesianLinear)
        linear.rho.data += torch.randn_like(linear.rho)
        prior = Normal(torch.zeros_like(linear.mean), 0.7 * fan_in**-0.5)
        expected = expected + kl_divergence(Normal(linear.mean, F.softplus(linear.rho)), prior).sum()
    cost = transition.complexity()
    torch.testing.assert_close(cost, expected / records)
    parameters = {name: p for name, p in transition.named_parameters() if name.endswith(("mean", "rho"))}
    assert len(parameters) == 6
    for one, other in zip(
        torch.autograd.grad(cost, parameters.values()),
        torch.autograd.grad(expected / records, parameters.values()),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_weights_at_the_prior_cost_nothing() -> None:
    linear = BayesianLinear(3, 10, 4, prior_std=0.5, initial_std=0.5)
    linear.mean.data.zero_()
    assert linear.kl().abs() < 1e-4


def test_members_are_draws_of_the_weights() -> None:
    """Over many draws a layer's outputs have the mean and the deviation that its weights give them."""
    torch.manual_seed(0)
    linear = BayesianLinear(20000, 6, 2, prior_std=1.0, initial_std=0.3)
    torch.testing.assert_close(linear.std, torch.full((2, 6), 0.3 * 6**-0.5))
    x = torch.randn(4, 6)
    with torch.no_grad():
        out = linear(x)  # (K, N, outputs)
        torch.testing.assert_close(out.mean(0), F.linear(x, linear.mean), atol=0.02, rtol=0)
        deviation = F.linear(x**2, linear.std**2).sqrt()
        torch.testing.assert_close(out.std(0), deviation, atol=0, rtol=0.05)


def test_a_bayesian_member_is_one_network() -> None:
    transition = BayesianTransition(*SIZES, members=3, width=16, initial_std=0.3)
    deter, feature, action = inputs(7)
    first, norm, _, last = transition.net
    assert isinstance(first, BayesianLinear) and isinstance(last, BayesianLinear)
    for k, prior in enumerate(transition(deter, feature, action)):
        hidden = F.silu(norm(deter @ (first.mean + first.std * first.eps[k]).T + first.bias))
        torch.testing.assert_close(prior, hidden @ (last.mean + last.std * last.eps[k]).T + last.bias)


def test_weights_learn_from_the_start_and_grow_sure_with_records() -> None:
    spread = []
    for records in (100, 100_000):
        torch.manual_seed(0)
        transition = BayesianTransition(*SIZES[:3], 1, members=3, width=32, records=records)
        before, after = learn(transition, 150)
        spread.append(transition(*inputs(256)).var(0).mean().item())
    assert after < 0.08 < 0.5 < before
    assert spread[0] > 10 * spread[1] > 0


def test_masks_drop_units_at_the_rate() -> None:
    torch.manual_seed(0)
    transition = DropoutTransition(*SIZES, members=50, width=200, layers=2, rate=0.2)
    assert transition.masks.shape == (2, 50, 1, 200)
    assert set(transition.masks.unique().tolist()) == {0.0, 1.25}
    assert abs((transition.masks == 0).float().mean() - 0.2) < 0.01
    assert transition.complexity() is None


def test_a_dropout_member_is_one_thinned_network() -> None:
    transition = DropoutTransition(*SIZES, members=3, width=16, layers=2, rate=0.4).eval()
    deter, feature, action = inputs(7)
    first, second = transition.blocks
    for k, prior in enumerate(transition(deter, feature, action)):
        hidden = second(first(deter) * transition.masks[0, k]) * transition.masks[1, k]
        torch.testing.assert_close(prior, transition.head(hidden))


def test_dropout_learns() -> None:
    torch.manual_seed(0)
    before, after = learn(DropoutTransition(*SIZES[:3], 1, members=3, width=64), 150)
    assert after < 0.15 < 0.5 < before


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.5])
def test_rates_are_probabilities(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate is a probability in \(0, 1\), got"):
        DropoutTransition(*SIZES, rate=rate)


@pytest.mark.parametrize("setting", ["records", "prior_std", "initial_std"])
def test_what_is_divided_by_is_above_zero(setting: str) -> None:
    with pytest.raises(ValueError, match="records, prior_std and initial_std must be above 0"):
        BayesianTransition(*SIZES, **{setting: 0})

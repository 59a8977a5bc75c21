from __future__ import annotations

import pytest
import torch

from worldmodel.control.returns import ReturnScale, lambda_return


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_lambda_return_is_the_mixture_of_n_step_returns(lam: float) -> None:
    torch.manual_seed(0)
    horizon = 6
    reward, value, discount = torch.randn(3, horizon), torch.randn(3, horizon), torch.rand(3, horizon)
    discount[1, 2] = 0  # an episode's end
    returns = lambda_return(reward, discount, value, lam)
    for b in range(3):
        for t in range(horizon):
            expected, weight = 0.0, 1.0
            total, factor = 0.0, 1.0
            for n in range(t, horizon):  # the return that bootstraps after record n
                total += factor * reward[b, n].item()
                factor *= discount[b, n].item()
                share = weight if n == horizon - 1 else weight * (1 - lam)
                expected += share * (total + factor * value[b, n].item())
                weight *= lam
            assert returns[b, t].item() == pytest.approx(expected, abs=1e-5)


def test_nothing_passes_an_end() -> None:
    reward, value = torch.zeros(1, 4), torch.zeros(1, 4)
    reward[0, 3], value[0, 3] = 100, 100
    discount = torch.ones(1, 4)
    discount[0, 1] = 0
    assert lambda_return(reward, discount, value, 0.9)[0, :2].tolist() == [0, 0]


def test_gradient_of_a_monte_carlo_return() -> None:
    reward, value = torch.zeros(1, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    first = lambda_return(reward, torch.full((1, 3), 0.5), value, 1.0)[0, 0]
    by_reward, by_value = torch.autograd.grad(first, (reward, value))
    assert by_reward.tolist() == [[1, 0.5, 0.25]]
    assert by_value.tolist() == [[0, 0, 0.125]]


def test_scale_is_the_range_without_outliers_and_moves_slowly() -> None:
    returns = torch.cat([torch.linspace(0, 100, 1001), torch.tensor([1e9, -1e9])])
    scale = ReturnScale(decay=0.9)
    assert scale.update(returns).item() == pytest.approx(9, rel=0.01)
    for _ in range(200):
        last = scale.update(returns)
    assert last.item() == pytest.approx(90, rel=0.01)


def test_scale_never_enlarges_small_returns() -> None:
    scale = ReturnScale()
    for _ in range(5):
        assert scale.update(torch.rand(10, 4) * 1e-3).item() == 1


def test_scale_travels_in_the_state_dict() -> None:
    scale, other = ReturnScale(decay=0.0), ReturnScale()
    scale.update(torch.linspace(0, 100, 1001))
    other.load_state_dict(scale.state_dict())
    assert other.range == scale.range > 80


def test_the_scale_forgets_what_is_not_finite() -> None:
    scale = ReturnScale(decay=0.5)
    scale.update(torch.linspace(0, 100, 101))
    before = scale.range.clone()
    scale.update(torch.full((50,), float("nan")))
    assert torch.equal(scale.range, before) and before > 0

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from worldmodel.control.planners.lqr import Quadratic, box_qp, lqr

B, H, X, A = 3, 7, 4, 2
EXACT = {"atol": 1e-6, "rtol": 1e-6}


def positive(*shape: int) -> Tensor:
    root = torch.randn(*shape, shape[-1], dtype=torch.float64)
    return root @ root.mT / shape[-1] + 0.1 * torch.eye(shape[-1])


def random_problem(seed: int = 0) -> Quadratic:
    torch.manual_seed(seed)
    draw = {"dtype": torch.float64}
    return Quadratic(
        0.5 * torch.randn(B, H, X, X + A, **draw),
        torch.randn(B, H, X, **draw),
        positive(B, H, X + A),
        torch.randn(B, H, X + A, **draw),
        positive(B, X),
        torch.randn(B, X, **draw),
    )


def roll(problem: Quadratic, start: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """The last states (B, X) and the costs (B,) of actions (B, H, A), written out as the definition has it."""
    x, cost = start, torch.zeros_like(start[:, 0])
    for t in range(actions.shape[1]):
        z = torch.cat([x, actions[:, t]], -1)
        cost = cost + 0.5 * torch.einsum("bi,bij,bj->b", z, problem.curvature[:, t], z)
        cost = cost + (problem.slope[:, t] * z).sum(-1)
        x = torch.einsum("bij,bj->bi", problem.transition[:, t], z) + problem.offset[:, t]
    cost = cost + 0.5 * torch.einsum("bi,bij,bj->b", x, problem.final_curvature, x)
    return x, cost + (problem.final_slope * x).sum(-1)


def test_is_the_solution_of_one_dense_problem_over_all_actions() -> None:
    problem = random_problem()
    start = torch.randn(B, X, dtype=torch.float64)
    regulator = lqr(problem)
    x, actions = start, []
    for t in range(H):
        actions.append(regulator.feedforward[:, t] + torch.einsum("bax,bx->ba", regulator.feedback[:, t], x))
        z = torch.cat([x, actions[-1]], -1)
        x = torch.einsum("bij,bj->bi", problem.transition[:, t], z) + problem.offset[:, t]
    acted = torch.stack(actions, 1)
    for b in range(B):
        one = Quadratic(*(part[b : b + 1] for part in problem))

        def cost(u: Tensor, one: Quadratic = one, x0: Tensor = start[b : b + 1]) -> Tensor:
            return roll(one, x0, u.view(1, H, A))[1].squeeze()

        zero = torch.zeros(H * A, dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(cost, zero)
        slope = torch.autograd.functional.jacobian(cost, zero)
        best = -torch.linalg.solve(hessian, slope)
        torch.testing.assert_close(acted[b].flatten(), best, **EXACT)
    # what it says that this costs is what it costs
    said = 0.5 * torch.einsum("bi,bij,bj->b", start, regulator.curvature, start)
    said = said + (regulator.slope * start).sum(-1) + regulator.cost
    torch.testing.assert_close(said, roll(problem, start, acted)[1], **EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_a_long_horizon_is_the_algebraic_riccati_equation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(X, X)), rng.normal(size=(X, A))
    a *= 1.1 / abs(np.linalg.eigvals(a)).max()  # unstable if left alone
    q, r = positive(X).numpy(), positive(A).numpy()
    steps = 400
    transition = torch.from_numpy(np.concatenate([a, b], 1)).expand(1, steps, X, X + A)
    curvature = torch.from_numpy(scipy.linalg.block_diag(q, r)).expand(1, steps, X + A, X + A)
    zeros = torch.zeros(1, steps, X + A, dtype=torch.float64)
    problem = Quadratic(transition, zeros[..., :X], curvature, zeros, zeros[:, 0, :X].diag_embed(), zeros[:, 0, :X])
    regulator = lqr(problem)
    worth = scipy.linalg.solve_discrete_are(a, b, q, r)
    gain = -np.linalg.solve(r + b.T @ worth @ b, b.T @ worth @ a)
    np.testing.assert_allclose(regulator.curvature[0].numpy(), worth, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(regulator.feedback[0, 0].numpy(), gain, rtol=1e-6, atol=1e-6)
    assert not regulator.feedforward.any() and not regulator.slope.any()


def test_wide_limits_change_nothing_and_narrow_ones_hold() -> None:
    problem = random_problem()
    free, wide = (
        lqr(problem),
        lqr(problem, *torch.full((2, B, H, A), 100.0, dtype=torch.float64) * torch.tensor([-1, 1]).view(2, 1, 1, 1)),
    )
    for x, y in zip(free, wide, strict=True):
        torch.testing.assert_close(x, y)
    limit = torch.full((B, H, A), 0.2, dtype=torch.float64)
    narrow = lqr(problem, -limit, limit)
    held = narrow.feedforward.abs() == 0.2
    assert held.any() and not held.all()
    assert narrow.feedforward.abs().amax() <= 0.2
    assert not narrow.feedback[held].any(), "an action at its limit does not answer to the state"
    assert narrow.feedback[~held].abs().amin() > 0


def test_feedback_is_the_derivative_of_the_limited_action() -> None:
    one = Quadratic(*(x[:, :1] if x.dim() > 3 or x.shape[1:2] == (H,) else x for x in random_problem(1)))
    limit = torch.full((B, 1, A), 0.5, dtype=torch.float64)
    regulator = lqr(one, -limit, limit)
    F, V = one.transition[:, 0], one.final_curvature
    Q = one.curvature[:, 0] + F.mT @ V @ F
    q = one.slope[:, 0] + torch.einsum(
        "bxz,bx->bz", F, one.final_slope + torch.einsum("bxy,by->bx", V, one.offset[:, 0])
    )
    moved = 1e-6 * torch.randn(B, X, dtype=torch.float64)
    pull = q[:, X:] + torch.einsum("bax,bx->ba", Q[:, X:, :X], moved)
    action, _ = box_qp(Q[:, X:, X:], pull, -limit[:, 0], limit[:, 0])
    expected = regulator.feedforward[:, 0] + torch.einsum("bax,bx->ba", regulator.feedback[:, 0], moved)
    torch.testing.assert_close(action, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("least", [1.0, 1e-3])
def test_box_problems_end_where_nothing_can_be_gained(size: int, least: float) -> None:
    torch.manual_seed(0)
    count = 3000
    root = torch.randn(count, size, size, dtype=torch.float64)
    curvature = root @ root.mT + least * torch.eye(size)
    q = 3 * torch.randn(count, size, dtype=torch.float64)
    low, high = -2 * torch.rand(2, count, size, dtype=torch.float64) * torch.tensor([1, -1]).view(2, 1, 1)
    low[: count // 4, 0] = 0  # where the search begins
    x, free = box_qp(curvature, q, low, high)
    slope = q + torch.einsum("bij,bj->bi", curvature, x)
    assert ((x >= low) & (x <= high)).all()
    # no projected gradient is left: necessary and, the problem being convex, sufficient
    assert (x - (x - slope).clamp(low, high)).abs().max() < 1e-9
    assert slope[free].abs().max() < 1e-9
    assert ((x == low) | (x == high))[~free].all()
    assert free.any() and not free.all()

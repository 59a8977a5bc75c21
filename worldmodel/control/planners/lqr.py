"""The linear-quadratic regulator over a finite horizon, with limits on the actions.

Legend: B problems, H horizon, X state size, A action size, Z = X + A state and action side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Quadratic(NamedTuple):
    """Minimise sum_t (1/2 z_t' C_t z_t + c_t' z_t) + 1/2 x_H' V x_H + v' x_H, where z_t = (x_t, u_t).

    The state moves by x_{t+1} = F_t z_t + f_t, F_t = [A_t B_t]. Every C_t and V is symmetric.
    """

    transition: Tensor  # (B, H, X, Z) F
    offset: Tensor  # (B, H, X) f
    curvature: Tensor  # (B, H, Z, Z) C
    slope: Tensor  # (B, H, Z) c
    final_curvature: Tensor  # (B, X, X) V
    final_slope: Tensor  # (B, X) v


class Regulator(NamedTuple):
    """Act by u_t = k_t + K_t x_t; from x_0 on that costs 1/2 x_0' V x_0 + v' x_0 + s."""

    feedback: Tensor  # (B, H, A, X) K
    feedforward: Tensor  # (B, H, A) k
    curvature: Tensor  # (B, X, X) V
    slope: Tensor  # (B, X) v
    cost: Tensor  # (B,) s


def lqr(problem: Quadratic, low: Tensor | None = None, high: Tensor | None = None) -> Regulator:
    """The optimal regulator, by dynamic programming from the end.

    With limits, k_t (the action in x_t = 0) solves its box problem, and an action that stands at its limit there does
    not answer to the state (control-limited DDP, Tassa, Mansard and Todorov 2014, equations 7 to 11). In an expansion
    around a path x_t = 0 is the path itself, and the limits are what is left of the actions' range.

    Args:
        problem: C and V positive semidefinite, and so curved in the actions that the cost-to-go is positive definite
            in them; else what comes back is not finite, or no minimum.
        low, high: (B, H, A) limits of k, low < high; none if None.
    """
    size, horizon = problem.transition.shape[-2], problem.transition.shape[1]
    V, v, s = problem.final_curvature, problem.final_slope, problem.slope.new_zeros(len(problem.slope))
    unlimited = torch.full_like(problem.slope[..., size:], torch.inf)
    low, high = -unlimited if low is None else low, unlimited if high is None else high
    Ks: list[Tensor] = []
    ks: list[Tensor] = []
    for t in reversed(range(horizon)):
        F, f = problem.transition[:, t], problem.offset[:, t]
        Q = problem.curvature[:, t] + F.mT @ V @ F  # (B, Z, Z)
        q = problem.slope[:, t] + times(F.mT, v + times(V, f))  # (B, Z)
        Quu, Qux, qu = Q[:, size:, size:], Q[:, size:, :size], q[:, size:]
        k, free = box_qp(Quu, qu, low[:, t], high[:, t])
        K = solve_free(Quu, -Qux, free)
        s = s + (f * (v + 0.5 * times(V, f))).sum(-1) + (k * (qu + 0.5 * times(Quu, k))).sum(-1)
        # the terms with K' (qu + Quu k) and K' (Qux + Quu K) are zero: K is for held actions, the rest for free ones
        v = q[:, :size] + times(Qux.mT, k)
        V = Q[:, :size, :size] + Qux.mT @ K
        V = (V + V.mT) / 2  # rounding would let it drift
        Ks.insert(0, K)
        ks.insert(0, k)
    return Regulator(feedback=torch.stack(Ks, 1), feedforward=torch.stack(ks, 1), curvature=V, slope=v, cost=s)


def box_qp(H: Tensor, q: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise 1/2 x' H x + q' x over low <= x <= high: the minimum (B, A), and which of its numbers are free (B, A).

    A primal active-set method (Nocedal and Wright 2006, section 16.5), all problems at once. Each step goes to the
    minimum in what is free, or to the first limit on the way, which then holds its number. Where the way was clear, the
    number that would gain most from leaving its limit is let go. (Projected Newton, as in the paper on control-limited
    DDP, stops short of the minimum now and then.)

    Args:
        H: (B, A, A) positive definite.
        q, low, high: (B, A)
    """
    x = torch.zeros_like(q).clamp(low, high)
    held = torch.zeros_like(q, dtype=torch.bool)
    for _ in range(4 * q.shape[-1]):  # far more than it takes
        move = solve_free(H, -(q + times(H, x)).unsqueeze(-1), ~held).squeeze(-1)
        limit = torch.where(move > 0, high, low)
        room = torch.where(move == 0, torch.inf, (limit - x) / move)
        length = room.amin(-1, keepdim=True).clamp_max(1)  # (B, 1)
        hit = (room <= length) & (length < 1)
        x = torch.where(hit, limit, (x + length * move).clamp(low, high))
        held = held | hit
        gain = torch.where(x <= low, -1, 1) * (q + times(H, x))
        gain = torch.where(held & (length == 1), gain, 0)
        leaving = (gain > 0) & (gain == gain.amax(-1, keepdim=True))
        if not ((length < 1) | leaving).any():
            break
        held = held & ~leaving
    return x, ~held


def solve_free(H: Tensor, right: Tensor, free: Tensor) -> Tensor:
    """Solve H y = right (B, A, N) in the numbers that are free (B, A); the others are zero."""
    both = free.unsqueeze(-1) & free.unsqueeze(-2)
    alone = torch.where(both, H, 0) + torch.diag_embed((~free).to(H.dtype))
    return torch.linalg.solve_ex(alone, torch.where(free.unsqueeze(-1), right, 0)).result


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(*B, M, N) times (*B, N)."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)

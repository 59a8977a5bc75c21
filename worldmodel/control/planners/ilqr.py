"""Iterative LQR.

Legend in base.py; also Z = X + A, L step sizes, N = min(X, H * A) directions that a state can be moved in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.autograd import grad

from worldmodel.control.planners.base import Dynamics, Planner, bound, given
from worldmodel.control.planners.lqr import Quadratic, Regulator, lqr, times
from worldmodel.control.truncation import Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight
from worldmodel.types import ActionSpec, Plan, Trajectory

FACTOR, LEAST, MOST = 2.0, 1e-6, 1e10  # how fast the damping changes, and between what


class Path(NamedTuple):
    """A sequence of actions for each problem with where it leads, and its return."""

    rollout: Trajectory[Tensor]  # states (B, H + 1, X), actions (B, H, A), the others (B, H)
    value: Tensor  # (B,)


class ILQR(Planner):
    """Newton's method with a Gauss-Newton Hessian, as a sequence of LQ problems (Li and Todorov 2004).

    Around the current path the dynamics are linear and the return is quadratic, with negative curvature of the cost cut
    off. The LQ problem, within the limits of the actions, gives a feedback law. It is followed at several step sizes at
    once, and the best of them replaces the path if its return (``Planner.returns`` itself) is greater. The damping, a
    cost of mu / 2 per squared change of state and action, falls when there was a gain and grows when there was none
    (schedule of Tassa, Erez and Todorov 2012, section II-F).

    The slope of the return is exact, ``cont``, truncation and uncertainty included. Its curvature is that of reward,
    ``cont``, uncertainty and final value, each times what the return changes with it; products of their slopes are
    left out.

    Deviations from a path begin at zero and are moved by actions, so they stay in a space of at most H * A dimensions.
    Everything quadratic is done in there: that makes latent states of hundreds of numbers affordable.

    Made for smooth deterministic dynamics. It finds a local optimum: what it is given to begin with matters, and the
    best of ``warm`` (or zeros) and the proposals is taken.

    Args:
        horizon, discount, uncertainty_weight, truncation: see Planner.
        iterations: how often, at most.
        regularisation: mu to begin with, in units of return.
        line_search: step sizes L that are tried: 1, 1/2, 1/4, ...
        tolerance: a problem is done when an iteration promises less than this share of 1 + its absolute return.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        horizon: int = 10,
        discount: float = 0.99,
        uncertainty_weight: float | UncertaintyWeight = 0.0,
        truncation: Truncation | None = None,
        iterations: int = 10,
        regularisation: float = 1e-3,
        line_search: int = 8,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__(horizon, discount, uncertainty_weight, truncation)
        if iterations < 1 or line_search < 1:
            raise ValueError(f"iterations and line_search must be at least 1, got {iterations} and {line_search}")
        if regularisation <= 0 or tolerance < 0:
            got = f"{regularisation} and {tolerance}"
            raise ValueError(f"regularisation must be above 0 and tolerance at least 0, got {got}")
        self.iterations, self.regularisation = iterations, regularisation
        self.line_search, self.tolerance = line_search, tolerance

    def plan(
        self,
        dynamics: Dynamics,
        state: Tensor,
        spec: ActionSpec,
        warm: Tensor | None = None,
        proposals: Tensor | None = None,
    ) -> Plan:
        if spec.discrete:
            raise ValueError("ILQR plans continuous actions only: use CEM, MPPI or RandomShooting")
        # gradients are taken where they are wanted, whatever the caller's mode; low precision would spoil them
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(state.device.type, enabled=False):
            dynamics.renew()
            warm = state.new_zeros(len(state), self.horizon, spec.size) if warm is None else warm
            starts = bound(torch.cat(given(warm, proposals), 1), spec)
            best = self.score(dynamics, state, spec, starts)[0].argmax(1)  # (B,)
            start = starts.take_along_dim(best[:, None, None, None], 1)[:, 0]  # (B, H, A)
            rollout = dynamics.rollout(state, start)
            path = self._improve(dynamics, Path(rollout, self._finite_returns(dynamics, rollout)))
            actions = path.rollout.action
            action, value, uncertainty = (
                x.unsqueeze(1) for x in (actions, path.value, path.rollout.uncertainty.mean(1))
            )
            return self.select_best(
                spec,
                action,
                value,
                uncertainty=uncertainty,
                std=torch.zeros_like(actions),
                elites=action,
                values=value,
            )

    def _finite_returns(self, dynamics: Dynamics, rollout: Trajectory[Tensor]) -> Tensor:
        value = self.returns(dynamics, rollout)
        return torch.where(value.isfinite(), value, -torch.inf)

    def _improve(self, dynamics: Dynamics, path: Path) -> Path:
        mu = torch.full_like(path.value, self.regularisation)
        growth = torch.ones_like(mu)
        active = torch.ones_like(mu, dtype=torch.bool)
        changed = True
        for _ in range(self.iterations):
            if changed:
                problem, basis = self._expand(dynamics, path)
            action = _exact(path.rollout.action)
            regulator = lqr(_damped(problem, _exact(mu)), -1 - action, 1 - action)
            tried = self._follow(dynamics, path, regulator, basis)
            better = active & (tried.value > path.value)
            changed = bool(better.any())
            path = _choose(better, tried, path)
            growth = torch.where(better, (growth / FACTOR).clamp_max(1 / FACTOR), (growth * FACTOR).clamp_min(FACTOR))
            mu = (mu * growth).clamp(LEAST, MOST)
            active = active & (-regulator.cost.to(mu) > self.tolerance * (1 + path.value.abs()))
            if not active.any():
                break
        return path

    def _expand(self, dynamics: Dynamics, path: Path) -> tuple[Quadratic, Tensor]:
        """The LQ problem around a path in coordinates w_t = P_t' (x_t - path_t), and the bases P (B, H + 1, X, N).

        Both in float64 on the CPU, see ``_exact``.
        """
        rollout = path.rollout
        horizon, size = rollout.action.shape[1], rollout.state.shape[-1]
        points = torch.cat([rollout.state[:, :-1], rollout.action], -1)  # (B, H, Z)
        with torch.enable_grad():
            *parts, last = (x.clone().requires_grad_() for x in (*rollout[2:5], rollout.state[:, -1]))
            reward, cont, uncertainty = parts
            moved = torch.cat([rollout.state[:, :-1], last.unsqueeze(1)], 1)
            leaves = rollout._replace(state=moved, reward=reward, cont=cont, uncertainty=uncertainty)
            total = self.returns(dynamics, leaves)  # (B,)
            weights = grad(total.sum(), parts, retain_graph=True, materialize_grads=True)  # each (B, H)
            leaf = rearrange(points, "b h z -> (b h) z").requires_grad_()
            step = dynamics.step(leaf[:, :size], leaf[:, size:])
            jacobian = rearrange(_jacobian(step.state, leaf), "(b h) x z -> b h x z", h=horizon)
            basis = _reachable(jacobian, size)
            wide = _with_actions(basis[:, :-1], rollout.action.shape[-1])  # (B, H, Z, N + A)
            worth = sum((w.flatten() * x for w, x in zip(weights, step[1:], strict=True)), torch.zeros_like(leaf[:, 0]))
            slope, curvature = _cost(worth, leaf, rearrange(wide, "b h z n -> (b h) z n"))
            final_slope, final_curvature = _cost(total, last, basis[:, -1])
        transition = basis[:, 1:].mT @ jacobian @ wide
        slope, curvature = (x.unflatten(0, (-1, horizon)) for x in (slope, curvature))
        offset = torch.zeros_like(transition[..., 0])  # the path obeys the dynamics
        return Quadratic(
            transition=transition,
            offset=offset,
            curvature=curvature,
            slope=slope,
            final_curvature=final_curvature,
            final_slope=final_slope,
        ), basis

    def _follow(self, dynamics: Dynamics, path: Path, regulator: Regulator, basis: Tensor) -> Path:
        """The best path under the regulator, of all step sizes."""
        count, old = self.line_search, path.rollout
        feedback = (regulator.feedback @ basis[:, :-1].mT).to(old.action)  # (B, H, A, X)
        feedforward = regulator.feedforward.to(old.action)
        sizes = (0.5 ** torch.arange(count)).to(old.action).view(-1, 1)
        state = repeat(old.state[:, 0], "b x -> (b l) x", l=count)
        states, actions, steps = [state], [], []
        for t in range(old.action.shape[1]):
            moved = rearrange(states[-1], "(b l) x -> b l x", l=count) - old.state[:, t, None]
            change = sizes * feedforward[:, t, None] + moved @ feedback[:, t].mT  # (B, L, A)
            action = (old.action[:, t, None] + change).clamp(-1, 1)
            actions.append(rearrange(action, "b l a -> (b l) a"))
            steps.append(dynamics.step(states[-1], actions[-1]))
            states.append(steps[-1].state)
        reward, cont, uncertainty = (torch.stack(x, 1) for x in list(zip(*steps, strict=True))[1:])
        state, action = torch.stack(states, 1), torch.stack(actions, 1)
        rollout = Trajectory(state=state, action=action, reward=reward, cont=cont, uncertainty=uncertainty)
        value = rearrange(self._finite_returns(dynamics, rollout), "(b l) -> b l", l=count)
        row = value.argmax(1) + count * torch.arange(len(value), device=value.device)
        return Path(rollout.map(lambda x: x[row]), value.amax(1))


def _exact(x: Tensor) -> Tensor:
    """As float64 on the CPU.

    There the algebra of many small matrices is fast, and ``eigh`` converges: on the float32 curvature of networks, low
    in rank and with rows of zeros, LAPACK fails now and then.
    """
    return x.detach().cpu().double()


def _choose(first: Tensor, a: Path, b: Path) -> Path:
    """``a`` where ``first`` (B,), else ``b``."""

    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(first.view(-1, *[1] * (x.dim() - 1)), x, y)

    state, action, reward, cont, uncertainty = (pick(x, y) for x, y in zip(a.rollout[:5], b.rollout[:5], strict=True))
    rollout = Trajectory(state=state, action=action, reward=reward, cont=cont, uncertainty=uncertainty)
    return Path(rollout, pick(a.value, b.value))


def _damped(problem: Quadratic, mu: Tensor) -> Quadratic:
    """The problem with a cost of mu / 2 (B,) per squared change of state and action."""
    more = [mu.view(-1, *[1] * (x.dim() - 1)) * torch.eye(x.shape[-1]) for x in (problem[2], problem[4])]
    return problem._replace(curvature=problem.curvature + more[0], final_curvature=problem.final_curvature + more[1])


def _jacobian(output: Tensor, leaf: Tensor) -> Tensor:
    """Derivatives (M, X, Z) of outputs (M, X), each row of its own row of ``leaf`` (M, Z); zero where not finite.

    Only the backward pass is vectorised: the dynamics run as they are, whatever they branch on or draw, and once.
    """
    output = output + 0 * leaf.sum(-1, keepdim=True)  # a graph even where nothing depends on the leaf
    size = output.shape[-1]
    each = torch.eye(size).to(output).unsqueeze(1).expand(size, *output.shape)  # (X, M, X)
    (rows,) = grad(output, leaf, each, retain_graph=True, is_grads_batched=True)
    return _exact(rearrange(rows, "x m z -> m x z")).nan_to_num(0, 0, 0)


def _reachable(jacobian: Tensor, size: int) -> Tensor:
    """Orthonormal bases (B, H + 1, X, N) of where actions can have moved each state to, zeros beyond its dimensions."""
    horizon, actions = jacobian.shape[1], jacobian.shape[-1] - size
    count = min(size, horizon * actions)
    bases = [torch.zeros_like(jacobian[:, 0, :, :1]).expand(-1, -1, count)]
    for t in range(horizon):
        state_part, action_part = jacobian[:, t].split([size, actions], -1)
        # the first columns come out spanning what the first columns spanned, so the new actions stand first
        moved = torch.cat([action_part, state_part @ bases[-1]], -1)
        filled = torch.arange(count, device=moved.device) < (t + 1) * actions
        bases.append(torch.linalg.qr(moved).Q[..., :count] * filled)
    return torch.stack(bases, 1)


def _with_actions(basis: Tensor, actions: int) -> Tensor:
    """Bases (B, H, X, N) of states as bases (B, H, Z, N + A) of states and actions."""
    size, count = basis.shape[-2:]
    wide = basis.new_zeros(*basis.shape[:2], size + actions, count + actions)
    wide[..., :size, :count] = basis
    wide[..., size:, count:] = torch.eye(actions)
    return wide


def _cost(worth: Tensor, leaf: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Slope (M, N) and curvature (M, N, N) of -worth (M,) at ``leaf`` (M, Z) along a basis (M, Z, N).

    Negative curvature is cut off. What is not finite is taken for zero, so that a broken problem stands still.
    """
    cost = 0 * (leaf**2).sum() - worth.sum()  # a graph of second order even where the worth is linear
    (slope,) = grad(cost, leaf, create_graph=True)
    each = rearrange(basis, "m z n -> n m z").to(leaf)
    (rows,) = grad(slope, leaf, each, retain_graph=True, is_grads_batched=True)
    curvature = _exact(rearrange(rows, "n m z -> m n z")).nan_to_num(0, 0, 0) @ basis
    values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
    slope = times(basis.mT, _exact(slope).nan_to_num(0, 0, 0))
    return slope, vectors * values.clamp_min(0).unsqueeze(-2) @ vectors.mT

"""Rollouts in the latent space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from worldmodel.model.transitions import MemberChoice
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory

Act = Callable[[LatentState], Tensor]  # states (B, ...) -> actions (B, A)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through the modules but not into their parameters."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def following(actions: Tensor) -> Act:
    """Take given actions (B, H, A), one with each call, whatever the state."""
    left = iter(actions.unbind(1))
    return lambda _: next(left)


def imagine(
    world_model: WorldModel,
    act: Act,
    start: LatentState,
    horizon: int,
    choice: MemberChoice,
    mode: bool = False,
    uncertainty: bool = True,
) -> Trajectory:
    """Roll the model forward from ``start`` (B, ...) for ``horizon`` steps.

    Args:
        world_model: what is rolled.
        act: the action (B, A) in a state (B, ...).
        start: where to begin.
        horizon: H, at least 1.
        choice: which member each step follows.
        mode: take the most likely latent instead of a draw.
        uncertainty: measure the uncertainty of every step, which costs a little; zero if not.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")
    rssm = world_model.rssm
    rssm.transition.draw()
    state, states, actions, measured = start, [start], [], []
    size = rssm.transition.members, start.deter.shape[:-1], start.deter.device
    drawn = choice.start(*size)
    for _ in range(horizon):
        action, member = act(state), choice.pick(*size, drawn)
        if uncertainty or member is None:
            deter, prior = rssm.img_step(state, action)
            state = rssm.sample_state(deter, prior, member, mode)
            measured.append(world_model.uncertainty(prior) if uncertainty else prior.new_zeros(prior.shape[1:-1]))
        else:  # only the member that is followed
            state = rssm.follow(state, action, member, mode)
        actions.append(action)
        states.append(state)
    # time first in memory: slices of time then need no copy, forward or backward
    path = LatentState(*(torch.stack(x) for x in zip(*states, strict=True)))  # (H + 1, B, ...)
    feature = path.feature[1:]
    reward, cont = world_model.reward(feature), world_model.cont(feature)  # (H, B)
    epistemic = torch.stack(measured) if uncertainty else torch.zeros_like(reward)
    rollout = Trajectory(path, torch.stack(actions), reward, cont, epistemic)
    return Trajectory(path.map(_batch_first), *(_batch_first(x) for x in rollout[1:]))


def _batch_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)

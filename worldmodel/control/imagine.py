"""Rollouts in the latent space. Legend in worldmodel/types.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from worldmodel.control.propagation import Mixture, Propagation
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory

Act = Callable[[LatentState], Tensor]  # states (B, ...) -> actions (B, A)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through the modules but not into their parameters. Compiles in one piece."""
    module, rest = modules[0], modules[1:]
    # requires_grad cannot be changed in a compiled graph; parameters can be replaced, as torch.func does
    with _reparametrize_module(module, {name: p.detach() for name, p in module.named_parameters()}):
        if not rest:
            yield
        else:
            with frozen(*rest):
                yield


def following(actions: Tensor) -> Act:
    """Take given actions (B, H, A), one with each call, whatever the state."""
    left = iter(actions.unbind(1))
    return lambda _: next(left)


def imagine(
    world_model: WorldModel,
    act: Act,
    start: LatentState,
    horizon: int,
    *,
    propagation: Propagation | None = None,
    mode: bool = False,
    uncertainty: bool = True,
    draw: bool = True,
) -> Trajectory[LatentState]:
    """Roll the model forward from ``start`` (B, ...) for ``horizon`` steps.

    Args:
        world_model: what is rolled.
        act: the action (B, A) in a state (B, ...): ``following`` actions, ``Controller.acting``, or any function.
        start: where to begin.
        horizon: H, at least 1.
        propagation: which member each step follows; the mixture if None.
        mode: take the most likely latent instead of a draw.
        uncertainty: measure the uncertainty of every step, which costs a little; zero if not.
        draw: draw members anew where they are samples; if not, those that were drawn last go on.

    Raises:
        ValueError: the horizon is below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")
    rssm, propagation = world_model.rssm, propagation or Mixture()
    if draw:
        rssm.transition.draw()
    state, states, actions, measured = start, [start], [], []
    size = rssm.transition.members, start.deter.shape[:-1], start.deter.device
    drawn = propagation.start(*size)
    for _ in range(horizon):
        action, member = act(state), propagation.pick(*size, drawn)
        if uncertainty or member is None:
            deter, prior = rssm.img_step(state, action)
            state = rssm.sample_state(deter, prior, member, mode)
            measured.append(world_model.uncertainty(prior) if uncertainty else prior.new_zeros(prior.shape[1:-1]))
        else:  # only the member that is followed
            state = rssm.follow(state, action, member, mode)
        actions.append(action)
        states.append(state)
    # time first in memory: slices of time then need no copy, forward or backward
    path = LatentState.stack(states)  # (H + 1, B, ...)
    feature = path.feature[1:]
    reward, cont = world_model.reward(feature), world_model.cont(feature)  # (H, B)
    epistemic = torch.stack(measured) if uncertainty else torch.zeros_like(reward)
    return Trajectory(state=path, action=torch.stack(actions), reward=reward, cont=cont, uncertainty=epistemic).map(
        lambda x: x.transpose(0, 1)
    )

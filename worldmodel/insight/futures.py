"""Dreams beside what happened, by each member alone, and many of one state. ``film`` draws them.

Legend: N sequences, T time, H horizon, K members, n branches, A action size, h x w pixels, F feature.
"""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.control.imagine import Act, following, imagine
from worldmodel.experience.collector import Policy
from worldmodel.insight.dreams import decode, member_dreams
from worldmodel.insight.rollouts import at_decoder_size
from worldmodel.model.transitions import MemberChoice, Mixture
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Observation, SequenceBatch, Trajectory


class Imagination(NamedTuple):
    """Dreams beside what happened. [:, t] is record t: the first ``context`` are seen, the others are dreamt.

    Where ``valid`` is False it is not known what happened: the truth is black there, and its reward NaN. Rewards and
    uncertainty are NaN as well where an episode begins, for no step led there.
    """

    truth: np.ndarray  # (N, T, 3, h, w) uint8, at the decoder's resolution
    dream: np.ndarray  # (N, T, 3, h, w) uint8: reconstructions of what is seen, then the mixture's dream
    members: np.ndarray  # (K, N, T, 3, h, w) uint8: the same by each member alone; K = 0 where they were not asked
    action: np.ndarray  # (N, T, A) that led to each record
    reward: np.ndarray  # (N, T)
    imagined_reward: np.ndarray  # (N, T)
    uncertainty: np.ndarray  # (N, T) epistemic, of the step that led to each record, in multiples of the usual
    valid: np.ndarray  # (N, T) bool
    context: int


class Branches(NamedTuple):
    """Futures of one state. ``reward[:, t]`` is earned in ``image[:, t + 1]``."""

    image: np.ndarray  # (n, H + 1, 3, h, w) uint8, from the state that they share
    action: np.ndarray  # (n, H, A)
    reward: np.ndarray  # (n, H)
    cont: np.ndarray  # (n, H) probability that the episode goes on
    uncertainty: np.ndarray  # (n, H) epistemic, in multiples of the usual


def in_dream(policy: Policy, world_model: WorldModel) -> Act:
    """A policy that acts in a dream: where it would filter an image, it is given the state. It begins anew.

    Args:
        policy: if it sees with a ``world_model``, then by that one's ``filter``, as actors and planners do.
        world_model: who dreams.
    """
    own, eyes = copy(policy), _Eyes(world_model)
    if hasattr(own, "world_model"):
        own.world_model = eyes
    memory: list[Any] = []

    def act(state: LatentState) -> Tensor:
        eyes.state, count = state, len(state.deter)
        first = torch.full((count,), not memory)
        unseen = torch.zeros(count, 3, 1, 1, dtype=torch.uint8)
        action, after = own(Observation(unseen, first), memory.pop() if memory else own.initial(count))
        memory.append(after)
        return action.to(state.deter)

    return act


class _Eyes:
    """A world model whose filter has seen already."""

    state: LatentState

    def __init__(self, world_model: WorldModel) -> None:
        self._world_model = world_model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world_model, name)

    def filter(self, *_: Any, **__: Any) -> LatentState:
        return self.state


@torch.no_grad()
def imagination(
    world_model: WorldModel,
    batch: SequenceBatch,
    context: int = 5,
    horizon: int | None = None,
    act: Act | None = None,
    members: bool = True,
) -> Imagination:
    """Filter the first records of real sequences, then dream on: the mixture, and each member alone (TSinf).

    All take their most likely latents, and the members take the actions of the mixture's dream.

    Args:
        world_model: who dreams.
        batch: real sequences (N, T).
        context: records that are seen, at least 1.
        horizon: H records that are dreamt; what the sequences have after the context if None.
        act: who acts in the dream, ``in_dream`` of a policy or ``following`` actions; nothing is known of the truth
            then, until ``beside`` adds it. The real actions if None.
        members: let every member dream as well.

    Raises:
        ValueError: nothing is to be seen or dreamt, or the horizon is longer than the data.
    """
    length = batch.action.shape[1]
    horizon = length - context if horizon is None else horizon
    if context < 1 or horizon < 1:
        raise ValueError(f"context and horizon must be at least 1, got {context} and {horizon}")
    if context > length or (act is None and context + horizon > length):
        raise ValueError(f"horizon longer than the data: {context} seen + {horizon} dreamt, sequences have {length}")
    seen = world_model.observe(batch.map(lambda x: x[:, :context]), mode=True)
    start = LatentState(*(x[:, -1] for x in seen.state))
    chosen = act or following(batch.action[:, context : context + horizon])
    path = imagine(world_model, chosen, start, horizon, Mixture(), mode=True)
    feature = torch.cat([seen.state.feature, path.state.feature[:, 1:]], 1)  # (N, T, F)
    image = world_model.decoder.image(feature)
    begins = batch.is_first[:, :context]
    imagined = torch.cat([world_model.reward(seen.state.feature).masked_fill(begins, torch.nan), path.reward], 1)
    uncertainty = torch.cat([world_model.uncertainty(seen.prior).masked_fill(begins, torch.nan), path.uncertainty], 1)
    dreamt = Imagination(
        np.zeros(image.shape, np.uint8),
        image.cpu().numpy(),
        _own(world_model, start, path, image[:, :context]) if members else np.zeros((0, *image.shape), np.uint8),
        torch.cat([batch.action[:, :context], path.action], 1).cpu().numpy(),
        np.full(imagined.shape, np.nan, np.float32),
        imagined.float().cpu().numpy(),
        uncertainty.float().cpu().numpy(),
        np.zeros(imagined.shape, bool),
        context,
    )
    return beside(world_model, dreamt, batch if act is None else batch.map(lambda x: x[:, :context]))


def beside(world_model: WorldModel, dreamt: Imagination, batch: SequenceBatch) -> Imagination:
    """The same dreams, beside what really came of their actions: sequences (N, up to T).

    What comes after the episode that the context ends in is left out.
    """
    length, total = batch.reward.shape[1], dreamt.valid.shape[1]
    later = batch.is_first.clone()
    later[:, : dreamt.context] = False
    valid = np.zeros_like(dreamt.valid)
    valid[:, :length] = (later.cumsum(1) == 0).cpu().numpy()[:, :total]
    image = at_decoder_size(world_model, batch.image[:, :total]).cpu().numpy()
    truth, reward = np.zeros_like(dreamt.truth), np.full_like(dreamt.reward, np.nan)
    truth[:, :length], reward[:, :length] = image, batch.reward[:, :total].cpu().numpy()
    truth[~valid], reward[~valid] = 0, np.nan
    reward[:, :length][batch.is_first[:, :total].cpu().numpy()] = np.nan
    return dreamt._replace(truth=truth, reward=reward, valid=valid)


def _own(world_model: WorldModel, start: LatentState, path: Trajectory, seen: Tensor) -> np.ndarray:
    """Every member's pictures (K, N, T, 3, h, w), those of the context like the mixture's."""
    own = decode(world_model, member_dreams(world_model, start, path.action))  # (K, N, H, 3, h, w)
    return torch.cat([seen.expand(len(own), *seen.shape), own], 2).cpu().numpy()


@torch.no_grad()
def branches(
    world_model: WorldModel,
    start: LatentState,
    act: Act,
    n: int = 5,
    horizon: int = 20,
    choice: MemberChoice | None = None,
    mode: bool = True,
) -> Branches:
    """Several futures of one state. They part by what is drawn: actions, latents, or members.

    Args:
        world_model: who dreams.
        start: (1, ...) where all begin.
        act: who acts in all n at once: an actor's draws, a policy ``in_dream``, or ``following`` actions (n, H, A).
        n: how many.
        horizon: H steps.
        choice: which member a future follows; the mixture if None.
        mode: take the most likely latents instead of draws.

    Raises:
        ValueError: there is more than one start, or nothing to do.
    """
    if len(start.deter) != 1 or n < 1:
        raise ValueError(f"branches part from one state and are 1 or more, got {len(start.deter)} states and n = {n}")
    together = LatentState(*(x.expand(n, -1) for x in start))
    path = imagine(world_model, act, together, horizon, choice or Mixture(), mode)
    parts = (world_model.decoder.image(path.state.feature), path.action, path.reward, path.cont, path.uncertainty)
    return Branches(*(x.cpu().numpy() for x in parts))

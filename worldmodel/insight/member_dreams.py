"""What goes on beside a dream, a step at a time: every member's own rollout of the same actions, and some with draws.

Legend in worldmodel/types.py; N dreams, R rollouts with drawn latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from worldmodel.insight.error_model import Clues
from worldmodel.insight.rollouts import picture
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState

_DRAWS = 2  # rollouts with drawn latents, for each member


class _Beside(NamedTuple):
    """All have N first."""

    dream: LatentState  # (N, ...) where the dreams are
    own: LatentState  # (N, K, ...) where the members' rollouts are
    drawn: LatentState  # (N, R, ...)
    last: Tensor  # (N, 3, h, w) pictures of the states that the dreams began in
    totals: Tensor  # (N, K) rewards so far
    drawn_totals: Tensor  # (N, R)
    so_far: Tensor  # (N,) uncertainty, summed
    best: Tensor  # (N,) reward, of the dream so far
    reconstruction: Tensor  # (N,) of the images that the dreams began with


class MemberDreams:
    """Carries, beside N dreams, the rollouts of members and draws that their ``Clues`` are of.

    Draws are the same whenever all dreams begin anew, and nobody else's random numbers change. Members that are
    samples are those that were drawn last.

    Args:
        world_model: who dreams.
    """

    def __init__(self, world_model: WorldModel) -> None:
        self._world_model = world_model
        self._members = world_model.rssm.transition.members
        self._beside: _Beside | None = None
        self._count = 0

    @torch.no_grad()
    def begin(self, state: LatentState, reconstruction: Tensor, which: Tensor | None = None) -> None:
        """Dreams begin in filtered states.

        Args:
            state: (N, ...) of all dreams.
            reconstruction: (N,) ``reconstruction_error`` of the last image that each has seen.
            which: (N,) bool, those that begin; all if None.
        """
        n, rollouts, before = len(state.deter), self._members * _DRAWS, self._beside
        if which is None or which.all():
            self._count, before = 0, None
        drawn = state.map(lambda x: repeat(x, "n ... -> n r ...", r=rollouts))
        with self._own_draws():  # for the beginning is not known for certain
            drawn = drawn._replace(stoch=self._world_model.latents.sample(drawn.params))
        new = state.deter.new_zeros
        fresh = _Beside(
            dream=state,
            own=state.map(lambda x: repeat(x, "n ... -> n k ...", k=self._members)),
            drawn=drawn,
            last=picture(self._world_model, state.feature),
            totals=new(n, self._members),
            drawn_totals=new(n, rollouts),
            so_far=new(n),
            best=new(n) - torch.inf,
            reconstruction=reconstruction.to(state.deter),
        )
        self._beside = fresh if which is None or before is None else _merged(which, fresh, before)

    @torch.no_grad()
    def step(self, state: LatentState, action: Tensor) -> Clues:
        """The dreams have come to ``state`` (N, ...) by ``action`` (N, A): their clues, (N, 1) each."""
        assert self._beside is not None
        model, was = self._world_model, self._beside
        self._count += 1
        unsure = model.uncertainty(model.rssm.img_step(was.dream, action)[1])
        own = self._follow(was.own, action, mode=True)
        with self._own_draws():
            drawn = self._follow(was.drawn, action, mode=False)
        reward, each, others = (model.reward(x.feature) for x in (state, own, drawn))
        now = self._beside = _Beside(
            dream=state,
            own=own,
            drawn=drawn,
            last=was.last,
            totals=was.totals + each,
            drawn_totals=was.drawn_totals + others,
            so_far=was.so_far + unsure,
            best=torch.maximum(was.best, reward),
            reconstruction=was.reconstruction,
        )
        image, beside = picture(model, state.feature), torch.cat([own.feature, drawn.feature], 1)
        of_own, of_drawn = picture(model, beside).tensor_split([self._members], 1)  # (N, K or R, 3, h, w)
        return Clues(
            pixels=_array(_spread(of_own).mean((-3, -2, -1))),
            reward=_array(_spread(each)),
            total=_array(_spread(now.totals)),
            latent=_array(own.stoch.var(1, unbiased=False).mean(-1)),
            drawn_pixels=_array(_difference(of_drawn, image.unsqueeze(1)).mean(1)),
            drawn_reward=_array(_spread(others)),
            drawn_total=_array(_spread(now.drawn_totals)),
            uncertainty=_array(unsure),
            so_far=_array(now.so_far),
            motion=_array(_difference(image, was.last)),
            scene=_array(_difference(image, model.decoder.pixels.mean)),
            level=_array(reward.abs()),
            fallen=_array(now.best - reward),
            reconstruction=_array(now.reconstruction),
        )

    def _follow(self, state: LatentState, action: Tensor, mode: bool) -> LatentState:
        """One step of rollouts (N, R, ...) by the actions (N, A) of their dreams, each by a member of its own."""
        n, rollouts = state.deter.shape[:2]
        who = torch.arange(rollouts, device=action.device).remainder(self._members).repeat(n)
        flat = state.map(lambda x: rearrange(x, "n r ... -> (n r) ..."))
        flat = self._world_model.rssm.follow(flat, repeat(action, "n a -> (n r) a", r=rollouts), who, mode)
        return flat.map(lambda x: rearrange(x, "(n r) ... -> n r ...", n=n))

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        device = self._world_model.rssm.from_stoch.weight.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self._count)
            yield


def _merged(which: Tensor, fresh: _Beside, before: _Beside) -> _Beside:
    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(which.view(-1, *[1] * (new.dim() - 1)), new, old)

    def states(new: LatentState, old: LatentState) -> LatentState:
        return LatentState._make(chosen(x, y) for x, y in zip(new, old, strict=True))

    return _Beside(
        dream=states(fresh.dream, before.dream),
        own=states(fresh.own, before.own),
        drawn=states(fresh.drawn, before.drawn),
        last=chosen(fresh.last, before.last),
        totals=chosen(fresh.totals, before.totals),
        drawn_totals=chosen(fresh.drawn_totals, before.drawn_totals),
        so_far=chosen(fresh.so_far, before.so_far),
        best=chosen(fresh.best, before.best),
        reconstruction=chosen(fresh.reconstruction, before.reconstruction),
    )


def _array(x: Tensor) -> np.ndarray:
    """(N,) -> (N, 1)"""
    return x.double().unsqueeze(1).cpu().numpy()


def _spread(x: Tensor) -> Tensor:
    """Deviation over rollouts of (N, R, ...), (N, ...)."""
    return x.std(1, unbiased=False)


def _difference(image: Tensor, other: Tensor) -> Tensor:
    return (image - other).abs().mean((-3, -2, -1))

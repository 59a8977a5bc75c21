"""N rollouts in one batch, stepped by hand, each of which begins anew when told to. Legend in worldmodel/types.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.control.imagine import following, imagine
from worldmodel.control.propagation import Mixture, Propagation
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState


class Given(Propagation):
    """Members (*B,) that somebody has chosen; the mixture if None."""

    def __init__(self, member: Tensor | None) -> None:
        self.member = member

    def pick(self, members: int, batch: torch.Size, device: torch.device, drawn: Tensor | None) -> Tensor | None:
        return self.member


class DreamStep(NamedTuple):
    """What a step of N dreams earned: everything is of the state that it led to, which is ``Dreams.state`` now."""

    reward: Tensor  # (N,)
    cont: Tensor  # (N,) probability that the state is not terminal
    uncertainty: Tensor  # (N,) epistemic uncertainty of the step, 1 is usual on the training data


class Dreams:
    """Rollouts in the latent space that begin in given states.

    What is drawn (starts, latents, members) comes from a generator of their own: after ``seed`` the same calls give the
    same dreams, and nobody else's draws change. With TSInf a dream follows one member from its beginning to its end.
    Members that are samples are drawn when all dreams begin at once, and last until all do so again.

    Args:
        world_model: what is rolled.
        starts: (P, ...) states to begin in, each as likely as any other.
        num: how many dreams, N.
        propagation: which member each step follows; the mixture if None.
        mode: take the most likely latents instead of draws.
        uncertainty: measure that of every step; zero if not, and a step then computes fewer members.
        reconstruction: (P,) how far each start is from the image that it was filtered from, if that is known.

    Raises:
        ValueError: there is no start, or no dream.
    """

    def __init__(
        self,
        world_model: WorldModel,
        starts: LatentState,
        num: int,
        *,
        propagation: Propagation | None = None,
        mode: bool = False,
        uncertainty: bool = True,
        reconstruction: Tensor | None = None,
    ) -> None:
        if num < 1 or not len(starts.deter):
            raise ValueError(f"there must be 1 or more dreams and starts, got {num} and {len(starts.deter)}")
        self.world_model, self.num, self.mode, self.uncertainty = world_model, num, mode, uncertainty
        self.propagation = propagation or Mixture()
        self.starts = starts.map(lambda x: x.to(self.device))
        self.state = world_model.rssm.initial(num)  # (N, ...) where each dream is now
        self.reconstruction: Tensor | None = None  # (N,) of the start of each dream
        self._of_starts: Tensor | None = None  # (P,)
        if reconstruction is not None:
            self._of_starts = reconstruction.to(self.device)
            self.reconstruction = self._of_starts.new_zeros(num)
        self._dealt: Tensor | None = None  # (N,) members that dreams follow to their end
        self._even = True  # Transition.follow wants each member to have no more than its share
        self._members: dict[str, Tensor] = {}  # those that are samples
        self.seed(0)

    @property
    def device(self) -> torch.device:
        """Where the dreams are."""
        return self.world_model.rssm.from_stoch.weight.device

    def seed(self, seed: int) -> None:
        """Let what is drawn from now on follow from ``seed``."""
        with torch.random.fork_rng(self._cuda()):
            torch.manual_seed(seed)
            self._random = self._states()

    @torch.no_grad()
    def begin(self, which: Tensor | None = None) -> None:
        """Begin dreams anew.

        Args:
            which: (N,) bool; all of them if None.
        """
        place = torch.arange(self.num, device=self.device) if which is None else which.nonzero().squeeze(1)  # (n,)
        members, size = self.world_model.rssm.transition.members, torch.Size([len(place)])
        whole = len(place) == self.num
        with self._own_draws():
            index = torch.randint(len(self.starts.deter), (len(place),), device=self.device)
            drawn = self.propagation.start(members, size, self.device)
            if whole:
                self.world_model.rssm.transition.draw()
                self._members = self.world_model.rssm.transition.drawn()
        chosen = self.starts.map(lambda x: x[index])
        if self._of_starts is not None and self.reconstruction is not None:
            self.reconstruction = self.reconstruction.index_copy(0, place, self._of_starts[index])
        self.state = LatentState(*(x.index_copy(0, place, y) for x, y in zip(self.state, chosen, strict=True)))
        if whole or drawn is None or self._dealt is None:
            self._dealt, self._even = drawn, True
        else:
            self._dealt, self._even = self._dealt.index_copy(0, place, drawn), False

    @torch.no_grad()
    def step(self, action: Tensor) -> DreamStep:
        """Move all dreams by an action (N, A), one-hot when discrete."""
        transition = self.world_model.rssm.transition
        transition.hold(self._members)
        with self._own_draws():
            member = self.propagation.pick(transition.members, torch.Size([self.num]), self.device, self._dealt)
            path = imagine(
                self.world_model,
                following(action.unsqueeze(1)),
                self.state,
                1,
                propagation=Given(member),
                mode=self.mode,
                uncertainty=self.uncertainty or not self._even,
                draw=False,
            )
        self.state = path.state.map(lambda x: x[:, 1])
        uncertainty = path.uncertainty[:, 0] if self.uncertainty else torch.zeros_like(path.reward[:, 0])
        return DreamStep(path.reward[:, 0], path.cont[:, 0], uncertainty)

    def uniform(self) -> Tensor:
        """Draw a number (N,) in [0, 1) for each."""
        with self._own_draws():
            return torch.rand(self.num, device=self.device)

    def _cuda(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []

    def _states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda())]

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        with torch.random.fork_rng(self._cuda()):
            torch.set_rng_state(self._random[0])
            for device, state in zip(self._cuda(), self._random[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self._random = self._states()

"""Which member of the ensemble a rollout follows: TS1 and TSinf of PETS (Chua et al. 2018), or the mixture."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Propagation(ABC):
    """Which member's prediction each step of an imagined rollout follows. Members are dealt evenly."""

    def start(self, members: int, batch: torch.Size, device: torch.device) -> Tensor | None:
        """What is drawn once for each rollout, (*batch,), or None."""
        return None

    @abstractmethod
    def pick(self, members: int, batch: torch.Size, device: torch.device, drawn: Tensor | None) -> Tensor | None:
        """Member indices (*batch,) for one step, or None to follow the mixture."""


class TS1(Propagation):
    """Another random member at each step."""

    def pick(self, members: int, batch: torch.Size, device: torch.device, drawn: Tensor | None) -> Tensor:
        return deal(members, batch, device)


class TSInf(Propagation):
    """One random member for a whole rollout."""

    def start(self, members: int, batch: torch.Size, device: torch.device) -> Tensor:
        return deal(members, batch, device)

    def pick(self, members: int, batch: torch.Size, device: torch.device, drawn: Tensor | None) -> Tensor | None:
        return drawn


class EachMember(TSInf):
    """One member for a whole rollout, and not at random: the first B / K rollouts follow the first, and so on.

    Raises:
        ValueError: the number of rollouts B is no multiple of the number of members K.
    """

    def start(self, members: int, batch: torch.Size, device: torch.device) -> Tensor:
        if batch.numel() % members:
            raise ValueError(f"{batch.numel()} rollouts cannot be shared evenly by {members} members")
        return torch.arange(members, device=device).repeat_interleave(batch.numel() // members).view(batch)


class Mixture(Propagation):
    """The members' average: plain averaging over what the model does not know."""

    def pick(self, members: int, batch: torch.Size, device: torch.device, drawn: Tensor | None) -> None:
        return None


def deal(members: int, batch: torch.Size, device: torch.device) -> Tensor:
    """Random members (*batch,), each as often as the others or once more: every one is as likely at every place."""
    places = torch.randperm(batch.numel(), device=device)
    return ((places + torch.randint(members, (), device=device)) % members).view(batch)

"""Who can drive a dream beside a person. Legend: A action size, H horizon."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from worldmodel.control.actors import Actor
from worldmodel.control.planner_policy import PlannerPolicy, later
from worldmodel.control.planners.base import bound
from worldmodel.types import LatentState


class Driver(ABC):
    """Chooses the action in a dreamt state."""

    def begin(self) -> None:  # noqa: B027
        """Another dream begins, or this one is handed over: forget what was planned."""

    @abstractmethod
    def act(self, state: LatentState) -> Tensor:
        """The action (1, A) in a state (1, ...), one-hot when discrete."""


class ActorDriver(Driver):
    """The actor's most likely action."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def act(self, state: LatentState) -> Tensor:
        return self._actor.mode(state.feature)


class PlannerDriver(Driver):
    """Plans from the dreamt state as the policy does from a filtered one, warm from the plan before.

    Args:
        policy: its planner, proposals, value and ``every`` are used; it filters nothing.
    """

    def __init__(self, policy: PlannerPolicy) -> None:
        self._policy = policy
        self.begin()

    def begin(self) -> None:
        start = self._policy.initial(1)
        self._plan, self._kept, self._left = start.plan, start.kept[:, :0], 0

    def act(self, state: LatentState) -> Tensor:
        policy = self._policy
        action = bound(self._plan[:, 0], policy.action)
        if self._left == 0:
            made = policy.plan(state, self._plan, self._kept)
            action, self._left = made.action, policy.every
            self._plan, self._kept = made.mean, made.elites[:, : policy.keep]
        self._plan, self._kept, self._left = later(self._plan), later(self._kept), self._left - 1
        return action

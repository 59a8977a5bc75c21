"""Who acts in latent states, be they filtered from images or imagined. Legend: N environments, A action size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.imagine import Act
from worldmodel.errors import UserError
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, LatentState, Observation


class Controller(ABC):
    """Chooses actions from latent states and a memory of its own.

    Args:
        world_model: whose latents they are.
        actor_critic: None where there is none.
        action: what an action is.

    Raises:
        UserError: it needs an actor and there is none.
        ValueError: its settings do not go together.
    """

    blind = False  # acts without looking at the state, so that a policy need not filter

    def __init__(self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec) -> None:
        self.world_model, self.actor_critic, self.action = world_model, actor_critic, action

    @property
    @abstractmethod
    def name(self) -> str:
        """Under which evaluations are recorded."""

    def initial(self, n: int) -> Any:
        """The memory before the first state: a pytree of tensors, batch first, that are zero. Draws nothing."""
        return ()

    @abstractmethod
    def act(self, state: LatentState, memory: Any, explore: bool = False) -> tuple[Tensor, Any]:
        """The action (N, A), one-hot when discrete, in states (N, ...), and the memory after it.

        Args:
            state: where to act.
            memory: what ``initial`` or the call before gave.
            explore: draw (to collect), or take the most likely action (to evaluate).
        """

    def acting(self, explore: bool = False) -> Act:
        """Actions of the state alone, for ``imagine``: the memory is kept inside, and begins anew."""
        memory: list[Any] = []

        def act(state: LatentState) -> Tensor:
            action, after = self.act(state, memory.pop() if memory else self.initial(len(state.deter)), explore)
            memory.append(after)
            return action

        return act

    def check(self) -> None:
        """Find out before anything starts whether it can act. Leaves torch's generator as it is.

        Raises:
            UserError, ValueError: it cannot.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self.act(self.world_model.rssm.initial(1), self.initial(1))


MakeController = Callable[[WorldModel, ActorCritic | None, ActionSpec], Controller]


class ActorController(Controller):
    """The actor: draws to explore, its mode otherwise."""

    def __init__(self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec) -> None:
        super().__init__(world_model, actor_critic, action)
        if actor_critic is None:
            raise UserError(
                "this run has no actor: give model.evaluate_with and model.collect_with a planner, "
                "such as --policy policy/cem"
            )
        self.actor = actor_critic.actor

    @property
    def name(self) -> str:
        return "actor"

    def act(self, state: LatentState, memory: Any, explore: bool = False) -> tuple[Tensor, Any]:
        actor, feature = self.actor, state.feature
        return actor.bound(actor.sample(feature)) if explore else actor.mode(feature), memory


class RandomController(Controller):
    """Uniform actions, from torch's global generator."""

    blind = True

    @property
    def name(self) -> str:
        return "random"

    def act(self, state: LatentState, memory: Any, explore: bool = False) -> tuple[Tensor, Any]:
        return random_action(self.action, len(state.deter)).to(state.deter), memory


def random_action(action: ActionSpec, n: int) -> Tensor:
    """Actions (n, A), uniform in [-1, 1], or a uniform one-hot. Draws from torch's global generator."""
    if action.discrete:
        return F.one_hot(torch.randint(action.size, (n,)), action.size).float()
    return torch.rand(n, action.size) * 2 - 1


class PolicyState(NamedTuple):
    """What a policy remembers between two moments."""

    latent: LatentState  # (N, ...)
    action: Tensor  # (N, A) the last one
    memory: Any  # the controller's


class LatentPolicy:
    """Acts in real environments: filters the images, then asks the controller.

    Args:
        controller: who acts.
        explore: draw latents and actions (to collect), or take the most likely ones (to evaluate).
    """

    def __init__(self, controller: Controller, explore: bool = False) -> None:
        self.controller, self.explore, self.world_model = controller, explore, controller.world_model

    def initial(self, n: int) -> PolicyState:
        """Zeros, (n, ...)."""
        latent = self.world_model.rssm.initial(n)
        return PolicyState(latent, latent.deter.new_zeros(n, self.controller.action.size), self.controller.initial(n))

    @torch.no_grad()
    def __call__(self, observation: Observation, state: PolicyState) -> tuple[Tensor, PolicyState]:
        """Action (N, A) and the next state. Where an episode begins the state before it is forgotten."""
        observation = observation.map(lambda x: x.to(state.action.device))
        latent, controller, first = state.latent, self.controller, observation.is_first
        if not controller.blind:
            latent = self.world_model.filter(observation, state.action, latent, mode=not self.explore)
        memory = pytree.tree_map(lambda x: x.masked_fill(first.view(-1, *[1] * (x.dim() - 1)), 0), state.memory)
        action, memory = controller.act(latent, memory, self.explore)
        return action, PolicyState(latent, action, memory)


class SinglePolicy:
    """Acts in one environment of ``wm.make_env``: what it shows goes in, what its ``step`` takes comes out.

    Args:
        controller: who acts.
        explore: draw latents and actions, or take the most likely ones.
    """

    def __init__(self, controller: Controller, explore: bool = False) -> None:
        self._policy = LatentPolicy(controller, explore)
        self._state = self._policy.initial(1)

    def __call__(self, seen: np.ndarray | Mapping[str, np.ndarray], is_first: bool) -> np.ndarray | int:
        """The action for an image (3, H, W) uint8: (A,) in [-1, 1], or a choice. The first of an episode forgets.

        Where numbers stand beside the image, for a dict of ``image`` and ``vector`` (V,).

        Raises:
            ValueError: the image or the vector is of another kind.
        """
        image = seen["image"] if isinstance(seen, Mapping) else seen
        vector = torch.as_tensor(seen["vector"], dtype=torch.float32)[None] if isinstance(seen, Mapping) else None
        if (found := np.asarray(image)).dtype != np.uint8 or found.ndim != 3 or not found.size:
            raise ValueError(f"an image is (3, H, W) uint8, got {found.dtype} {found.shape}")
        observation = Observation(torch.as_tensor(image)[None], torch.tensor([is_first]), vector=vector)
        action, self._state = self._policy(observation, self._state)
        if self._policy.controller.action.discrete:
            return int(action[0].argmax())
        return action[0].float().cpu().numpy()

"""A world model as planners see it. Legend: M rollouts, H horizon, D deter, Z latent, X = D + Z, A action, P params."""

from __future__ import annotations

from torch import Tensor

from worldmodel.control.critic import Critic
from worldmodel.control.imagine import following, imagine
from worldmodel.control.planners.base import Dynamics, Step
from worldmodel.control.propagation import Propagation
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory


class LatentDynamics(Dynamics):
    """States are features: memory and latent side by side, (M, D + Z), as ``LatentState.feature`` gives them.

    Args:
        world_model: what moves them.
        critic: what they are worth beyond the horizon; nothing if None.
        propagation: which member a rollout follows; the mixture if None.
        mode: take the most likely latents, so that sequences of actions are compared and not draws.
        uncertainty: measure the uncertainty; zero if not, which is faster.
    """

    def __init__(
        self,
        world_model: WorldModel,
        critic: Critic | None = None,
        propagation: Propagation | None = None,
        mode: bool = True,
        uncertainty: bool = True,
    ) -> None:
        self.world_model, self.critic, self.propagation = world_model, critic, propagation
        self.mode, self.uncertainty = mode, uncertainty

    def step(self, state: Tensor, action: Tensor) -> Step:
        path = self.rollout(state, action.unsqueeze(1))
        return Step(path.state[:, 1], path.reward[:, 0], path.cont[:, 0], path.uncertainty[:, 0])

    def rollout(self, state: Tensor, actions: Tensor) -> Trajectory[Tensor]:
        latents = self.world_model.latents
        deter, stoch = state.split([state.shape[-1] - latents.size, latents.size], -1)
        # nothing reads the parameters of a state that is left behind
        start = LatentState(deter, stoch, state.new_zeros(()).expand(*state.shape[:-1], latents.param_size))
        path = imagine(
            self.world_model,
            following(actions),
            start,
            actions.shape[1],
            propagation=self.propagation,
            mode=self.mode,
            uncertainty=self.uncertainty,
            draw=False,  # candidates are compared under the same members
        )
        return Trajectory(
            state=path.state.feature, action=actions, reward=path.reward, cont=path.cont, uncertainty=path.uncertainty
        )

    def value(self, state: Tensor) -> Tensor:
        return super().value(state) if self.critic is None else self.critic(state)

    def renew(self) -> None:
        self.world_model.rssm.transition.draw()

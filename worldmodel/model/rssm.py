"""Recurrent state-space model (PlaNet, Dreamer) with an ensemble for its prior. Legend in worldmodel/types.py."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.distributions import Latents
from worldmodel.model.layers import GRU
from worldmodel.model.transitions import Transition, select_member
from worldmodel.types import LatentState


class Posterior(NamedTuple):
    """What filtering real sequences gives: the posterior states and every member's prior of them."""

    state: LatentState  # (B, T, ...)
    prior: Tensor  # (K, B, T, P)


class RSSM(nn.Module):
    """Memory h_t = f(h_{t-1}, s_{t-1}, a_{t-1}), posterior q(s_t | h_t, e_t), and K transitions for the prior.

    Args:
        embed_size: size E of an image's embedding.
        action_size: size A of an action.
        latents: the family of latent distributions.
        transition: the ensemble, built for these sizes.
        deter: size D of the memory.
        width: hidden width.
        deterministic: the posterior is a function of the image alone and is not drawn, q(s|o) = g(o): the special case
            of an autoencoder whose latent moves by the transition.
    """

    def __init__(
        self,
        embed_size: int,
        action_size: int,
        latents: Latents,
        transition: Transition,
        deter: int,
        width: int,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.latents, self.transition, self.deter, self.deterministic = latents, transition, deter, deterministic
        # linear layers over concatenated inputs, split so that what is known for all T goes in one product
        self.from_stoch = nn.Linear(latents.size, width, bias=False)
        self.from_action = nn.Linear(action_size, width, bias=False)
        self.input_norm = nn.LayerNorm(width, eps=1e-3)
        self.memory = GRU(width, deter)
        self.from_deter = None if deterministic else nn.Linear(deter, width, bias=False)
        self.from_embed = nn.Linear(embed_size, width, bias=False)
        self.posterior_norm = nn.LayerNorm(width, eps=1e-3)
        self.posterior = nn.Linear(width, latents.param_size)

    def widen(self, size: int) -> None:
        """Let the posterior see ``size`` more numbers beside an image's embedding. Drawn anew: before any training."""
        self.from_embed = nn.Linear(self.from_embed.in_features + size, self.from_embed.out_features, bias=False)

    @property
    def feature_size(self) -> int:
        return self.deter + self.latents.size

    def initial(self, *batch: int) -> LatentState:
        """The state before anything was seen: zeros, (*batch, ...)."""
        weight = self.from_stoch.weight
        return LatentState(
            *(weight.new_zeros(*batch, n) for n in (self.deter, self.latents.size, self.latents.param_size))
        )

    def _remember(self, state: LatentState, action_part: Tensor) -> Tensor:
        x = F.silu(self.input_norm(self.from_stoch(state.stoch) + action_part))
        return self.memory(x, state.deter)  # (B, D)

    def _perceive(self, deter: Tensor, embed_part: Tensor, mode: bool = False) -> LatentState:
        seen = embed_part if self.from_deter is None else self.from_deter(deter) + embed_part
        params = self.posterior(F.silu(self.posterior_norm(seen)))
        stoch = self.latents.mode(params) if mode or self.deterministic else self.latents.sample(params)
        return LatentState(deter, stoch, params)

    def obs_step(
        self, state: LatentState, action: Tensor, embed: Tensor, is_first: Tensor, mode: bool = False
    ) -> LatentState:
        """One step of filtering: state (*B), the action (*B, A) that led to ``embed`` (*B, E), is_first (*B,)."""
        alive = (~is_first).unsqueeze(-1).to(embed.dtype)
        state = LatentState(*(x * alive for x in state))
        deter = self._remember(state, self.from_action(action * alive))
        return self._perceive(deter, self.from_embed(embed), mode)

    def img_step(self, state: LatentState, action: Tensor) -> tuple[Tensor, Tensor]:
        """One step of imagination: the next memory (*B, D), and all members' priors of the next latent (K, *B, P)."""
        deter = self._remember(state, self.from_action(action))
        return deter, self.transition(deter, state.feature, action)

    def follow(self, state: LatentState, action: Tensor, member: Tensor, mode: bool = False) -> LatentState:
        """One step of imagination by the members ``member`` (*B,) alone, dealt evenly: ``img_step`` for less work."""
        deter = self._remember(state, self.from_action(action))
        params = self.transition.follow(deter, state.feature, action, member)
        return LatentState(deter, self.latents.mode(params) if mode else self.latents.sample(params), params)

    def sample_state(self, deter: Tensor, prior: Tensor, member: Tensor | None, mode: bool = False) -> LatentState:
        """The next state, drawn from the members ``member`` (*B,), or from the mixture when None."""
        params = self.latents.mixture(prior) if member is None else select_member(prior, member)
        return LatentState(deter, self.latents.mode(params) if mode else self.latents.sample(params), params)

    def observe(
        self, embed: Tensor, action: Tensor, is_first: Tensor, state: LatentState | None = None, mode: bool = False
    ) -> Posterior:
        """Filter real sequences.

        Args:
            embed: (B, T, E)
            action: (B, T, A), aligned as in SequenceBatch.
            is_first: (B, T) bool
            state: (B, ...) the state before the first record; zeros if None.
            mode: take the most likely latents instead of draws.
        """
        self.transition.draw()
        length = embed.shape[1]
        alive = (~is_first).unsqueeze(-1).to(embed.dtype)  # (B, T, 1)
        action = action * alive
        action_parts = self.from_action(action).unbind(1)
        embed_parts = self.from_embed(embed).unbind(1)
        alive_parts = alive.unbind(1)
        state = self.initial(len(embed)) if state is None else state
        states, features = [], []
        for t in range(length):
            state = LatentState(state.deter * alive_parts[t], state.stoch * alive_parts[t], state.params)
            features.append(state.feature)
            state = self._perceive(self._remember(state, action_parts[t]), embed_parts[t], mode)
            states.append(state)
        stacked = LatentState(*(torch.stack(x, 1) for x in zip(*states, strict=True)))  # (B, T, ...)
        return Posterior(stacked, self.transition(stacked.deter, torch.stack(features, 1), action))

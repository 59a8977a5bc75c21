"""Every member's own dream of the same future, and how far the dreams part.

Legend: K members, B sequences, H horizon, A action size, D memory, P parameters, F feature, h x w pixels.

All spreads are deviations (or variances) over members without Bessel's correction, so that K = 1 gives zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState


class Dreams(NamedTuple):
    """K rollouts from one start under the same actions. ``reward[..., t]`` is earned in ``state[..., t + 1]``."""

    state: LatentState  # each (K, B, H + 1, ...)
    reward: Tensor  # (K, B, H)
    cont: Tensor  # (K, B, H) probability that state[..., t + 1] is not terminal


def member_dreams(world_model: WorldModel, start: LatentState, actions: Tensor) -> Dreams:
    """Let each member follow itself alone (TSinf of PETS, Chua et al. 2018), by its most likely latents.

    Args:
        world_model: who dreams.
        start: (B, ...) where all members begin.
        actions: (B, H, A), ``actions[:, t]`` leads from state t to t + 1.

    Raises:
        ValueError: no actions, or not as many sequences as starts.
    """
    if actions.dim() != 3 or not actions.shape[1] or len(actions) != len(start.deter):
        raise ValueError(f"actions must be (B, H, A) for {len(start.deter)} starts, H >= 1, got {tuple(actions.shape)}")
    rssm = world_model.rssm
    rssm.transition.draw()
    members = rssm.transition.members
    state = LatentState(*(repeat(x, "b n -> (k b) n", k=members) for x in start))
    follows = torch.arange(members, device=actions.device).repeat_interleave(len(actions))  # (K B)
    states = [state]
    for action in repeat(actions, "b h a -> h (k b) a", k=members):
        state = rssm.sample_state(*rssm.img_step(state, action), follows, mode=True)
        states.append(state)
    stacked = (torch.stack(x, 1) for x in zip(*states, strict=True))  # (K B, H + 1, ...)
    path = LatentState(*(rearrange(x, "(k b) t n -> k b t n", k=members) for x in stacked))
    feature = path.feature[:, :, 1:]
    return Dreams(path, world_model.reward(feature), world_model.cont(feature))


def picture(world_model: WorldModel, feature: Tensor) -> Tensor:
    """The mean image as numbers in [0, 1] that are not rounded, (*B, F) -> (*B, 3, h, w)."""
    decoder = world_model.decoder
    white = decoder(feature.flatten(0, -2)).float()
    image = (white * decoder.pixels.std + decoder.pixels.mean).clamp(0, 1)
    return image.unflatten(0, feature.shape[:-1])


@torch.no_grad()
def decode(world_model: WorldModel, dreams: Dreams) -> Tensor:
    """What each member sees, (K, B, H, 3, h, w) uint8, without the start."""
    return world_model.decoder.image(dreams.state.feature[:, :, 1:])


def reward_spread(dreams: Dreams) -> Tensor:
    """Deviation over members of the reward, (B, H)."""
    return dreams.reward.std(0, unbiased=False)


def pixel_spread(world_model: WorldModel, dreams: Dreams) -> Tensor:
    """Mean over pixels of the deviation over members of the image, (B, H) in [0, 0.5]."""
    steps = dreams.state.feature.unbind(2)[1:]  # a step at a time: all images at once can be gigabytes
    return torch.stack([_pixel_deviation(world_model, feature) for feature in steps], 1)


def latent_spread(dreams: Dreams) -> Tensor:
    """Mean over dimensions of the variance over members of the latent, (B, H).

    Categorical latents are one-hot vectors: in [0, 0.25], and 0 where all members agree on every class.
    """
    return dreams.state.stoch[:, :, 1:].var(0, unbiased=False).mean(-1)


def reward_disagreement(world_model: WorldModel, deter: Tensor, prior: Tensor) -> Tensor:
    """Deviation (*B,) over members of the reward at each member's most likely next latent.

    Args:
        world_model: whose reward head is asked.
        deter: (*B, D) memory of the next state.
        prior: (K, *B, P) of its latent, as ``RSSM.img_step`` gives both.
    """
    return world_model.reward(_modes(world_model, deter, prior)).std(0, unbiased=False)


def pixel_disagreement(world_model: WorldModel, deter: Tensor, prior: Tensor) -> Tensor:
    """The same for the image: mean over pixels of the deviation over members, (*B,) in [0, 0.5]."""
    return _pixel_deviation(world_model, _modes(world_model, deter, prior))


def _modes(world_model: WorldModel, deter: Tensor, prior: Tensor) -> Tensor:
    """Features (K, *B, F) of each member's most likely next state."""
    mode = world_model.latents.mode(prior)
    return torch.cat([deter.expand(len(prior), *deter.shape), mode], -1)


def _pixel_deviation(world_model: WorldModel, feature: Tensor) -> Tensor:
    """(K, *B, F) -> (*B,)"""
    return picture(world_model, feature).std(0, unbiased=False).mean((-3, -2, -1))

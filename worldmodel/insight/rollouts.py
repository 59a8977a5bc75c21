"""What a model imagines once it is shown no more images, beside what happened. ``render`` draws it.

Legend in worldmodel/types.py; N sequences, n branches, h x w pixels of the decoder, F feature.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor

from worldmodel.control.imagine import Act, following, imagine
from worldmodel.control.propagation import EachMember, Propagation
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, SequenceBatch, Trajectory


@torch.no_grad()
def open_loop(
    world_model: WorldModel,
    batch: SequenceBatch,
    context: int = 5,
    horizon: int | None = None,
    *,
    act: Act | None = None,
    propagation: Propagation | None = None,
    mode: bool = True,
    members: bool = False,
) -> Trajectory[LatentState]:
    """Filter the first records of real sequences, then imagine the next ones; with images, and beside the truth.

    State t of the rollout is that of record t: the first ``context`` are filtered, the others imagined. Where an
    episode begins inside the context no step led there: reward and uncertainty are NaN.

    Args:
        world_model: who imagines.
        batch: real sequences (N, T).
        context: records that are seen, at least 1.
        horizon: records that are imagined; what the sequences have after the context if None.
        act: who acts, such as ``Controller.acting`` or ``following`` actions; nothing is known of the truth then, until
            ``with_truth`` adds it. The real actions if None.
        propagation: which member the rollout follows; the mixture if None.
        mode: take the most likely latents instead of draws.
        members: let every member imagine the same actions on its own as well (``imagine_members``).

    Raises:
        ValueError: nothing is to be seen or imagined, or the horizon is longer than the data.
    """
    length = batch.action.shape[1]
    horizon = length - context if horizon is None else horizon
    if context < 1 or horizon < 1:
        raise ValueError(f"context and horizon must be at least 1, got {context} and {horizon}")
    if context > length or (act is None and context + horizon > length):
        raise ValueError(f"horizon longer than the data: {context} seen + {horizon} imagined, sequences have {length}")
    real = batch.map(lambda x: x[:, :context])
    seen = world_model.observe(real, mode=mode)
    start = seen.state.map(lambda x: x[:, -1])
    taken = act or following(batch.action[:, context : context + horizon])
    path = imagine(world_model, taken, start, horizon, propagation=propagation, mode=mode)
    state = LatentState(*(torch.cat([x, y[:, 1:]], 1) for x, y in zip(seen.state, path.state, strict=True)))
    image, begins = world_model.decoder.image(state.feature), real.is_first[:, 1:]

    def of_steps(filtered: Tensor, imagined: Tensor) -> Tensor:
        return torch.cat([filtered[:, 1:].masked_fill(begins, torch.nan), imagined], 1)  # (N, T - 1)

    found = Trajectory(
        state=state,
        action=torch.cat([real.action[:, 1:], path.action], 1),
        reward=of_steps(world_model.reward(seen.state.feature), path.reward),
        cont=torch.cat([world_model.cont(seen.state.feature[:, 1:]), path.cont], 1),
        uncertainty=of_steps(world_model.uncertainty(seen.prior), path.uncertainty),
        image=image,
        context=context,
    )
    if members:
        own = world_model.decoder.image(imagine_members(world_model, start, path.action).state.feature[:, :, 1:])
        alike = image[:, :context].expand(len(own), *image[:, :context].shape)
        found = found._replace(members=torch.cat([alike, own], 2))
    return with_truth(world_model, found, batch if act is None else real)


def with_truth(world_model: WorldModel, path: Trajectory[LatentState], batch: SequenceBatch) -> Trajectory[LatentState]:
    """A rollout of ``open_loop`` beside what really came of its actions: sequences (N, up to T).

    What comes after the episode that the context ends in is left out.
    """
    assert path.image is not None
    total, first = path.image.shape[1], batch.is_first[:, : path.image.shape[1]]
    length = first.shape[1]
    later = first.clone()
    later[:, : path.context] = False
    valid = first.new_zeros(len(first), total)
    valid[:, :length] = later.cumsum(1) == 0
    truth = torch.zeros_like(path.image)
    truth[:, :length] = at_decoder_size(world_model, batch.image[:, :total])
    reward = path.reward.new_full((len(first), total), torch.nan)
    reward[:, :length] = batch.reward[:, :total].masked_fill(first, torch.nan)
    return path._replace(
        truth=truth * valid[:, :, None, None, None],
        real_reward=reward.masked_fill(~valid, torch.nan)[:, 1:],
        valid=valid,
    )


@torch.no_grad()
def branches(
    world_model: WorldModel,
    start: LatentState,
    act: Act,
    n: int = 5,
    *,
    horizon: int = 20,
    propagation: Propagation | None = None,
    mode: bool = True,
) -> Trajectory[LatentState]:
    """Several futures of one state, with images. They part by what is drawn: actions, latents, or members.

    Args:
        world_model: who imagines.
        start: (1, ...) where all begin.
        act: who acts in all n at once: ``Controller.acting``, or ``following`` actions (n, H, A).
        n: how many.
        horizon: H steps.
        propagation: which member a future follows; the mixture if None.
        mode: take the most likely latents instead of draws.

    Raises:
        ValueError: there is more than one start, or nothing to do.
    """
    if len(start.deter) != 1 or n < 1:
        raise ValueError(f"branches part from one state and are 1 or more, got {len(start.deter)} states and n = {n}")
    together = start.map(lambda x: x.expand(n, -1))
    path = imagine(world_model, act, together, horizon, propagation=propagation, mode=mode)
    return path._replace(image=world_model.decoder.image(path.state.feature))


def imagine_members(world_model: WorldModel, start: LatentState, actions: Tensor) -> Trajectory[LatentState]:
    """Each member's own rollout of the same actions, by its most likely latents: everything is (K, B, ...).

    Args:
        world_model: who imagines.
        start: (B, ...) where all members begin.
        actions: (B, H, A), ``actions[:, t]`` leads from state t to t + 1.

    Raises:
        ValueError: no actions, or not as many sequences as starts.
    """
    if actions.dim() != 3 or not actions.shape[1] or len(actions) != len(start.deter):
        raise ValueError(f"actions must be (B, H, A) for {len(start.deter)} starts, H >= 1, got {tuple(actions.shape)}")
    members = world_model.rssm.transition.members
    together = start.map(lambda x: repeat(x, "b ... -> (k b) ...", k=members))
    act = following(repeat(actions, "b ... -> (k b) ...", k=members))
    path = imagine(world_model, act, together, actions.shape[1], propagation=EachMember(), mode=True, uncertainty=False)
    return path.map(lambda x: rearrange(x, "(k b) ... -> k b ...", k=members))


def longest(batch: SequenceBatch, context: int, count: int) -> SequenceBatch:
    """The ``count`` sequences whose episode goes on longest after the context, in their order."""
    later = batch.is_first.clone()
    later[:, :context] = False
    chosen = (later.cumsum(1) == 0).sum(1).argsort(descending=True, stable=True)[:count].sort().values
    return batch.map(lambda x: x[chosen])


def picture(world_model: WorldModel, feature: Tensor) -> Tensor:
    """The mean image as numbers in [0, 1] that are not rounded, (*B, F) -> (*B, 3, h, w)."""
    decoder = world_model.decoder
    white = decoder(feature.flatten(0, -2)).float()
    image = (white * decoder.pixels.std + decoder.pixels.mean).clamp(0, 1)
    return image.unflatten(0, feature.shape[:-1])


def reconstruction_error(world_model: WorldModel, feature: Tensor, image: Tensor) -> Tensor:
    """How far filtered states (N, T, F) are from the images (N, T, 3, H, W) that they have seen.

    Returns:
        (N, T) mean squared error in pixels, in [0, 1].
    """
    return squared_error(world_model.decoder.image(feature), at_decoder_size(world_model, image))


def squared_error(image: Tensor, truth: Tensor) -> Tensor:
    """The mean (*B,) over images (*B, 3, h, w) uint8, in [0, 1]."""
    return ((image.float() - truth.float()) / 255).square().mean((-3, -2, -1))


def at_decoder_size(world_model: WorldModel, image: Tensor) -> Tensor:
    """Real images (N, T, 3, H, W) uint8 as the decoder would have to draw them, (N, T, 3, h, w) uint8."""
    small = world_model.decoder.pixels.resize(image.flatten(0, 1)).mul(255).round()
    return small.to(torch.uint8).unflatten(0, image.shape[:2])

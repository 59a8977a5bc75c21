"""Open-loop rollouts: what the model dreams once it is shown no more images.

Legend: N sequences, T time, h x w pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageDraw
from torch import Tensor

from worldmodel.control.imagine import following, imagine
from worldmodel.insight.canvas import DARK, DREAMT, SEEN
from worldmodel.model.transitions import MemberChoice, Mixture
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, SequenceBatch


class OpenLoop(NamedTuple):
    """Truth beside dream. Where ``valid`` is False another episode has begun: images are black there, numbers zero."""

    truth: Tensor  # (N, T, 3, h, w) uint8, at the decoder's resolution
    dream: Tensor  # (N, T, 3, h, w) uint8: reconstructions of the first ``context`` records, imagination after
    difference: Tensor  # (N, T, 3, h, w) uint8: |truth - dream|
    reward: Tensor  # (N, T)
    imagined_reward: Tensor  # (N, T)
    uncertainty: Tensor  # (N, T) epistemic, of the step that led to each record; 1 is typical
    valid: Tensor  # (N, T) bool
    context: int


@torch.no_grad()
def open_loop(
    world_model: WorldModel,
    batch: SequenceBatch,
    context: int = 5,
    sequences: int = 4,
    choice: MemberChoice | None = None,
    mode: bool = True,
) -> OpenLoop:
    """Filter the first ``context`` records of each sequence, then imagine the rest under the real actions.

    A dream cannot cross into another episode. The sequences that stay longest in the episode that their context ends
    in are taken, in the batch's order; what remains of them after that episode is masked.

    Args:
        world_model: who dreams.
        batch: real sequences (B, T).
        context: records that are seen, from 1 to T - 1.
        sequences: N, or B if that is smaller.
        choice: which member the dream follows; the mixture if None.
        mode: take the most likely latents instead of draws.

    Raises:
        ValueError: the context leaves nothing to see or to dream.
    """
    length = batch.action.shape[1]
    if not 0 < context < length:
        raise ValueError(f"context must be from 1 to {length - 1} for sequences of {length}, got {context}")
    batch, valid = _longest(batch, context, sequences)
    seen = world_model.observe(batch.map(lambda x: x[:, :context]), mode=mode)
    start = LatentState(*(x[:, -1] for x in seen.state))
    actions = following(batch.action[:, context:])
    dreamt = imagine(world_model, actions, start, length - context, choice or Mixture(), mode)
    feature = torch.cat([seen.state.feature, dreamt.state.feature[:, 1:]], 1)  # (N, T, F)
    uncertainty = world_model.uncertainty(seen.prior)  # (N, context)
    truth = at_decoder_size(world_model, batch.image)
    dream = world_model.decoder.image(feature)
    difference = (truth.int() - dream.int()).abs().to(torch.uint8)
    uncertainty = torch.cat([uncertainty, dreamt.uncertainty], 1)
    mask = valid[:, :, None, None, None]
    images = (truth * mask, dream * mask, difference * mask)
    numbers = (batch.reward * valid, world_model.reward(feature) * valid, uncertainty * valid)
    return OpenLoop(*images, *numbers, valid, context)


def _longest(batch: SequenceBatch, context: int, sequences: int) -> tuple[SequenceBatch, Tensor]:
    """The sequences whose episode goes on longest after the context, and which of their records are of it (N, T)."""
    valid = batch.is_first.clone()
    valid[:, :context] = False
    valid = valid.cumsum(1) == 0
    chosen = valid.sum(1).argsort(descending=True, stable=True)[:sequences].sort().values
    return batch.map(lambda x: x[chosen]), valid[chosen]


def at_decoder_size(world_model: WorldModel, image: Tensor) -> Tensor:
    """Real images (N, T, 3, H, W) uint8 as the decoder would have to draw them, (N, T, 3, h, w) uint8."""
    small = world_model.decoder.pixels.resize(image.flatten(0, 1)).mul(255).round()
    return small.to(torch.uint8).unflatten(0, image.shape[:2])


def _panels(rollout: OpenLoop, cell: int) -> np.ndarray:
    """Truth, dream and difference as (3, N, T, H, W, 3) uint8, enlarged until a side has ``cell`` or more."""
    panels = torch.stack([rollout.truth, rollout.dream, rollout.difference]).cpu().numpy()
    scale = max(1, -(-cell // panels.shape[-1]))
    return repeat(panels, "p n t c h w -> p n t (h a) (w b) c", a=scale, b=scale)


def strip(rollout: OpenLoop, cell: int = 64) -> Image.Image:
    """A picture of time from left to right: three rows (truth, dream, difference) for each sequence.

    An orange line stands where the dream begins; numbers above count the records.

    Args:
        rollout: what to draw.
        cell: least side of one frame in the picture, in pixels.
    """
    between = [(0, 0)] * 3 + [(0, 1)] * 2 + [(0, 0)]
    panels = np.pad(_panels(rollout, cell), between, constant_values=DARK[0])
    _, count, length, height, width, _ = panels.shape
    left, top, gap = 72, 18, 6
    block = 3 * height + gap
    canvas = Image.new("RGB", (left + length * width + gap, top + count * block), DARK)
    draw = ImageDraw.Draw(canvas)
    rows = rearrange(panels, "p n t h w c -> n (p h) (t w) c")
    dream_x = left + rollout.context * width
    for n, row in enumerate(rows):
        y = top + n * block
        # what is dreamt stands a gap to the right, so that the line hides no pixel
        split = rollout.context * width
        canvas.paste(Image.fromarray(np.ascontiguousarray(row[:, :split])), (left, y))
        canvas.paste(Image.fromarray(np.ascontiguousarray(row[:, split:])), (dream_x + gap, y))
        for p, name in enumerate(("truth", "dream", "difference")):
            draw.text((4, y + p * height + height // 2 - 6), name, SEEN)
    draw.rectangle((dream_x + 1, 0, dream_x + gap - 2, canvas.height), DREAMT)
    for t in range(length):
        dreamt = t >= rollout.context
        draw.text((left + t * width + gap * dreamt + 2, 2), str(t), DREAMT if dreamt else SEEN)
    return canvas


def frames(rollout: OpenLoop, cell: int = 128) -> np.ndarray:
    """A film (T, H, W, 3) uint8: truth, dream and difference side by side, a row for each sequence.

    The dream's border is white while it is shown images, and orange from where it is not.

    Args:
        rollout: what to show.
        cell: least side of one frame in the picture, in pixels.
    """
    panels = _panels(rollout, cell)
    edge = 4
    around = [(0, 0)] * 3 + [(edge, edge)] * 2 + [(0, 0)]
    framed = np.pad(panels, around)
    inside = np.pad(np.ones(panels.shape[3:5], bool), edge)
    framed[1, :, : rollout.context, ~inside] = SEEN
    framed[1, :, rollout.context :, ~inside] = DREAMT
    return rearrange(framed, "p n t h w c -> t (n h) (p w) c")

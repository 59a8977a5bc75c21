"""What a dream shows of itself, and how it has turned out: what ``trust.py`` is fitted on and reads.

Legend in worldmodel/types.py; n dreams, H horizon.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.control.imagine import following, imagine
from worldmodel.insight.error_model import Clues, Steps
from worldmodel.insight.member_dreams import MemberDreams
from worldmodel.insight.rollouts import picture, reconstruction_error, squared_error
from worldmodel.insight.trust import Trust
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, SequenceBatch, Trajectory

_CHUNK = 32  # dreams at once


class Judged(NamedTuple):
    """Dreams of real sequences, and what came of them."""

    clues: Clues
    errors: dict[str, Steps]  # (n, H) each of ``QUANTITIES``, NaN where the episode was over


@torch.no_grad()
def dream_clues(world_model: WorldModel, path: Trajectory[LatentState], reconstruction: Tensor) -> Clues:
    """Clues of rollouts (n, H), by what ``MemberDreams`` are beside them under the same actions.

    ``reconstruction`` (n,) is the ``reconstruction_error`` of the last image that each has seen.
    """
    world_model.rssm.transition.draw()
    beside = MemberDreams(world_model)
    beside.begin(path.state.map(lambda x: x[:, 0]), reconstruction)
    steps = [
        beside.step(path.state.map(lambda x, t=t: x[:, t + 1]), action)  # type: ignore[misc]
        for t, action in enumerate(path.action.unbind(1))
    ]
    return Clues(*(np.concatenate(x, 1) for x in zip(*steps, strict=True)))


@torch.no_grad()
def judged(world_model: WorldModel, batch: SequenceBatch, context: int) -> Judged:
    """Filter the first ``context`` records of real sequences (n, context + H), dream the others, and compare.

    Raises:
        ValueError: nothing is to be seen or dreamt.
    """
    length = batch.reward.shape[1]
    if not 0 < context < length:
        raise ValueError(f"of {length} records at least 1 must be seen and 1 dreamt, got a context of {context}")
    parts = [
        _judged(world_model, batch.map(lambda x, i=i: x[i : i + _CHUNK]), context)  # type: ignore[misc]
        for i in range(0, len(batch.reward), _CHUNK)
    ]
    clues = Clues(*(np.concatenate(x) for x in zip(*(part.clues for part in parts), strict=True)))
    return Judged(clues, {name: np.concatenate([part.errors[name] for part in parts]) for name in parts[0].errors})


def _judged(world_model: WorldModel, batch: SequenceBatch, context: int) -> Judged:
    seen = world_model.observe(batch.map(lambda x: x[:, :context]), mode=True).state
    missed = reconstruction_error(world_model, seen.feature[:, -1:], batch.image[:, context - 1 : context])[:, 0]
    start, real = seen.map(lambda x: x[:, -1]), batch.map(lambda x: x[:, context:])
    horizon = real.reward.shape[1]
    path = imagine(world_model, following(real.action), start, horizon, mode=True, uncertainty=False)
    resize, last = world_model.decoder.pixels.resize, picture(world_model, start.feature)
    pairs = [(picture(world_model, x), resize(real.image[:, t])) for t, x in enumerate(_steps(path))]
    wrong, over = path.reward - real.reward, real.is_first.cumsum(1) > 0
    errors = {
        "pixels": torch.stack([_difference(dreamt, truth) for dreamt, truth in pairs], 1),
        "reward": wrong.abs(),
        "return": wrong.cumsum(1).abs(),
        "still": torch.stack([_difference(last, truth) for _, truth in pairs], 1),
    }
    known = {name: _array(x.masked_fill(over, torch.nan)) for name, x in errors.items()}
    return Judged(dream_clues(world_model, path, missed), known)


def with_expected(
    world_model: WorldModel, path: Trajectory[LatentState], trust: Trust, level: float = 0.9
) -> Trajectory[LatentState]:
    """A rollout of ``open_loop``, with the error in pixels to be expected by now and the steps that are trusted.

    Beyond the steps that the calibration knows nothing is expected (NaN) and nothing is trusted.

    Args:
        world_model: who imagined it.
        path: (N, T) of which the first ``path.context`` states were filtered, with their images and the truth.
        trust: its calibration.
        level: that the band covers.

    Raises:
        ValueError: the rollout has no images of what was seen.
    """
    if path.image is None or path.truth is None:
        raise ValueError("what to expect of a rollout takes the images that were seen: make it with open_loop")
    seen, total = path.context - 1, path.action.shape[1]
    end = min(total, seen + trust.horizon)
    dreamt = path._replace(state=path.state.map(lambda x: x[:, seen : end + 1]), action=path.action[:, seen:end])
    clues = dream_clues(world_model, dreamt, squared_error(path.image[:, seen], path.truth[:, seen]))
    expected = trust.expected(clues)
    error = np.full((len(clues.pixels), total - seen, 3), np.nan)
    error[:, : end - seen] = np.stack([*expected.band(level), expected.median], -1)
    device = path.action.device
    return path._replace(
        expected_error=torch.from_numpy(error).float().to(device),
        trusted=torch.from_numpy(trust.trusted_steps(clues)).to(device),
    )


def weights_digest(world_model: WorldModel) -> str:
    """What tells a world model's weights from others."""
    found = hashlib.sha256()
    for name, x in sorted(world_model.state_dict().items()):
        found.update(name.encode())
        found.update(x.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _steps(path: Trajectory[LatentState]) -> tuple[Tensor, ...]:
    """Features of the states that were dreamt, one step at a time: all images at once can be gigabytes."""
    return path.state.feature.unbind(1)[1:]


def _difference(image: Tensor, other: Tensor) -> Tensor:
    return (image - other).abs().mean((-3, -2, -1))


def _array(x: Tensor) -> np.ndarray:
    return x.double().cpu().numpy()

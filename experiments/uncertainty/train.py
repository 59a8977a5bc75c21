"""World models of every kind, trained on the same data. One file each, so that a study that was cut goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from encoders.conv import PatchEncoder
from experiments.uncertainty.data import Task
from worldmodel.experience.replay import Replay
from worldmodel.model.bayesian import BayesianTransition, DropoutTransition
from worldmodel.model.decoder import PatchDecoder
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.independent import IndependentEnsemble, IndependentHeads
from worldmodel.model.transitions import SharedTrunk
from worldmodel.model.world_model import WorldModel

WEIGHTS = {"reconstruction": 0.1, "representation": 0.1}  # the others are 1, as in size/laptop
MEMBERS = 5


def softmax(size: int) -> CategoricalLatents:
    """Classes where the others have ``size`` Gaussians: 8 of 8, or 16 of 16."""
    return CategoricalLatents(max(8, size // 2), max(8, size // 2))


class Kind(NamedTuple):
    """A transition, whether its members see resampled data, and the latents that it predicts, by their number."""

    transition: Callable[..., torch.nn.Module]
    bootstrap: bool = False
    latents: Callable[[int], Latents] = GaussianLatents
    share: float = 1.0  # of the world model's width that a member has


KINDS = {
    "single": Kind(partial(SharedTrunk, members=1)),
    "shared": Kind(partial(SharedTrunk, members=MEMBERS)),
    "independent_heads": Kind(partial(IndependentHeads, members=MEMBERS), share=0.5),
    "independent": Kind(partial(IndependentEnsemble, members=MEMBERS)),
    "independent_half": Kind(partial(IndependentEnsemble, members=MEMBERS), share=0.5),
    "independent_priors": Kind(partial(IndependentEnsemble, members=MEMBERS, prior_scale=1.0), bootstrap=True),
    "bayesian": Kind(partial(BayesianTransition, members=MEMBERS)),
    "dropout": Kind(partial(DropoutTransition, members=MEMBERS)),
    "single_softmax": Kind(partial(SharedTrunk, members=1), latents=softmax),
    "independent_softmax": Kind(partial(IndependentEnsemble, members=MEMBERS), latents=softmax),
}


class Size(NamedTuple):
    """How large a model of a task is, and how long it trains."""

    image: int
    channels: tuple[int, ...]
    deter: int
    latents: int
    width: int
    updates: int


TOY = Size(16, (16, 32), 32, 8, 64, 2000)
CARTPOLE = Size(32, (48, 96), 128, 32, 128, 2000)
BODY = Size(32, (48, 96), 256, 32, 256, 4000)  # as in size/laptop
SIZES = {
    "point_swamp": TOY,
    "point_aside": TOY,
    "cartpole_swingup": CARTPOLE,
    "cartpole_balance": CARTPOLE,
    "walker_walk": BODY,
    "reacher_easy": BODY,
    "finger_spin": BODY,
}


def build(task: Task, kind: Kind, action_size: int) -> WorldModel:
    """An untrained model."""
    size = SIZES[task.name]
    return WorldModel(
        action_size,
        PatchEncoder(size.image, channels=size.channels),
        kind.latents(size.latents),
        partial(kind.transition, width=round(kind.share * size.width)),
        lambda feature: PatchDecoder(feature, size.image, channels=size.channels),
        deter=size.deter,
        width=size.width,
        decode_fraction=0.5,
        bootstrap=kind.bootstrap,
    )


def train(model: WorldModel, replay: Replay, updates: int, seed: int, rate: float = 2e-3, say: str = "") -> None:
    """Adam with a linear decay to a tenth, in place."""
    torch.manual_seed(seed)
    model.fit_statistics(replay.sample(64, 16).image.flatten(0, 1))
    optimizer = torch.optim.Adam(model.parameters(), rate, eps=1e-6, fused=True)
    model.train()
    start = time.monotonic()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (update + 1) / 100) * (1 - 0.9 * update / updates)
        losses, _, _ = model.loss(replay.sample(16, 16))
        total = torch.stack([WEIGHTS.get(name, 1.0) * loss.mean() for name, loss in losses.items()]).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        if say and (update + 1) % 1000 == 0:
            parts = "  ".join(f"{name} {float(loss.detach().mean()):.3f}" for name, loss in losses.items())
            print(f"{say}: {update + 1} updates, {time.monotonic() - start:.0f} s, {parts}", flush=True)
    model.eval()


def trained(task: Task, name: str, replay: Replay, seed: int, folder: Path) -> WorldModel:
    """The model of a kind and seed: read, or trained and kept."""
    torch.manual_seed(seed)
    model = build(task, KINDS[name], replay.dtype["action"].shape[0])
    path = folder / f"{name}_{seed}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    view = Replay(
        replay.directory,
        image_shape=replay.dtype["image"].shape,
        action_size=model.rssm.from_action.in_features,
        seed=seed,
    )
    train(model, view, SIZES[task.name].updates, seed, say=f"{task.name} {name} seed {seed}")
    temporary = path.with_suffix(".tmp")
    torch.save(model.state_dict(), temporary)
    os.replace(temporary, path)
    return model

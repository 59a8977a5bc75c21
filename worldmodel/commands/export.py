"""``worldmodel export``: a small folder of what a run has learned, to look at and to play with, not to train on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel.commands.program import write_program
from worldmodel.errors import UserError
from worldmodel.experience.imported import NAME
from worldmodel.experience.records import stored_features, stored_shapes, stored_vector_size
from worldmodel.experience.replay import Replay
from worldmodel.training.average import mean_weights
from worldmodel.training.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from worldmodel.training.data import shard
from worldmodel.training.loading import load_run
from worldmodel.training.run_folder import RunFolder

_KEPT = ("state_dict", "updates", "frames", "progress")


def export(
    run: str,
    out: str | None = None,
    checkpoint: str | None = None,
    episodes: int = 5,
    half: bool = False,
    program: str | None = None,
    trust_code: bool = False,
) -> None:
    """Copy what is needed to look at a run: configuration, weights, evaluations, and its last episodes.

    Args:
        run: the run's folder.
        out: the folder to make; it may be there, but empty.
        checkpoint: whose weights; best.ckpt if none is given, or last.ckpt where there is no best.
        episodes: of the replay, the newest of the first process that have ended.
        half: keep matrices as float16, in half the space.
        program: instead, or as well, a file for actor and filter as one program, actor.pt2 (torch.export) or
            actor.onnx: image and memory in, action and memory out.
        trust_code: for a program, build whatever the run names, also code that is not of this package.

    Raises:
        UserError: there is no such run or checkpoint, there is something in the way, or the disk is full.
    """
    if out is None and program is None:
        raise UserError("say what to write: --out FOLDER, --program actor.pt2 or actor.onnx, or both")
    if program is not None:
        _write_program(run, checkpoint, Path(program), trust_code)
    if out is None:
        return
    source, target = RunFolder(run), RunFolder(out)
    if not source.config.exists():
        raise UserError(f"{run} holds no run: there is no {source.config}")
    if episodes < 0:
        raise UserError(f"episodes is {episodes}: it must be 0 or more")
    if target.path.exists() and (not target.path.is_dir() or any(target.path.iterdir())):
        raise UserError(f"{out} is not empty: name a folder that is, or is not there yet")
    used = Path(checkpoint) if checkpoint else source.weights
    weights = light(load_checkpoint(used), half)
    save_checkpoint(target.best, weights)
    # halved weights are others: what was fitted on the whole ones would be stale
    calibrations = () if half or used != source.weights else (source.path / "calibration.json",)
    for path in (source.config, source.evaluations, source.validations, *calibrations):
        if source.inside(path).exists():
            _copy(path, target.path / path.relative_to(source.path))
    if (imported := source.path / "replay" / NAME).exists():
        _copy(source.inside(imported), target.path / "replay" / NAME)
    copied = _copy_episodes(shard(source.path, 0), shard(target.path, 0), episodes)
    size = sum(path.stat().st_size for path in target.path.rglob("*") if path.is_file())
    print(f"wrote {out}: {size / 1e6:.1f} MB, {copied} episodes")


def _write_program(run: str, checkpoint: str | None, path: Path, trust_code: bool) -> None:
    agent, data = load_run(run, checkpoint, environments=1, trust_code=trust_code)
    try:
        told = write_program(agent, data.image_shape, path)
    finally:
        data.close()
    print(f"wrote {path}: {told}")


def light(checkpoint: dict[str, Any], half: bool = False) -> dict[str, Any]:
    """A checkpoint without what only training needs: weights and counters.

    Args:
        checkpoint: as ``load_checkpoint`` reads it.
        half: matrices as float16; they are float32 again in the model that takes them in.
    """
    kept = {name: checkpoint[name] for name in _KEPT if name in checkpoint}
    weights = mean_weights(checkpoint)
    kept["state_dict"] = {name: _halved(x) for name, x in weights.items()} if half else weights
    return kept


def _halved(x: Tensor) -> Tensor:
    """Scalars and vectors stay: they are small, and some are statistics."""
    if x.dim() < 2 or x.dtype != torch.float32:
        return x
    smaller = x.half()
    return smaller if smaller.isfinite().all() else x


def _copy_episodes(source: Path, target: Path, count: int) -> int:
    """Copy the newest whole episodes; returns how many there were."""
    if not count or not any(source.glob("*.npz")):
        return 0
    image_shape, action_size = stored_shapes(source)
    beside: dict[str, Any] = {"features": stored_features(source), "vector_size": stored_vector_size(source) or 0}
    held, copy = (Replay(path, image_shape=image_shape, action_size=action_size, **beside) for path in (source, target))
    for _, records in held.episodes(count, ended=True):
        if records["is_first"][0]:  # the oldest may have lost its beginning
            copy.add_episode(records)
    return copy.num_episodes


def _copy(path: Path, target: Path) -> None:
    def write(temporary: Path) -> None:
        shutil.copyfile(path, temporary)

    write_atomically(target, write)

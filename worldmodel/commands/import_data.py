"""``worldmodel import``: data from elsewhere as the replay of a run to be trained on it, all of it or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from worldmodel.errors import UserError
from worldmodel.experience.action_scale import ActionScale, given_box
from worldmodel.experience.formats import open_format
from worldmodel.experience.formats.base import Format
from worldmodel.experience.imported import Imported, import_episodes
from worldmodel.training.console import bar, megabytes
from worldmodel.training.data import shard
from worldmodel.training.lock import locked

_UNFINISHED = "replay.importing"


def import_data(
    format: str,
    path: str,
    run: str | None = None,
    size: int = 64,
    image: str | None = None,
    low: list[float] | float | None = None,
    high: list[float] | float | None = None,
) -> None:
    """Bring recorded episodes into a new run's replay. docs/data.md has the formats.

    Args:
        format: v-d4rl, v-d4rl-hdf5, hdf5 (as stable-worldmodel writes it), minari, lerobot, videos, or replay.
        path: the file or folder.
        run: the folder of the run that is to be trained on it.
        size: side of the images in pixels, to which they are resized.
        image: which picture, where an observation has several.
        low: the least that each number of an action can be, or one for all; with --high, instead of the file's box.
        high: the most.

    Raises:
        UserError: there is no such data, something is wrong with it, or something is in the way. Nothing is imported.
    """
    if run is None:
        raise UserError(f"say for which run: worldmodel import {format} {path} --run runs/NAME")
    if size < 8:
        raise UserError(f"size is {size}: it must be 8 or more")
    source, target = open_format(format, path, image), Path(run)
    scale = _given(source, low, high)
    with locked(target):
        for name in ("replay", "config.yaml"):
            if (target / name).exists():
                raise UserError(f"{run} has a {name} already: name another folder, or move that away")
        unfinished = target / _UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed, for we have the lock
        try:
            with bar(f"importing {path}", len(source)) as shown:
                found = import_episodes(source, shard(target, 0, _UNFINISHED), size, scale=scale, progress=shown.at)
            found.write(unfinished)
            unfinished.rename(target / "replay")
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    print(_told(found, target))


def _given(source: Format, low: list[float] | float | None, high: list[float] | float | None) -> ActionScale | None:
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise UserError("a box has both ends: give --low and --high")
    lows, highs = (limit if isinstance(limit, list) else [limit] for limit in (low, high))
    return given_box(lows, highs, source.actions())


def _told(found: Imported, target: Path) -> str:
    """What there is now, and what to do with it."""
    scale, steps = found.scale, found.records - found.episodes
    kind = f"one of {scale.size} choices" if scale.discrete else f"{scale.size} numbers in {_box(scale)}"
    known = {0: "no rewards: the model learns to predict, and nobody what to want", steps: "all rewards"}
    rewards = known.get(found.rewards, f"rewards of {found.rewards:,} of {steps:,} steps")
    left = f", {found.stepless} without an action left out" if found.stepless else ""
    return (
        f"imported {found.episodes:,} episodes ({found.records:,} records, {megabytes(target / 'replay')}{left}; "
        f"{found.terminated:,} end in a terminal state) into {target}\n"
        f"actions of {kind}; {rewards}\n"
        f"next: worldmodel fit --offline --run {target}"
    )


def _box(scale: ActionScale) -> str:
    if len(set(zip(scale.low, scale.high, strict=True))) == 1:
        return f"[{scale.low[0]:g}, {scale.high[0]:g}]"
    return "boxes of their own"

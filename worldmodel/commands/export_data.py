"""``worldmodel export-data``: the episodes that a run has collected, as others read them, all of them or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.action_scale import measured
from worldmodel.experience.formats.own_replay import OwnReplay
from worldmodel.experience.formats.writing import WRITERS
from worldmodel.training.console import bar


def export_data(run: str, out: str, format: str = "minari") -> None:
    """Write a run's episodes into files that others read. docs/data.md has the layouts.

    Args:
        run: the run's folder, or one that holds a replay.
        out: the folder (minari) or file (hdf5) to make.
        format: minari, or hdf5 (as stable-worldmodel reads it).

    Raises:
        UserError: there is no replay, or something is in the way. Nothing is left of what was begun.
    """
    if format not in WRITERS:
        raise UserError(f"no format {format} to write: there are {', '.join(WRITERS)}")
    target = Path(out)
    if target.exists():
        raise UserError(f"{out} is there already: name another, or move it away")
    source = OwnReplay(Path(run))
    scale = source.scale() or measured(source.actions())
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(unfinished)
        channels, height, width = source.image_shape
        writer = WRITERS[format](unfinished, scale, (height, width, channels))
        try:
            with bar(f"exporting {run}", len(source)) as shown:
                for number, episode in enumerate(source.episodes()):
                    shown.at(number)
                    if not len(episode.action):
                        continue
                    action = episode.action
                    if scale.discrete and action.ndim == 2:
                        action = scale.original(action)
                    image = np.stack(list(episode.image)).transpose(0, 2, 3, 1)  # (T + 1, H, W, 3)
                    writer.add(episode._replace(image=image, action=action))
        finally:
            writer.close()
        if not writer.episodes:
            raise UserError(f"{run} holds no episode with a step in it")
        unfinished.rename(target)
    except OSError as cause:
        raise UserError(f"cannot write {out} ({cause.strerror or cause})") from cause
    finally:
        _remove(unfinished)
    size = sum(p.stat().st_size for p in ([target] if target.is_file() else target.rglob("*")) if p.is_file())
    left = f"; the {source.vector_size} numbers beside each image are left out" if source.vector_size else ""
    print(f"wrote {out}: {writer.episodes:,} episodes, {writer.steps:,} steps, {size / 1e6:.1f} MB{left}")


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)

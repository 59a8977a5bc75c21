"""Data from elsewhere: one class for each format, found by name. Packages that only data needs load when it is read."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

from worldmodel.errors import UserError
from worldmodel.experience.formats.base import Format

# where each is
FORMATS = {
    "v-d4rl": "vd4rl:VD4RLFolder",
    "v-d4rl-hdf5": "vd4rl_hdf5:VD4RLShards",
    "hdf5": "stable_worldmodel:StableWorldModelFile",
    "minari": "minari:MinariData",
    "lerobot": "lerobot:LeRobotData",
    "videos": "videos:VideoFolder",
    "replay": "own_replay:OwnReplay",
}


def open_format(name: str, path: str | Path, image: str | None = None) -> Format:
    """Data of a format, looked at but not read yet.

    Args:
        name: of the format, one of ``FORMATS``.
        path: of the file or folder.
        image: which of several pictures an observation has, or the file has columns of.

    Raises:
        UserError: there is no such format or path, or it holds something else.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        raise UserError(
            f"no format {name}: {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(FORMATS)}"
        )
    if not Path(path).exists():
        raise UserError(f"there is no {path}")
    module, _, called = FORMATS[name].partition(":")
    kind: type[Format] = getattr(importlib.import_module(f"{__name__}.{module}"), called)
    made = kind(Path(path), image)
    made.name = name
    return made

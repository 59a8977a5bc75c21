"""Training in a program's hands: what ``worldmodel fit`` does, as a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from worldmodel.training.early import announced
from worldmodel.training.fit import fit


def train(*configs: str | Path, run: str | Path, **settings: Any) -> Path:
    """Train a run as ``worldmodel fit`` does, or go on with it: ``train("task/walker_walk", run="runs/walker")``.

    Ctrl-C finishes the update, saves, and raises SystemExit; the same call goes on from there.

    Args:
        configs: names of what is shipped, or files, as for ``--config``. Without any, a run that is there goes on,
            and one that is not begins with ``base``.
        run: its folder.
        settings: by section, as a configuration has them: ``schedule={"rounds": 20}, data={"batch": 8}``. They lie over
            the configurations.

    Returns:
        The folder, for ``load``.

    Raises:
        UserError: something is wrong with what was given; nothing is lost.
    """
    held = Path(run) / "config.yaml"
    given = [str(config) for config in configs] or [str(held)] * held.exists()
    given += [yaml.safe_dump(settings)] if settings else []
    words = [word for text in given or ["base"] for word in ("--config", text)]
    precision = torch.get_float32_matmul_precision()
    try:
        with announced([*words, "--run", str(run)]) as named:
            fit(named)
    finally:
        torch.set_float32_matmul_precision(precision)
    return Path(run)

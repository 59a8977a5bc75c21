"""Makes the run of a stranger: a whole one, that has never been trained, and what it may have been made into."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from worldmodel.insight.video import write_mp4
from worldmodel.training.checkpoint import save_checkpoint
from worldmodel.training.run_folder import RunFolder
from worldmodel.training.schedule import Progress
from worldmodel.training.settings import read, training_parser
from worldmodel.types import ActionSpec

TINY = Path(__file__).parent / "training" / "tiny.yaml"


def make_run(path: Path) -> RunFolder:
    """A run folder as ``fit`` leaves it, of a few kB and without a replay."""
    settings = read(training_parser("fit", ""), ["--config", str(TINY), "--run", str(path)])
    agent, folder = settings.agent(ActionSpec(2, False)), RunFolder(path)
    folder.claim(settings.dump())
    counted = {"updates": 16, "frames": 252, "progress": Progress(round=4).state_dict()}
    save_checkpoint(folder.best, {"state_dict": agent.state_dict(), **counted})
    row = {"frames": 252, "updates": 16, "seconds": 3.0, "policy": "actor", "starts": "evaluation", "returns": [1.0]}
    folder.add_evaluation(row | {"return_mean": 1.0, "return_std": 0.0})
    write_mp4(folder.film_to_be(16), np.zeros((3, 16, 16, 3), np.uint8))
    return folder


def altered(folder: RunFolder, *changes: tuple[str, Any]) -> None:
    """Give settings of ``config.yaml`` other values; init_args may be left out of a setting's place."""
    held = yaml.safe_load(folder.config.read_text())
    for place, value in changes:
        tree, names = held, place.split(".")
        for name, inside in pairwise(names):
            tree = tree[name]
            skips = inside in ("class_path", "init_args") or "init_args" not in tree
            tree = tree if skips else tree["init_args"]
        tree[names[-1]] = value
    folder.config.write_text(yaml.safe_dump(held))


def say(folder: RunFolder, **words: Any) -> None:
    """Give a row of ``evaluations.jsonl`` other values."""
    row = json.loads(folder.evaluations.read_text())
    folder.evaluations.write_text(json.dumps(row | words) + "\n")

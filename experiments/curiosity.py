"""Curious or not where rewards are rare: ``python -m experiments.curiosity --seeds 0 1 2``; ``--first`` tells.

The answer is how many frames each run had seen when its first reward came, and in which share of all its steps one
did: of real episodes, as its replay has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.runner import exits
from experiments.variants import Study, main
from worldmodel.errors import UserError
from worldmodel.training.data import open_replay
from worldmodel.training.loading import load_run

STUDY = Study(
    name="curiosity",
    title="Curiosity",
    text=(
        "Made by `python -m experiments.curiosity --seeds 0 1 2` and `--page`. The actor that seeks what the model\n"
        "does not know, with the weight that tunes itself, against the plain one, for the same minutes of training on\n"
        "one core. After how many frames each first saw a reward, and how often: with `--first`."
    ),
    variants={"plain": (), "curious": ("--config", "policy/curious")},
    tasks=("cartpole_swingup_sparse",),
    minutes=20.0,
)


def rewards(run: Path) -> tuple[int | None, float, int, int]:
    """Frames that a run had collected with the episode of its first reward, that one too; None if none came.

    And the share of its steps that were rewarded, how many of its episodes, and all of those.
    """
    _, data = load_run(run, environments=1)
    data.close()
    steps, rewarded, first = 0, 0, None
    found: list[bool] = []  # of each episode
    for _, records in open_replay(run, data).episodes():
        steps += len(records) - 1
        rewarded += int((records["reward"] > 0).sum())
        found.append(bool((records["reward"] > 0).any()))
        if rewarded and first is None:
            first = steps * data.settings["action_repeat"]
    return first, rewarded / max(1, steps), sum(found), len(found)


def told(out: Path) -> str:
    """A line for each run that is done in ``out``.

    Raises:
        UserError: none is.
    """
    rows = sorted(out.glob("*/*_[0-9]*.json"))
    if not rows:
        raise UserError(f"nothing in {out} is done yet: python -m experiments.curiosity runs it")
    lines = []
    for row in rows:
        frames, share, some, episodes = rewards(row.with_suffix(""))
        often = f"{share:.1%} of the steps, {some} of {episodes} episodes"
        when = "none" if frames is None else f"{frames:,} frames, {often}"
        lines.append(f"{row.parent.name} {row.stem}: {when}")
    return "\n".join(lines)


def first(words: list[str]) -> int:
    print(told(Path(words[0] if words else "runs/curiosity")))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first"]:
        exits("experiments.curiosity", lambda: first(sys.argv[2:]))
    main(STUDY)

"""The first section of a run's report: what a reader can quote, all of one checkpoint."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import worldmodel
from worldmodel.experience.cores import cores
from worldmodel.experience.replay import Replay
from worldmodel.insight.page import Section, Table
from worldmodel.insight.report import Calibration

MEANINGS = {  # of the names in tables and figures
    "latent": "mean square error of the imagined latent against the filter's; as a measure, the members' spread of it",
    "pixel": "mean absolute error of the imagined image, as a share of the range of a pixel",
    "reward": "absolute error of a step's reward; as a measure, the standard deviation over the members' rewards",
    "return": "absolute error of the sum of rewards so far",
    "entropy": "nats of the mixture of the members' priors: total uncertainty, noise included",
    "epistemic": "total less aleatoric uncertainty, as a multiple of its mean on the training data: 1 is usual",
    "information": "the same in nats: mutual information of latent and member",
    "pairwise": "mean divergence of two members' priors, in nats",
    "pixels": "spread of the members' imagined images",
    "surprise": "KL of posterior and prior in nats, which takes the image that it judges",
    "reconstruction": "mean squared error of the posterior's picture of that image, as a share of the range of a pixel",
    "novelty": "epistemic, surprise and reconstruction in one: how rare they are on the real images (Fisher's method)",
    "rank correlation": "Spearman's: 1 where the more uncertain step always is the more wrong one, 0 where chance",
    "calibration error": "mean difference of the predicted and the observed size of errors' quantiles; 0 is right",
    "coverage": "share of the true values inside intervals that are to hold the share asked for",
    "AUROC": "chance that a shifted image has the higher value than a real one; 0.5 is none, 1 is always",
}


def machine() -> str:
    """Where this runs."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{platform.system()} on {device}, {len(cores()) or os.cpu_count()} cores, torch {torch.__version__}"


def returns(replay: Replay) -> list[float]:
    """Of all whole episodes, in the order in which they were collected."""
    return [float(records["reward"].sum()) for _, records in replay.episodes()]


def summary(
    checkpoint: Path,
    state: Mapping[str, Any],
    found: Calibration,
    *,
    task: str,
    acted: tuple[str, Sequence[float], Sequence[float]],
    aurocs: Mapping[str, Mapping[str, float]],
) -> Section:
    """What the model can do and whether it knows what it cannot, in sentences; and of what, when and where.

    Args:
        checkpoint: the file whose weights are judged.
        state: what it holds.
        found: by the dreams of held-out episodes.
        task: that it was trained on.
        acted: who acted in them, and the returns of its episodes and of those at random.
        aurocs: of shifts, as ``shift_auroc`` finds them.
    """
    verdicts = [_acts(*acted), _dreams(found), _knows(found), _covers(found), _notices(aurocs)]
    seconds = float(state.get("progress", {}).get("seconds", math.nan))
    facts: dict[str, str | float] = {
        "task": task,
        "checkpoint": f"{checkpoint.name}, after {state['updates']:,} updates and {state['frames']:,} frames",
        "trained for": f"{seconds / 60:,.1f} minutes, evaluations apart" if math.isfinite(seconds) else "not known",
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "with": f"worldmodel {worldmodel.__version__}",
        "on": machine(),
    }
    return Section("Summary", [*verdicts, Table(("", ""), [*facts.items()])])


def meanings() -> Section:
    """Each measure in a line."""
    return Section("What the measures are", [Table(("measure", "what it is"), [*MEANINGS.items()])])


def _acts(who: str, acting: Sequence[float], chance: Sequence[float]) -> str:
    ours, theirs = np.mean(acting), np.mean(chance)
    spread = math.sqrt(np.var(acting) / len(acting) + np.var(chance) / len(chance))
    word = (
        "better than"
        if ours > theirs + 2 * spread
        else "worse than"
        if ours < theirs - 2 * spread
        else "no better than"
    )
    return (
        f"It acts {word} at random: return {ours:.1f} by {who} as it explores, {theirs:.1f} at random "
        f"({len(acting)} and {len(chance)} held-out episodes)."
    )


def _dreams(found: Calibration) -> str:
    pixel, reward = found.errors["pixel"], found.errors["reward"]
    return (
        f"Open loop its images are wrong by {pixel[0]:.1%} of the range of a pixel at the first step and "
        f"{pixel[-1]:.1%} at step {len(pixel)}, its rewards by {reward[0]:.3g} and {reward[-1]:.3g}."
    )


def _knows(found: Calibration) -> str:
    values = {error: each["epistemic"] for error, each in found.pooled_correlation.items()}
    best = max((x for x in values.values() if math.isfinite(x)), default=math.nan)
    said = ", ".join(f"{x:.2f} with the error of the {error}" for error, x in values.items() if math.isfinite(x))
    if not math.isfinite(best):
        return "Whether its epistemic uncertainty goes with its errors cannot be said: it is the same everywhere."
    word = "goes" if best >= 0.5 else "goes weakly" if best >= 0.2 else "does not go"
    return f"Its epistemic uncertainty {word} with its errors (rank correlation {said})."


def _covers(found: Calibration) -> str:
    share = found.pooled_coverage["reward"]
    if not math.isfinite(share):
        return "Whether its intervals on the reward cover cannot be said: there were too few sequences."
    word = "as asked" if abs(share - found.level) <= 0.05 else "too seldom" if share < found.level else "too often"
    return f"Its {found.level:.0%} intervals on the reward, scaled on other episodes, cover {word}: {share:.0%}."


def _notices(aurocs: Mapping[str, Mapping[str, float]]) -> str:
    values = {shift: measures["epistemic"] for shift, measures in aurocs.items()}
    seen = [shift for shift, x in values.items() if x >= 0.8]
    return (
        f"By its epistemic uncertainty it notices {len(seen)} of {len(values)} shifts of the images (AUROC 0.8 or "
        f"more): {', '.join(seen) or 'none'}."
    )

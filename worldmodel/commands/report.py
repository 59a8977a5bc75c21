"""``worldmodel report``: what a run has learned, and whether it knows what it does not know."""

from __future__ import annotations

import json
import tempfile
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import worldmodel
from worldmodel.commands.report_sections import (
    about,
    cost,
    dreams,
    episode,
    learning,
    noticed,
    promised,
    trusted,
    uncertainty,
)
from worldmodel.commands.report_summary import meanings, returns, summary
from worldmodel.control.controller import Controller
from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay
from worldmodel.insight.exploitation import Promises, exploitation
from worldmodel.insight.page import Section, write_html
from worldmodel.insight.report import Calibration, calibrate, horizon_errors, shift_auroc, table_rows
from worldmodel.insight.rollouts import open_loop
from worldmodel.insight.trust import Trust
from worldmodel.insight.verify import Verified
from worldmodel.training.agent import Agent
from worldmodel.training.calibrating import acting, collect_held_out, cut, judge, keep, stacked
from worldmodel.training.checkpoint import load_checkpoint, write_atomically
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness
from worldmodel.training.run_folder import RunFolder
from worldmodel.types import LatentState, SequenceBatch, Trajectory

_SHIFTED = 64  # sequences, at most, that are seen through every shift


def report(
    run: str,
    checkpoint: str | None = None,
    episodes: int = 16,
    horizon: int = 15,
    context: int = 5,
    out: str | None = None,
    seed: int = 0,
    trust_code: bool = False,
) -> None:
    """Report on a run, from episodes that it was not trained on.

    Args:
        run: the run's folder.
        checkpoint: whose weights; best.ckpt if none is given, or last.ckpt where there is no best.
        episodes: to collect for it, half by the actor (or else the planner) as it explores, half at random.
        horizon: records that are dreamt.
        context: records that are seen before a dream.
        out: the HTML file, with its numbers in a .json of the same name beside it; report.html in the run's folder if
            none is given. Others' numbers that are there are kept, renamed. The run's calibration.json is fitted again.
        seed: of the actions. The episodes begin as those of validate do.
        trust_code: build whatever the run names, also code that is not of this package.

    Raises:
        UserError: there is no such run or checkpoint, or the episodes are too few or too short.
    """
    for name, value, least in (("episodes", episodes, 4), ("horizon", horizon, 1), ("context", context, 1)):
        if value < least:
            raise UserError(f"{name} is {value}: it must be {least} or more")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    folder = RunFolder(run)
    used = Path(checkpoint) if checkpoint else folder.weights
    # with more environments short episodes would be favoured
    agent, data = load_run(run, checkpoint, environments=1, trust_code=trust_code, to_draw=True)
    data.needed_task()  # or it says that there is none
    print(f"reporting on {used} of update {agent.updates:,}: collecting {episodes} held-out episodes", flush=True)
    held = _collected(agent, data, episodes, seed=seed, context=context, horizon=horizon)
    fit = held.batch.episode[:, 0] % 2 == 0
    if fit.all() or not fit.any():
        raise UserError("too few episodes are long enough: give more --episodes, or a shorter --horizon")
    print(f"imagining {len(fit)} sequences of {horizon} steps, and seeing them through shifts", flush=True)
    with own_randomness(seed):
        found = _imagined(agent, held.batch, fit, context=context, horizon=horizon)
    print("drawing", flush=True)
    of = _Run(agent, data, folder, used)
    sequence = f"{context} records seen, {horizon} dreamt"
    sections = _sections(of, held, found, episodes=episodes, sequence=sequence, fitted=int(fit.sum()))
    path = Path(out) if out else folder.path / "report.html"
    numbers = _write_numbers(_rows(of, held, found), path)
    write_html(path, sections, f"Report of {folder.path.name}")
    if isinstance(held.trust, Trust) and used.resolve() == folder.weights.resolve():
        print(f"fitted the calibration again: {keep(folder.path, held.trust)}")
    print(f"wrote {path} and {numbers}")


def _write_numbers(rows: list[dict[str, Any]], page: Path) -> Path:
    """All numbers as JSON beside the page; earlier ones, and their page, are kept under other names."""
    numbers = page.with_suffix(".json")
    text = "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"
    if kept := _kept(numbers, page, text):
        print(f"kept what was there before as {' and '.join(map(str, kept))}")
    write_atomically(numbers, lambda temporary: temporary.write_text(text))
    return numbers


class _Collected(NamedTuple):
    """Held-out episodes, and what the calibration of the run is by them."""

    who: str  # acted in the first half of them
    batch: SequenceBatch
    earned: list[float]
    trust: Trust | str  # or why there is none
    verified: Verified | None
    promises: Promises | str  # in the first half of them, or why it is not known


class _Imagined(NamedTuple):
    """What the model makes of their sequences."""

    calibration: Calibration
    aurocs: dict[str, dict[str, float]]
    still: Trajectory[LatentState]
    moving: Trajectory[LatentState]  # with every member's dream


class _Run(NamedTuple):
    """What is reported on."""

    agent: Agent
    data: Experience
    folder: RunFolder
    used: Path  # the checkpoint


def _sections(of: _Run, held: _Collected, found: _Imagined, episodes: int, sequence: str, fitted: int) -> list[Section]:
    """The page, part by part."""
    half, updates, count = episodes // 2, of.agent.updates, len(held.batch.reward)
    held_out = {
        "held-out episodes": f"{episodes}, half by {held.who} and half at random",
        "held-out sequences": f"{count}, of which {fitted} to fit and the others to test",
        "a sequence": sequence,
    }
    metrics, state = of.folder.read_metrics(), load_checkpoint(of.used)
    acted, task = (held.who, held.earned[:half], held.earned[half:]), of.data.needed_task()
    return [
        summary(of.used, state, found.calibration, task=task, acted=acted, aurocs=found.aurocs),
        about(of.agent, of.data, folder=of.folder, checkpoint=of.used, more=held_out),
        cost(of.agent, of.used, metrics),
        learning(of.folder, metrics, updates, of.data.frames),
        episode(of.folder, updates),
        dreams(found.moving, found.still, found.calibration),
        trusted(held.trust, held.verified),
        promised(held.who, held.promises),
        *uncertainty(found.calibration),
        noticed(found.aurocs),
        meanings(),
    ]


def _rows(of: _Run, held: _Collected, found: _Imagined) -> list[dict[str, Any]]:
    """The numbers beside the page."""
    model = of.agent.world_model
    given = {"task": of.data.needed_task(), "transition": type(model.rssm.transition).__name__, "seed": of.data.seed}
    given |= {"checkpoint": of.used.name, "updates": of.agent.updates, "version": worldmodel.__version__}
    rows = table_rows(found.calibration, found.aurocs, **given)
    rows += [] if isinstance(held.promises, str) else held.promises.rows(held.who, **given)
    return rows + ([] if held.verified is None else held.verified.rows(**given))


def _collected(agent: Agent, data: Experience, episodes: int, *, seed: int, context: int, horizon: int) -> _Collected:
    acts = acting(agent)
    try:
        with own_randomness(seed), tempfile.TemporaryDirectory() as directory:
            replay = collect_held_out(data, acts, Path(directory), episodes)
            trust, verified = _fitted(agent, data.needed_task(), replay)
            promises = _promised(agent, acts, replay, episodes // 2, context=context, horizon=horizon)
            batch = windows(replay, context, horizon)
            return _Collected(acts.name, batch, returns(replay), trust, verified=verified, promises=promises)
    finally:
        data.close()


def _imagined(agent: Agent, batch: SequenceBatch, fit: Tensor, *, context: int, horizon: int) -> _Imagined:
    model = agent.world_model
    return _Imagined(
        calibration=calibrate(horizon_errors(model, batch, context, horizon), fit),
        aurocs=shift_auroc(model, _spread(batch, _SHIFTED)),
        still=open_loop(model, _spread(batch, 3), context),
        moving=open_loop(model, _spread(batch, 2), context, members=True),
    )


def _fitted(agent: Agent, task: str, replay: Replay) -> tuple[Trust | str, Verified | None]:
    """The calibration and what it is worth; or why there is none."""
    try:
        found = judge(agent, task, replay)
        return found.fit(), found.verify()
    except UserError as cause:
        return str(cause), None


def _promised(
    agent: Agent, acts: Controller, replay: Replay, episodes: int, *, context: int, horizon: int
) -> Promises | str:
    """What who acts was promised in the first episodes; or why it is not known."""
    own = [stacked([pair]) for pair in list(replay.episodes())[:episodes]]
    try:
        return exploitation(agent.world_model, own, acts.acting(explore=True), horizon, context=context)
    except UserError as cause:
        return str(cause)


def _kept(numbers: Path, page: Path, text: str) -> list[Path]:
    """Earlier files under names of their own, if the numbers are others now."""
    if not numbers.exists() or numbers.read_text() == text:
        return []
    number = next(n for n in count(1) if not numbers.with_stem(f"{numbers.stem}-{n}").exists())
    renamed = []
    for path in (numbers, page):
        if path.exists():
            renamed.append(path.rename(path.with_stem(f"{path.stem}-{number}")))
    return renamed


def windows(replay: Replay, context: int, horizon: int) -> SequenceBatch:
    """All sequences of ``context + horizon`` records that the replay's episodes hold, without overlap, in order.

    Raises:
        UserError: there is none.
    """
    length, episodes = context + horizon, list(replay.episodes())
    parts = cut(episodes, length, stride=length)
    if not parts:
        longest = max((len(records) for _, records in episodes), default=0)
        raise UserError(
            f"horizon {horizon} is longer than the data: with {context} records seen before it takes {length}, "
            f"and the longest episode has {longest}"
        )
    return stacked(parts)


def _spread(batch: SequenceBatch, count: int) -> SequenceBatch:
    """At most ``count`` sequences, evenly from first to last."""
    chosen = torch.linspace(0, len(batch.reward) - 1, min(count, len(batch.reward))).round().long()
    return batch.map(lambda x: x[chosen])

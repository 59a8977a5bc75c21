"""What happens around the updates: collecting, checkpoints, evaluation records, the console line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from worldmodel.experience.collector import EpisodeSummary
from worldmodel.insight.rollouts import frames, open_loop, strip
from worldmodel.insight.video import write_mp4
from worldmodel.training.agent import Agent
from worldmodel.training.data import Experience
from worldmodel.training.randomness import own_randomness, set_random_state
from worldmodel.training.run import CSVMetrics, RunFolder


class Clock(Callback):
    """Seconds spent training (collecting, updating, saving), evaluation apart, over all the runs of a folder."""

    def __init__(self) -> None:
        self.trained, self._since, self._pause = 0.0, 0.0, 0.0

    def seconds(self) -> float:
        return self.trained + (time.monotonic() - self._since if self._since else 0.0)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._since = time.monotonic()

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._pause = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._since:
            self._since += time.monotonic() - self._pause

    def state_dict(self) -> dict[str, Any]:
        return {"trained": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trained = state["trained"]


class Collect(Callback):
    """Fill the replay before the first update, then collect with the current actor at the start of every epoch.

    Pixel statistics are taken after the filling, and again whenever the replay has grown fourfold.
    """

    def __init__(self) -> None:
        self.finished: list[EpisodeSummary] = []  # since the console last took them
        self._measured = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        agent, data = _ours(trainer, module)
        if data.resumed_random is None:
            data.restart()
            data.fill()
            self._measure(agent, data)
        else:
            set_random_state(data.resumed_random)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        agent, data = _ours(trainer, module)
        self.finished += data.collect(agent.policy(explore=True))
        if len(data.replay) >= 4 * self._measured:
            self._measure(agent, data)

    def _measure(self, agent: Agent, data: Experience) -> None:
        batch = data.replay.sample(max(1, 1024 // data.length), data.length)
        agent.world_model.measure(batch.image.flatten(0, 1).to(agent.device))
        self._measured = len(data.replay)

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured, "finished": [list(episode) for episode in self.finished]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._measured = state["measured"]
        self.finished = [EpisodeSummary(*episode) for episode in state["finished"]]


class Record(Callback):
    """Write down every evaluation: a line in ``evaluations.jsonl``, a video of an episode, open-loop strips.

    Args:
        folder: the run's.
        clock: counts the seconds.
    """

    def __init__(self, folder: RunFolder, clock: Clock) -> None:
        self.folder, self.clock = folder, clock

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        agent, data = _ours(trainer, module)
        if not trainer.is_global_zero or agent.evaluation is None:
            return
        returns = torch.tensor(agent.evaluation.returns)
        training = trainer.state.fn == "fit"
        policy = agent.evaluate_with.name(agent.actor_critic)
        row = {
            "frames": data.frames * trainer.world_size,
            "updates": agent.updates,
            "seconds": round(self.clock.seconds(), 1),
            "policy": policy,
            "returns": [round(x, 3) for x in agent.evaluation.returns],
            "return_mean": round(float(returns.mean()), 3),
            "return_std": round(float(returns.std(unbiased=False)), 3),
        }
        self.folder.add_evaluation(row)
        name = f"{agent.updates:07d}"
        if agent.evaluation.video is not None:
            # a run is driven by one policy as it trains, and by any when it is validated
            video = f"episode_{name}.mp4" if training else f"episode_{name}_{policy}.mp4"
            write_mp4(self.folder.videos / video, agent.evaluation.video, fps=25)
        if training:
            with own_randomness(0):
                self._strips(agent, data, name)

    def _strips(self, agent: Agent, data: Experience, name: str) -> None:
        with data.replay.aside():
            batch = data.replay.sample(8, max(data.length, 20))
        dream = open_loop(agent.world_model, batch.map(lambda x: x.to(agent.device)))
        path = self.folder.videos / f"open_loop_{name}.png"
        path.parent.mkdir(exist_ok=True)
        strip(dream).save(path)
        write_mp4(path.with_suffix(".mp4"), frames(dream), fps=8)


class Console(Callback):
    """One line that a person can read, and a row of metrics, every few epochs.

    Args:
        every: epochs between two lines.
    """

    def __init__(self, every: int = 4) -> None:
        self.every = every
        self._start = self._last = (0.0, 0)
        self._first_epoch = 0

    def bind(self, clock: Clock, collect: Collect) -> None:
        self.clock, self.collect = clock, collect

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last = (self.clock.seconds(), trainer.global_step)
        self._start, self._first_epoch = self._last, trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        agent, data = _ours(trainer, module)
        done = trainer.current_epoch + 1
        if done % self.every and done != trainer.max_epochs:
            return
        metrics, now = agent.averages(), self.clock.seconds()
        finished, self.collect.finished = self.collect.finished, []
        frames = data.frames * trainer.world_size
        metrics["frames"], metrics["skipped"] = frames, agent.skipped
        metrics["updates_per_second"] = (agent.updates - self._last[1]) / max(1e-6, now - self._last[0])
        if finished:
            metrics["train/return"] = sum(e.return_ for e in finished) / len(finished)
        if agent.last_return is not None:
            metrics["eval/return"] = agent.last_return
        self._last = (now, agent.updates)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=agent.updates)
        if trainer.is_global_zero:
            print(self._line(trainer, metrics, done, now), flush=True)

    def _line(self, trainer: L.Trainer, metrics: dict[str, float], done: int, now: float) -> str:
        pace = (now - self._start[0]) / max(1, done - self._first_epoch)
        left = pace * ((trainer.max_epochs or done) - done) if (trainer.max_epochs or 0) > 0 else float("nan")
        parts = [
            f"frames {int(metrics['frames']):>8,}",
            f"updates {trainer.global_step:>6,}",
            f"return {metrics['train/return']:7.1f}" if "train/return" in metrics else "return       -",
            f"eval {metrics['eval/return']:7.1f}" if "eval/return" in metrics else "eval       -",
            f"loss {metrics.get('loss/total', float('nan')):9.2f}",
            f"{metrics['updates_per_second']:5.1f} updates/s",
            f"left {int(left // 60):d}m{int(left % 60):02d}s" if left == left else "",
        ]
        skipped = f"   skipped {int(metrics['skipped'])} (loss not finite)" if metrics["skipped"] else ""
        return "   ".join(parts) + skipped


class Checkpoints(Callback):
    """``last.ckpt`` every few epochs and at the end, ``best.ckpt`` whenever the evaluation return rises.

    Args:
        every: epochs between two checkpoints.
    """

    def __init__(self, every: int = 8) -> None:
        self.every = every
        self.best = -float("inf")

    def bind(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        agent, data = _ours(trainer, module)
        if agent.skipped_in_a_row:  # something may be broken: the good checkpoint stays
            return
        done = trainer.current_epoch + 1
        score = agent.last_return if agent.evaluation is not None else None
        agent.evaluation = None
        better = score is not None and score > self.best
        if score is not None and better:
            self.best = score
        if not (better or done % self.every == 0 or done == trainer.max_epochs):
            return
        trainer.save_checkpoint(self.folder.last)
        if better and trainer.is_global_zero:
            _link(self.folder.last, self.folder.best)
        trainer.strategy.barrier()
        data.replay.commit()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


class Truncate(Callback):
    """On resume, drop from the tables what lies after the checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.folder.forget_after(trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, CSVMetrics):
                logger.forget_after(trainer.global_step)


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    temporary.replace(target)


def _ours(trainer: L.Trainer, module: L.LightningModule) -> tuple[Agent, Experience]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, Agent) and isinstance(data, Experience)
    return module, data

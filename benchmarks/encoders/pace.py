"""A run that is measured by its training time, evaluations apart."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from worldmodel.training.agent import Agent
from worldmodel.training.callbacks import Clock

NEVER = 10**9  # epochs


class Pace(Callback):
    """Ends a run with the epoch in which its training time is up, and evaluates by that clock too.

    The last epoch is evaluated, and saved as any last epoch is. A run that has ended ends again at once.

    Args:
        minutes: of training (collecting, updating, saving).
        every: seconds of training between two evaluations; at the end of the epoch in which they have passed.
        episodes: of the last evaluation; those before have ``model.evaluation_episodes``.
    """

    def __init__(self, minutes: float, every: float = 30.0, episodes: int = 8) -> None:
        if min(minutes, every, episodes) <= 0:
            raise ValueError(f"minutes, every and episodes must be above 0, got {minutes}, {every} and {episodes}")
        self.limit, self.every, self.episodes = 60 * minutes, every, episodes
        self.evaluated = -float("inf")  # seconds on the clock

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.should_stop = self.evaluated >= self.limit

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        now = _seconds(trainer)
        due = now - self.evaluated >= self.every
        if now >= self.limit:
            assert isinstance(module, Agent)
            due, module.evaluation_episodes = True, self.episodes
            trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        trainer.check_val_every_n_epoch = 1 if due else NEVER

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.evaluated = _seconds(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated": self.evaluated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluated = state["evaluated"]


def _seconds(trainer: L.Trainer) -> float:
    return next(x for x in trainer.callbacks if isinstance(x, Clock)).seconds()  # type: ignore[attr-defined]

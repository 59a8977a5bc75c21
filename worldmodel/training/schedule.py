"""How long training goes on, and what is due when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from encoders.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from worldmodel.errors import UserError


class Schedule:
    """A round is ``steps`` in every environment, then ``updates``. What is due comes at the end of a round.

    Args:
        rounds: when training ends; null for no end by rounds. A resumed run may have more.
        max_minutes: of training (collecting, updating, saving; evaluations apart), over all resumes: training ends
            with the round in which they are over. Null for no limit.
        prefill: records collected by random actions before the first update, on each rank.
        steps: steps of every environment in a round.
        updates: updates in a round.
        evaluate_every: rounds between two evaluations. The end is always evaluated.
        evaluate_minutes: minutes of training between two evaluations, instead of rounds, if given.
        evaluation_episodes: episodes in an evaluation.
        final_episodes: episodes in the evaluation at the end; as in the others if null.
        checkpoint_every: rounds between two checkpoints. The end, and whatever is better than before, is always saved.
        console_every: rounds between two printed lines, each with a row in metrics.csv.
        calibration_episodes: held-out episodes at the end, to know how wrong the dreams are; 0 for none.

    Raises:
        UserError: nothing ends the run.
    """

    def __init__(
        self,
        rounds: PositiveInt | None = 150,
        max_minutes: PositiveFloat | None = None,
        prefill: NonNegativeInt = 1000,
        steps: PositiveInt = 25,
        updates: PositiveInt = 50,
        evaluate_every: PositiveInt = 10,
        evaluate_minutes: PositiveFloat | None = None,
        evaluation_episodes: PositiveInt = 10,
        final_episodes: PositiveInt | None = None,
        checkpoint_every: PositiveInt = 8,
        console_every: PositiveInt = 4,
        calibration_episodes: NonNegativeInt = 16,
    ) -> None:
        self.rounds, self.max_minutes, self.prefill = rounds, max_minutes, prefill
        self.steps, self.updates = steps, updates
        self.evaluate_every, self.evaluate_minutes = evaluate_every, evaluate_minutes
        self.evaluation_episodes, self.final_episodes = evaluation_episodes, final_episodes
        self.checkpoint_every, self.console_every = checkpoint_every, console_every
        self.calibration_episodes = calibration_episodes
        if rounds is None and max_minutes is None:
            raise UserError("nothing ends this run: give schedule.rounds or schedule.max_minutes")

    @property
    def planned(self) -> int | None:
        """Updates until the end; None where only the clock knows."""
        return None if self.rounds is None else self.rounds * self.updates

    def is_over(self, progress: Progress) -> bool:
        """Whether training has ended."""
        if progress.update:
            return False  # in the middle of a round
        by_rounds = self.rounds is not None and progress.round >= self.rounds
        return by_rounds or (self.max_minutes is not None and progress.seconds >= 60 * self.max_minutes)

    def evaluates(self, progress: Progress) -> bool:
        """Whether an evaluation is due at this end of a round."""
        if self.evaluate_minutes is not None:
            since = progress.seconds - progress.evaluated
            return since >= 60 * self.evaluate_minutes or self.is_over(progress)
        return progress.round % self.evaluate_every == 0 or self.is_over(progress)

    def episodes(self, progress: Progress) -> int:
        """How many the evaluation has that is due."""
        return (self.is_over(progress) and self.final_episodes) or self.evaluation_episodes


@dataclass
class Progress:
    """How far training has come. It travels in the checkpoint."""

    round: int = 0  # rounds that are over
    update: int = 0  # updates of the round that is under way, skipped ones included; 0: it has not been collected for
    fitted: int = 0  # records that pixel statistics were taken of; 0: the replay has not been filled
    seconds: float = 0.0  # of training, at the last look at the clock
    evaluated: float = -float("inf")  # seconds at the last evaluation
    best: float = -float("inf")  # mean return of the best evaluation
    last_return: float | None = None  # of the last evaluation

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Clock:
    """Seconds spent training, evaluations apart, over all the resumes of a run.

    Args:
        seconds: those before.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._since = time.monotonic() - seconds

    def seconds(self) -> float:
        return time.monotonic() - self._since

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, no time passes."""
        before = self.seconds()
        try:
            yield
        finally:
            self._since = time.monotonic() - before

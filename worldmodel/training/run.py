"""A run under way: how far it has come, what it writes down, and how it is cut and resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from worldmodel.errors import UserError
from worldmodel.experience.collector import EpisodeSummary
from worldmodel.model.world_model import Metrics
from worldmodel.training.checkpoint import link, save_checkpoint
from worldmodel.training.console import bar
from worldmodel.training.evaluation import Evaluation, evaluate, film_rollouts, record
from worldmodel.training.interrupt import Interrupted, Stop
from worldmodel.training.metrics import Averages, line
from worldmodel.training.run_folder import RunFolder
from worldmodel.training.schedule import Clock, Progress, Schedule
from worldmodel.training.world import World

_FEW = 10  # records of an episode: less than one can learn from
_SILENT = 60.0  # seconds without a line of updates, after which there is one more


class Run:
    """Keeps everything that the loop leaves behind. All ranks call it; the first one writes.

    Args:
        folder: of the run.
        world: what is trained.
        schedule: how long.
        stop: a signal, if there was one.
        checkpoint: to go on from; None to begin.
    """

    def __init__(
        self, folder: RunFolder, world: World, schedule: Schedule, stop: Stop, checkpoint: dict[str, Any] | None
    ) -> None:
        self.folder, self.world, self.schedule, self._stop = folder, world, schedule, stop
        self._checkpoint = checkpoint
        self.progress, self.metrics, self.clock = Progress(), Averages(), Clock()
        self.finished: list[EpisodeSummary] = []  # since the last row of metrics
        self._is_first = world.fabric.is_global_zero
        self._frames, self._told = 0, -float("inf")  # of this round; when there was a line of updates
        self._begun = self._logged = (0.0, 0)  # seconds and updates

    def resume(self) -> None:
        """Return to the checkpoint, to the last digit. A new run saves its beginning, and drops nothing that is there.

        Raises:
            UserError: the checkpoint is of another configuration, or the replay has lost what it needs.
        """
        world, state = self.world, self._checkpoint
        if state is None:
            world.agent.optimizer.decay_over = self.schedule.planned or 0
            if (held := world.total(len(world.replay))) and self._is_first:
                print(f"the replay holds {held:,} records already: they are used", flush=True)
            self.save()
        else:
            world.load_state_dict(state)
            self.progress.load_state_dict(state["progress"])
            self.metrics.load_state_dict(state["metrics"], world.fabric.device)
            self.finished = [EpisodeSummary(*episode) for episode in state["finished"]]
            if self._is_first:
                print(f"resuming from update {world.agent.updates:,}", flush=True)
        self._checkpoint = None  # its memory is wanted for better things
        if self._is_first:
            self.folder.forget_after(world.agent.updates)
        self.clock, self._frames = Clock(self.progress.seconds), world.frames
        self._begun = self._logged = (self.progress.seconds, world.agent.updates)

    def filling(self, prefill: int) -> Iterator[int]:
        """Goes on until the replay holds enough to begin, on every rank."""
        replay, wanted = self.world.replay, max(prefill, self.world.data.length)
        if self.world.data.offline:
            return  # with what was imported, which is never nothing
        if wanted > replay.capacity:
            raise UserError(f"a replay of capacity {replay.capacity} never holds the {wanted} records to begin with")
        if self._is_first and len(replay) < wanted:
            print(f"filling the replay with {wanted - len(replay):,} records of random actions", flush=True)
        with bar("filling the replay", wanted, self._is_first and len(replay) < wanted) as shown:
            while self.world.total(len(replay) < wanted):  # ranks step together
                shown.at(len(replay))
                yield len(replay)
        self._begun = self._logged = (self.clock.seconds(), self.world.agent.updates)  # the pace is of what follows
        self._look_at_episodes()

    def _look_at_episodes(self) -> None:
        """Say so where actions last so long that next to nothing is left of an episode."""
        data, collector = self.world.data, self.world.collector
        records = len(self.world.replay) / max(1, collector.episodes)
        repeat = data.settings["action_repeat"]
        if self._is_first and collector.episodes and repeat > 1 and records < _FEW:
            print(
                f"warning: episodes of random actions have {records:.1f} records on average, for an action lasts "
                f"{repeat} frames: --data.action_repeat 1 makes {repeat} times as many",
                flush=True,
            )

    def add(self, measured: Metrics) -> None:
        """Count an update. A line of the first one, and where there was none for a minute; rows are ``log``'s."""
        if self.progress.update == 0:
            self._frames = self.world.frames  # asked of all ranks
        self.metrics.add(measured)
        self.progress.update += 1
        if self._is_first and time.monotonic() - self._told > _SILENT:
            self._tell(self.metrics.means(), self.clock.seconds())

    def end_round(self) -> None:
        """Count it, and look at the clock, which is the first rank's."""
        self.progress.round, self.progress.update = self.progress.round + 1, 0
        self.progress.seconds = self.world.fabric.broadcast(self.clock.seconds())

    def evaluate(self) -> bool:
        """Evaluate as the schedule says; whether these weights are the best so far, which are to be saved then.

        Without an environment dreams are filmed, and no weights are better than others.

        Raises:
            Interrupted: a signal came. All is saved as it was before, and a resumed run evaluates then.
        """
        progress = self.progress
        if self.world.data.task is None:  # nowhere to act: what it dreams is all there is to see
            progress.evaluated = progress.seconds
            with self.clock.stopped():
                film_rollouts(self.folder, self.world)
            return False
        try:
            with self.clock.stopped():
                return self.add_evaluation(evaluate(self.world, self.schedule.episodes(progress), stop=self._stop))
        except Interrupted:
            progress.round, progress.update = progress.round - 1, self.schedule.updates  # the round is not over
            self.save(always=True)
            raise

    def add_evaluation(self, found: Evaluation) -> bool:
        """Write an evaluation down; whether these weights are the best so far, which are to be saved then."""
        progress = self.progress
        progress.last_return, progress.evaluated = found.mean, progress.seconds
        record(self.folder, self.world, found, progress.seconds)
        film_rollouts(self.folder, self.world)
        if found.mean <= progress.best or self.world.agent.optimizer.skipped_in_a_row:
            return False
        progress.best = found.mean
        return True

    def log(self) -> None:
        """A row of metrics and a line to read, of what has happened since the last."""
        agent, now = self.world.agent, self.progress.seconds
        self._frames, metrics = self.world.frames, self.metrics.means()
        if self._is_first:
            row = self._tell(metrics, now)
            self.folder.metrics.add(row, agent.updates)
            self.world.fabric.log_dict(row, step=agent.updates)
        self.metrics.clear()
        self.finished, self._logged = [], (now, agent.updates)

    def _tell(self, metrics: dict[str, float], now: float) -> dict[str, float]:
        """Print a line of the updates since the last row; returns all that it knows."""
        agent, finished = self.world.agent, self.finished
        metrics["frames"], metrics["skipped"] = self._frames, agent.optimizer.skipped
        if finished:
            metrics["train/return"] = sum(episode.return_ for episode in finished) / len(finished)
        if self.progress.last_return is not None:
            metrics["eval/return"] = self.progress.last_return
        pace = {"updates_per_second": (agent.updates - self._logged[1]) / max(1e-6, now - self._logged[0])}
        begins = self._told < 0  # of one update no pace follows
        print(
            line(metrics if begins else metrics | pace, agent.updates, None if begins else self._left(now)),
            flush=True,
        )
        self._told = time.monotonic()
        return metrics | pace

    def save(self, is_best: bool = False, always: bool = False) -> None:
        """Write ``last.ckpt``, which is the best one too if that is said.

        Not while steps are being skipped, for something may be broken and the one before is good; unless ``always``.
        """
        if self.world.agent.optimizer.skipped_in_a_row and not always:
            return
        state = self.world.state_dict() | {
            "progress": self.progress.state_dict(),
            "metrics": self.metrics.state_dict(),
            "finished": [list(episode) for episode in self.finished],
        }
        if self._is_first:
            save_checkpoint(self.folder.last, state)
            if is_best:
                link(self.folder.last, self.folder.best)
        self.world.fabric.barrier()
        self.world.replay.commit()

    def stop_if_asked(self) -> None:
        """Save and leave if a signal came, to any rank.

        Raises:
            Interrupted: it did.
        """
        if number := self.world.most(self._stop.number):
            self.progress.seconds = self.world.fabric.broadcast(self.clock.seconds())
            self.save(always=True)
            raise Interrupted(number)

    def _left(self, now: float) -> float | None:
        """Seconds until the end, at the pace so far."""
        schedule, limits = self.schedule, []
        done = self.world.agent.updates - self._begun[1]
        if schedule.planned is not None and done:
            left = (schedule.rounds or 0) - self.progress.round
            limits.append((now - self._begun[0]) / done * left * schedule.updates)
        if schedule.max_minutes is not None:
            limits.append(max(0.0, 60 * schedule.max_minutes - now))
        return min(limits, default=None)
